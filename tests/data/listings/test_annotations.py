"""JSON annotations in iNaturalist's published layout, and every way in which they cannot be what they say."""

import json

import numpy as np
import pytest

from osdtw_lib.config.schema import Files
from osdtw_lib.data.listings.folders import read_part
from osdtw_lib.data.sets import load_source
from osdtw_lib.errors import UserError

COUNTS = {"train": (5, 3, 4), "val": (2, 2, 2)}  # images a category
IDS = (0, 1, 2)


def content(part="train", ids=IDS, counts=None) -> dict:
    """All keys that the competition of 2018 publishes; images in no order of their categories."""
    labels = np.random.default_rng(0).permutation(np.repeat(ids, counts or COUNTS[part])).tolist()
    first = 100 if part == "train" else 900
    taxonomy = dict.fromkeys(("supercategory", "kingdom", "phylum", "class", "order", "family", "genus"), "x")
    names = [f"train_val2018/Aves/{k}/{first + i:032x}.jpg" for i, k in enumerate(labels)]
    about = {"width": 24, "height": 16, "license": 3, "rights_holder": "somebody"}
    return {
        "info": {"year": 2018, "version": "1"},
        "images": [{"id": first + i, "file_name": name} | about for i, name in enumerate(names)],
        "categories": [{"id": k, "name": f"species {9 - k}"} | taxonomy for k in ids],
        "annotations": [{"id": i, "image_id": first + i, "category_id": k} for i, k in enumerate(labels)],
        "licenses": [{"id": 3, "name": "a licence", "url": "https://example.org"}],
    }


@pytest.fixture
def written(tmp_path):
    """written(content, "train2018.json") -> its path."""

    def write(values, name="train2018.json"):
        path = tmp_path / name
        path.write_bytes(values if isinstance(values, bytes) else json.dumps(values).encode())
        return path

    return write


@pytest.fixture
def given(tmp_path, written, picture):
    """given({part: content}) writes annotations and images, returns what `data` says of them."""

    def write(parts) -> dict:
        for one in parts.values():
            for image in one["images"]:
                if isinstance(image, dict) and "file_name" in image:
                    picture(tmp_path / image["file_name"])
        return {part: str(written(one, f"{part}2018.json")) for part, one in parts.items()}

    return write


def refusal(path) -> str:
    with pytest.raises(UserError) as refused:
        read_part("train", path, None)
    said = str(refused.value)
    assert said.startswith(f"data.train: {path}: ") and "\n" not in said
    return said


def test_each_image_has_the_category_of_its_annotation(written):
    given = content()
    given["annotations"].reverse()  # in an order of their own
    part = read_part("train", written(given), None)
    category = {a["image_id"]: a["category_id"] for a in given["annotations"]}
    assert part.names == [image["file_name"] for image in given["images"]]
    assert part.labels == [category[image["id"]] for image in given["images"]]
    assert part.class_names == ("species 9", "species 8", "species 7")  # by id, whatever their names


def test_ids_with_gaps_are_numbered_in_their_order(written):
    given = content(ids=(70, 5, 12))
    part = read_part("train", written(given), None)
    assert part.class_names == ("species 4", "species -3", "species -61")
    assert np.bincount(part.labels).tolist() == [3, 4, 5]  # of 5, 12 and 70


def test_categories_of_one_name_are_told_apart_by_id(written):
    given = content()
    for category in given["categories"]:
        category["name"] = "hidden"
    part = read_part("train", written(given), None)
    assert part.class_names == ("0 hidden", "1 hidden", "2 hidden") and "share names" in part.notes[0]


@pytest.mark.parametrize("root", [".", "train_val2018"])
def test_train_and_val_become_one_source(given, tmp_path, root):
    """With the folder that the archive unpacks into, or what is in it, as the root."""
    parts = {part: content(part) for part in COUNTS}
    data = Files(dataset="files", evaluate="val", root=str(tmp_path / root), **given(parts))
    source = load_source(data)
    assert {part: source.counts(rows).tolist() for part, rows in source.parts.items()} == {k: list(v) for k, v in COUNTS.items()}
    assert source.class_names == ("species 9", "species 8", "species 7") and (source.images.sizes > 0).all()
    assert source.caption(source.parts["train"], source.parts["val"], "val").startswith(
        "train2018, 12 training images, 3 classes (5 to 3 a class); val: 6 images"
    )


def test_the_parts_have_the_same_categories(given, tmp_path):
    parts = {part: content(part) for part in COUNTS}
    parts["val"]["categories"][1]["name"] = "species x"
    with pytest.raises(UserError, match=r"data.val: .*not those of data.train: .*\('species x' and 'species 8'\)"):
        load_source(Files(dataset="files", evaluate="val", **given(parts)))


