"""Folders, CSV and lists in each real format become one Source, and what cannot be used is refused in one line."""

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import Files
from osdtw_lib.data import sets
from osdtw_lib.data.sets import load_source
from osdtw_lib.data.splits import split_notes
from osdtw_lib.stages.run import Run


def split_of(source, data, seed):
    return sets.of(data).split(source, data, seed)


def source(**data):
    return load_source(Files(dataset="files", **{key: str(value) for key, value in data.items()}))


def written(path, text, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **options)
    return path


@pytest.fixture
def refusal(refused, files_params):
    """refusal(train=...) -> the one line that the command line says."""
    return lambda **data: refused("split", files_params(**data))


# folders ---------------------------------------------------------------------------------------------------


def test_a_folder_a_class_in_the_order_of_their_names(tree):
    made = source(train=tree({"dog": 3, "a cat": 4, "Bird": 1}))
    assert made.class_names == ("Bird", "a cat", "dog")
    assert np.bincount(made.images.labels).tolist() == [1, 4, 3]
    assert made.images.names[1] == "a cat/a cat 0.jpg" and made.images.read(1).size == (24, 16)
    assert made.parts["train"].tolist() == list(range(8)) and made.notes == () and made.title == "own"


def test_names_that_look_the_same_are_one_class_in_two_parts_and_refused_in_one(tree, picture, refusal, tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"  # é as one character, and as e with an accent after it
    one, other = tree({apart: 2, "dog": 2}), tmp_path / "val"
    for name, width in ((composed, 31), ("dog", 32)):
        picture(other / name / "x.jpg", size=(width, 20))
    made = source(train=one, val=other)
    assert made.class_names == (apart, "dog") and made.images.labels[-2:].tolist() == [0, 1]
    picture(one / composed / "y.jpg", size=(33, 20))
    said = refusal(train=one)
    assert "in two spellings that look the same ('cafe\\u0301' and 'caf\\xe9'" in said
    lines = ["path,label", f"{apart}/{apart} 0.jpg,{apart}", f"{composed}/y.jpg,{composed}", ""]
    listed = written(tmp_path / "own.csv", "\n".join(lines), encoding="utf-8")
    assert "write it in one way" in refusal(train=listed, root=one)


def test_hidden_files_and_what_is_no_image_are_left_out_and_counted(tree, picture):
    folder = tree({"cat": 2, "dog": 2})
    for name in ("cat/.hidden.jpg", "cat/notes.txt", "dog/deeper/below/x.PNG", ".git/x.jpg", "__MACOSX/cat/x.jpg", "readme.md"):
        picture(folder / name, format="PNG")
    made = source(train=folder)
    assert made.class_names == ("cat", "dog") and len(made.images) == 5
    assert "dog/deeper/below/x.PNG" in made.images.names
    assert [note.split(": ")[-1] for note in made.notes] == [
        "left out 2 folders whose names begin with . or __ (.git, __MACOSX)",
        "left out 1 files beside the class folders (readme.md)",
        "left out 1 hidden files (cat/.hidden.jpg)",
        "left out 1 files that are no images (cat/notes.txt)",
    ]


def test_photographs_of_a_format_that_is_not_read_are_said_to_be(tree, refusal):
    folder = tree({"cat": 2, "dog": 2})
    for name in ("cat/IMG_1.HEIC", "dog/x.cr2", "dog/notes.txt"):
        (folder / name).write_bytes(b"x")
    what = "left out 2 photographs in a format that is not read here, to be converted to JPEG or PNG (cat/IMG_1.HEIC, dog/x.cr2)"
    assert [note.split(": ")[-1] for note in source(train=folder).notes] == [
        what,
        "left out 1 files that are no images (dog/notes.txt)",
    ]
    (folder / "bird").mkdir()
    (folder / "bird" / "IMG_2.heif").write_bytes(b"x")
    assert "no image in the class folder bird" in (said := refusal(train=folder)) and "to be converted to JPEG" in said


def test_a_list_with_the_paths_of_windows_says_so(tree, refusal, tmp_path):
    tree({"cat": 2, "dog": 2})
    listed = written(tmp_path / "own.csv", "path,label\ncat\\cat 0.jpg,cat\ndog\\dog 0.jpg,dog\n")
    assert "its paths are separated by \\, as on Windows; write / in its place" in refusal(train=listed, root=tmp_path / "own")


def test_a_batch_larger_than_the_training_part_is_said(tree, files_params, command):
    status, out, err = command("split", files_params({"recipe.batch_size": 64}, train=tree({"cat": 9, "dog": 5})))
    assert status == 0 and "recipe.batch_size 64 is more than the " in out and "an epoch is one step" in out, err


def test_a_class_folder_without_an_image_is_named(tree, refusal):
    folder = tree({"cat": 2, "dog": 2})
    written(folder / "owl" / "list.txt", "none")
    said = refusal(train=folder)
    assert "no image in the class folder owl" in said and "left out 1 files that are no images (owl/list.txt)" in said


def test_a_folder_of_parts_says_what_to_set(tree, refusal, tmp_path):
    tree({"cat": 2, "dog": 2}, "all/train")
    tree({"cat": 2, "dog": 2}, "all/valid")
    said = refusal(train=tmp_path / "all")
    assert f"data.train: {tmp_path}/all/train" in said and f"data.val: {tmp_path}/all/valid" in said


def test_a_folder_without_folders_and_a_missing_one_are_refused(tmp_path, picture, refusal):
    picture(tmp_path / "flat" / "a.jpg")
    assert "holds no folder" in refusal(train=tmp_path / "flat")
    assert "no such folder or file" in refusal(train=tmp_path / "gone")
    assert "data.root" in refusal(train=tmp_path / "flat", root=tmp_path / "gone")


def test_a_single_class_is_refused(tree, refusal):
    assert "one class only" in refusal(train=tree({"cat": 5}))


# lists -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(tree, tmp_path):
    """listed("...") writes a list beside the images of three classes and returns its path."""
    tree({"cat": 4, "big dog": 3, "owl": 2}, "images")

    def write(text, name="train.txt", **options):
        return written(tmp_path / name, text, **options)

    return write


LINES = [
    f"images/{label}/{label} {i}.jpg {k}"
    for k, (label, n) in enumerate((("cat", 4), ("big dog", 3), ("owl", 2)))
    for i in range(n)
]


def test_a_list_with_spaces_in_paths_blank_lines_and_crlf(listed):
    made = source(train=listed("\r\n".join(["", *LINES[:5], "   ", *LINES[5:], ""]), newline=""))
    assert made.images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert made.images.names[4] == "images/big dog/big dog 0.jpg" and (made.images.sizes > 0).all()
    assert made.class_names == ("cat", "big dog", "owl")  # each class has a folder of its own


def test_tabs_a_byte_order_mark_and_no_last_line_end(listed):
    text = "\ufeff" + "\n".join(line.rsplit(" ", 1)[0] + "\t " + line[-1] for line in LINES)
    assert len(source(train=listed(text)).images) == 9


def test_names_of_classes_are_numbers_where_folders_do_not_tell_them(tmp_path, picture):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        picture(tmp_path / name)
    path = written(tmp_path / "train.txt", "a.jpg 0\nb.jpg 1\nc.jpg 1\n")
    assert source(train=path).class_names == ("0", "1")
    names = written(tmp_path / "names.txt", "a cat\n\ndog\n")
    assert source(train=path, class_names=names).class_names == ("a cat", "dog")
    for name in ("img/d.jpg", "img/rare/e.jpg"):  # one in the folder that holds the other's
        picture(tmp_path / name)
    assert source(train=written(tmp_path / "in.txt", "img/d.jpg 0\nimg/rare/e.jpg 1\n")).class_names == ("0", "1")


def test_a_repeated_line_is_dropped_with_a_note(listed):
    made = source(train=listed("\n".join([*LINES, LINES[3]])))
    assert len(made.images) == 9
    assert "1 lines repeat an earlier one and are left out (line 10)" in made.notes[0]


def test_two_labels_of_one_image_are_refused_with_both_lines(listed, refusal):
    text = "\n".join([*LINES, LINES[1][:-1] + "2"])
    assert "lines 2 and 10: images/cat/cat 1.jpg has label 0 and label 2" in refusal(train=listed(text))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t.replace(" 1\n", " 3\n"), "no training image of class 1 (1 of 4 classes have none)"),
        (lambda t: t.replace(" 2\n", " 3\n"), "no training image of class 2"),
        (lambda t: t.replace(" 0\n", " 900000000000\n"), "no training image of class 0"),
        (lambda t: t.replace(" 0\n", " -1\n"), "line 1: the label is a number from 0 on, got '-1'"),
        (lambda t: t.replace(" 0\n", " 0.0\n"), "line 1: the label is a number from 0 on, got '0.0'"),
        (lambda t: t.replace(" 2\n", " owl\n"), "line 8: the label is a number from 0 on, got 'owl'"),
        (lambda t: t.replace("images/cat/cat 0.jpg 0", "a.jpg,0"), "line 1: a line is `path label`, got 'a.jpg,0'"),
        (lambda t: "\n\n", "lists no image"),
        (lambda t: t.replace("images/", "elsewhere/"), "no image of it lies under"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(listed, refusal, change, said):
    assert said in refusal(train=listed(change("\n".join(LINES) + "\n")))


def test_a_list_that_is_no_text_is_refused(listed, refusal, tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00images")
    assert "no text in UTF-8" in refusal(train=tmp_path / "train.txt")


def test_a_label_that_training_does_not_have_is_refused(listed, refusal):
    test = listed("images/owl/owl 0.jpg 5\n", "test.txt")
    said = refusal(train=listed("\n".join(LINES[:-2])), test=test)
    assert "test.txt: label 5 (images/owl/owl 0.jpg), but the classes are 0 to 1" in said


def test_an_image_in_two_parts_is_refused(listed, refusal):
    said = refusal(train=listed("\n".join(LINES)), test=listed(LINES[0], "test.txt"))
    assert "data.test: 1 of its images are in data.train too" in said and "cat 0.jpg" in said


def test_parts_are_kept_as_they_are_given(listed):
    data = Files(
        dataset="files",
        train=str(listed("\n".join(LINES[0::2]))),
        test=str(listed(LINES[1], "test.txt")),
        val=str(listed(LINES[5], "val.txt")),
    )
    made = load_source(data)
    train, test = split_of(made, data, 0)
    assert made.images.names[test].tolist() == ["images/cat/cat 1.jpg"] and len(train) == 5
    _, val = split_of(made, data.model_copy(update={"evaluate": "val"}), 0)
    assert made.images.names[val].tolist() == ["images/big dog/big dog 1.jpg"]
    assert made.caption(train, test) == "train, 5 training images, 3 classes (2 to 1 a class); test: 1 images"
    assert split_notes(made, data, train, test) == ["no test image, so left out of every accuracy: big dog, owl"]


def test_moving_the_border_between_parts_changes_the_fingerprint(listed):
    one = source(train=listed("\n".join(LINES[:8])), test=listed(LINES[8], "test.txt"))
    other = source(train=listed("\n".join(LINES[:8] + LINES[8:])), class_names=listed("cat\ndog\nowl", "names.txt"))
    assert one.images.fingerprint() == other.images.fingerprint() and one.fingerprint() != other.fingerprint()


# CSV -------------------------------------------------------------------------------------------------------


def test_a_csv_with_names_quoted_commas_and_other_columns(tmp_path, picture):
    for name in ("a, b.jpg", "c.jpg", "d.jpg"):
        picture(tmp_path / "root" / name)
    rows = ("id,Label,path,width", '1,owl,"a, b.jpg",3', '2,"cat, small",c.jpg,4', "", "3,owl,d.jpg,4", "")
    path = written(tmp_path / "train.csv", "\r\n".join(rows), newline="")
    made = source(train=path, root=tmp_path / "root")
    assert made.class_names == ("cat, small", "owl") and made.images.labels.tolist() == [1, 0, 1]
    assert made.images.names[0] == "a, b.jpg" and (made.images.sizes > 0).all()


def test_a_csv_with_numbers_needs_no_names(listed):
    text = "path,label\n" + "\n".join(",".join(line.rsplit(" ", 1)) for line in LINES)
    assert source(train=listed(text, "train.csv")).images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_a_csv_beside_a_folder_has_the_same_classes(tree, tmp_path):
    train, test = tree({"cat": 3, "dog": 2}), tree({"dog": 2}, "new")
    path = written(tmp_path / "test.csv", "path,label\n" + "".join(f"new/dog/dog {i}.jpg,dog\n" for i in range(2)))
    assert source(train=train, test=path).images.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert source(train=train, test=test).images.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "text, said",
    [
        ("a.jpg,cat\n", "its first line names the columns, `path,label` among them, got 'a.jpg,cat'"),
        ("path;label\na.jpg;cat\n", "`path,label` among them"),
        ("", "its first line names the columns"),
        ("path,label\n", "lists no image"),
        ("path,label\na.jpg\n", "line 2: path or label is missing"),
        ("path,label\na.jpg, \n", "line 2: path or label is missing"),
        ('path,label\n"a.jpg,cat\n', "no valid CSV"),
        ("path,label\na.jpg,cat\na.jpg,dog\n", "lines 2 and 3: a.jpg has label cat and label dog"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(tmp_path, refusal, text, said):
    assert said in refusal(train=written(tmp_path / "train.csv", text))


def test_names_in_one_part_and_numbers_in_another_are_refused(tree, tmp_path, refusal):
    train = tree({"cat": 3, "dog": 2})
    path = written(tmp_path / "test.txt", "own/cat/cat 0.jpg 0\n")
    assert "its classes have names, those of data.test have numbers" in refusal(train=train, test=path)


def test_a_test_class_that_training_does_not_have_is_named(tree, refusal):
    said = refusal(train=tree({"cat": 3, "dog": 2}), test=tree({"owl": 1}, "new"))
    assert "class 'owl' is not a class of the training part" in said


def test_class_names_that_do_not_fit_are_refused(listed, refusal):
    train = listed("\n".join(LINES))
    names = lambda text: {"train": train, "class_names": listed(text, "names.txt")}  # noqa: E731
    assert "no training image of class 'bat'" in refusal(**names("cat\ndog\nowl\nbat\n"))
    assert "label 2 (images/owl/owl 0.jpg), but the classes are 0 to 1" in refusal(**names("cat\ndog\n"))
    assert "'cat' stands there twice" in refusal(**names("cat\ndog\ncat\n"))
    assert "names.txt: cannot be read" in refusal(train=train, class_names=train.parent / "gone" / "names.txt")


# where published lists find their images ---------------------------------------------------------------------


def published(tmp_path, picture, files, lines, **data):
    """A source over `files` below root, listed by `lines` {part: [(path, label)]}."""
    for file in files:
        picture(tmp_path / "root" / file)
    text = {part: "".join(f"{path} {k}\n" for path, k in rows) for part, rows in lines.items()}
    parts = {part: written(tmp_path / f"{part}.txt", text[part]) for part in lines}
    return source(root=tmp_path / "root", **parts, **data)


IMAGENET = {"train": [(f"train/n0144076{k + 4}/n0144076{k + 4}_{i}.JPEG", k) for k in (0, 1) for i in range(3)]}
PLACES = {
    "train": [
        (f"data_256/{path}/0000000{i}.jpg", k)
        for k, path in enumerate(("a/airfield", "a/apartment_building/outdoor", "b/barn"))
        for i in range(3)
    ]
}


@pytest.mark.parametrize(
    "copy",
    [
        lambda path: path,
        lambda path: path.removeprefix("train/"),
    ],
)
def test_imagenet_lists_find_both_copies(tmp_path, picture, copy):
    made = published(tmp_path, picture, [copy(path) for path, _ in IMAGENET["train"]], IMAGENET)
    assert (made.images.sizes > 0).all() and made.class_names == ("n01440764", "n01440765")
    assert bool(made.notes) == (copy("train/x") != "train/x")


@pytest.mark.parametrize("listed_flat", [True, False])
@pytest.mark.parametrize("lying_flat", [True, False])
def test_imagenet_val_lists_with_and_without_class_folders(tmp_path, picture, listed_flat, lying_flat):
    name = lambda flat, k, i: f"val/{'' if flat else f'n0144076{k + 4}/'}ILSVRC2012_val_0000{k}{i}.JPEG"  # noqa: E731
    files = [path for path, _ in IMAGENET["train"]] + [name(lying_flat, k, i) for k in (0, 1) for i in (0, 1)]
    rows = [(name(listed_flat, k, i), k) for k in (0, 1) for i in (0, 1)]
    made = published(tmp_path, picture, files, IMAGENET | {"test": rows})
    assert (made.images.sizes > 0).all()
    assert len(made.notes) == (listed_flat != lying_flat)
    if made.notes:
        assert f"{name(listed_flat, 0, 0)} was found as {name(lying_flat, 0, 0)} under" in made.notes[0]


@pytest.mark.parametrize(
    "copy",
    [
        lambda path: path,
        lambda path: path.replace("data_256/", ""),
        lambda path: path.replace("data_256/", "data_large/"),
        lambda path: path.replace("data_256/a/", "train/").replace("data_256/b/", "train/"),
        lambda path: path.replace("data_256/a/", "train/").replace("data_256/b/", "train/").replace("/outdoor", "-outdoor"),
    ],
)
def test_places_lists_find_every_copy_and_the_other_way_round(tmp_path, picture, copy):
    rows = [(copy(path), k) for path, k in PLACES["train"]]
    forth = published(tmp_path / "forth", picture, [path for path, _ in rows], PLACES)
    back = published(tmp_path / "back", picture, [path for path, _ in PLACES["train"]], {"train": rows})
    assert (forth.images.sizes > 0).all() and (back.images.sizes > 0).all()
    assert forth.class_names == ("airfield", "apartment_building/outdoor", "barn")
    assert forth.images.names[0] == "data_256/a/airfield/00000000.jpg"


def test_places_test_lists_with_class_folders_find_a_flat_folder(tmp_path, picture):
    rows = [("val/airfield/Places365_val_00003597.jpg", 0), ("val/barn/Places365_val_00003598.jpg", 2)]
    files = [path for path, _ in PLACES["train"]] + [f"val_256/Places365_val_0000359{i}.jpg" for i in (7, 8)]
    assert (published(tmp_path, picture, files, PLACES | {"test": rows}).images.sizes > 0).all()


def test_the_way_is_looked_for_once_a_list_not_once_a_file(tmp_path, picture):
    """One image that lies elsewhere is missing, whatever other copies do with it."""
    files = [path for path, _ in IMAGENET["train"]][:-1] + ["n01440765/n01440765_2.JPEG"]
    made = published(tmp_path, picture, files, IMAGENET)
    assert (made.images.sizes < 0).tolist() == [False] * 5 + [True] and made.notes == ()


def test_names_of_classes_that_stand_apart_are_part_of_what_the_data_are(tree, files_params, tmp_path):
    images, names = tree({"b": 12, "a": 12}), tmp_path / "names.txt"
    listing = tmp_path / "train.txt"
    listing.write_text("".join(f"{path.relative_to(images)} {'ab'.index(path.parent.name)}\n" for path in images.rglob("*.jpg")))
    keys = []
    for text in ("cat\ndog\n", "cat\ndog\n", "dog\ncat\n", "a\nb\n"):
        names.write_text(text)
        run = Run(load_config(files_params(train=listing, root=images, class_names=names, test_per_class=2)))
        keys.append(run.artifact("split").key)
        assert run.source.names_apart == (text != "a\nb\n") and run.class_names == tuple(text.split())
    assert keys[0] == keys[1] and len(set(keys)) == 3
    by_folder = Run(load_config(files_params(train=images, test_per_class=2)))
    assert not by_folder.source.names_apart and "class_names" not in by_folder.artifact("split").parameters