def test_numbers_beside_annotations_whose_ids_begin_at_1_are_refused(given, tmp_path, refused, files_params, picture):
    """Whether a list counts from 0 or by the ids cannot be seen: all labels would be one off."""
    own = given({"train": content(ids=(1, 2, 3))})
    picture(tmp_path / "more.jpg")
    (tmp_path / "test.csv").write_text("path,label\nmore.jpg,1\n")
    said = refused("split", files_params(**own, test=str(tmp_path / "test.csv"), root=str(tmp_path)))
    assert "cannot be told; give annotations for both" in said


def test_names_given_in_another_order_than_the_ids_are_refused(given, tmp_path, refused, files_params):
    own = given({"train": content(ids=(1, 2, 3))})
    names = [f"species {9 - k}" for k in (1, 2, 3)]
    (tmp_path / "names.txt").write_text("\n".join(names[::-1]))
    said = refused("split", files_params(**own, class_names=str(tmp_path / "names.txt")))
    assert "categories in another order" in said


def test_a_category_that_no_image_has_is_named(given):
    data = Files(dataset="files", **given({"train": content(counts=(5, 0, 4))}))
    with pytest.raises(UserError, match="no training image of class 'species 8' .1 of 3 classes have none"):
        load_source(data)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c.pop("annotations"), "no list 'annotations'; annotations have the lists images, categories, annotations"),
        (lambda c: c.update(images=[]), "an empty list 'images'"),
        (lambda c: c.update(categories={}), "no list 'categories'"),
        (lambda c: c["images"][3].pop("file_name"), "images[3]: 'file_name' is a text, got nothing"),
        (lambda c: c["images"][3].update(file_name=" "), "images[3]: 'file_name' is a text, got ' '"),
        (lambda c: c["images"][3].update(file_name="a\ud800"), "images[3]: 'file_name' is a text, got"),
        (lambda c: c["images"].insert(2, 7), "images[2]: 'id' is a whole number or a text, got nothing"),
        (lambda c: c["annotations"][2].update(category_id="1"), "annotations[2]: 'category_id' is a whole number, got '1'"),
        (lambda c: c["annotations"][2].update(category_id=True), "annotations[2]: 'category_id' is a whole number, got True"),
        (lambda c: c["categories"][0].update(name=None), "categories[0]: 'name' is a text, got nothing"),
        (lambda c: c["annotations"][4].update(image_id=7), "annotations[4] is of image 7, which is not among its images"),
        (lambda c: c["annotations"][4].update(category_id=9), "annotations[4] is of category 9, which is not among its categ"),
        (
            lambda c: c["annotations"].append({"image_id": 103, "category_id": 0}),
            "067.jpg) has two annotations, annotations[3] and annotations[12]; an image has one label, so take one of them out",
        ),
        (lambda c: c["annotations"].pop(1), "1 of 12 images have no annotation (first: 101, train_val2018/"),
        (lambda c: c["images"][5].update(id=100), "images[5] has the id 100 of an earlier one"),
        (lambda c: c["images"][5].update(c["images"][4], id=105), "images[5] has the file_name of an earlier one, train_val"),
        (lambda c: c["categories"][2].update(id=1), "categories[2] has the id 1 of an earlier one"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(written, change, said):
    given = content()
    change(given)
    assert said in refusal(written(given))


@pytest.mark.parametrize(
    "text, said",
    [
        (json.dumps(content()).encode()[:-40], "no valid JSON (Unterminated string"),
        (b"\x1f\x8b\x08\x00", "no valid JSON ('utf-8' codec"),
        (b"", "no valid JSON (Expecting value"),
        (b"[" * 100_000, "no valid JSON ("),
        (b"[1, 2]", "no list 'images'"),
        (b'{"images": 1' + b"0" * 5000 + b"}", "no valid JSON (Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_one_line(written, text, said):
    assert said in refusal(written(text))


def test_it_stops_the_run_with_status_2_and_nothing_written(written, files_params, refused, tmp_path):
    broken = content()
    broken["annotations"][4]["image_id"] = 7
    params = files_params(train=written(broken))
    for command in ("split", "inspect", "plan"):
        assert "annotations[4] is of image 7" in refused(command, params)
    assert "no such folder or file" in refused("split", files_params(train=tmp_path / "train2019.json"))
    assert not (tmp_path / "outputs").exists()


def test_counts_that_are_not_the_published_ones_are_refused(given, files_params, refused):
    parts = given({part: content(part) for part in COUNTS})
    said = refused("split", files_params(protocol="inaturalist2018", evaluate="val", **parts))
    assert "not iNaturalist 2018 as published: 12 images instead of 437,513, 3 classes instead of 8,142" in said
    test = refused("split", files_params(protocol="inaturalist2018", **parts))
    assert "data.test: the labels of iNaturalist 2018's test part are not public; set data.evaluate: val" in test
    also = refused("split", files_params(protocol="inaturalist2018", evaluate="val", **parts, test=parts["val"]))
    assert "data.test: the labels of iNaturalist 2018's test part are not public" in also
