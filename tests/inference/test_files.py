"""Image files and folders through `predict`: in a stream, in bounded memory, a bad file naming itself and stopping no other."""

import csv
import shutil
import threading
import weakref

import pytest
from PIL import Image

from osdtw_lib import load_predictor
from osdtw_lib.inference import files as library
from osdtw_lib.inference.files import predict_files


@pytest.fixture
def pictures(finished, tmp_path):
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(finished.test.pixels[i, ..., 0]).save(files[-1])
    return files


def test_the_command_line_prints_file_class_and_probability(finished, pictures, command):
    status, out, err = command("predict", finished.folder, *pictures)
    assert (status, err) == (0, "")
    expected = load_predictor(finished.folder)(finished.test.pixels[:3])
    for line, file, row in zip(out.splitlines(), pictures, expected, strict=True):
        assert line.split("\t") == [str(file), str(row.argmax()), f"{row.max():.4f}"]


def test_the_command_line_prints_the_likeliest_classes_first(finished, pictures, command):
    _, out, _ = command("predict", "--top", 3, finished.folder, pictures[0])
    probabilities = [float(line.split("\t")[2]) for line in out.splitlines()]
    assert len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True)


@pytest.mark.journey
def test_a_shell_prints_the_same(finished, pictures, python, command):
    done = python("-m", "osdtw_lib", "predict", finished.folder, *pictures)
    assert done.returncode == 0, done.stderr
    assert done.stdout == command("predict", finished.folder, *pictures)[1]


BAD = {
    "missing": (lambda file: file.unlink(), "no such image"),
    "text": (lambda file: file.write_bytes(b"no image"), "cannot be read as an image"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-60]), "cannot be read as an image"),
    "empty": (lambda file: file.write_bytes(b""), "cannot be read as an image"),
    "of no known range": (lambda file: Image.new("F", (5, 5)).save(file, "TIFF"), "no known range"),
}


@pytest.mark.parametrize("spoil, reason", BAD.values(), ids=BAD)
def test_a_bad_file_is_named_and_the_others_are_predicted(finished, pictures, command, spoil, reason):
    expected = command("predict", finished.folder, pictures[0], pictures[2])[1]
    spoil(pictures[1])
    status, out, err = command("predict", finished.folder, *pictures)
    said, count = err.splitlines()
    assert status == 2 and said.startswith(f"{pictures[1]}: ") and reason in said
    assert count == "error: 1 of 3 could not be read, as said above; 2 were predicted"
    assert out == expected and out.count("\n") == 2


def test_nothing_but_bad_files_is_told(finished, tmp_path, command):
    status, out, err = command("predict", finished.folder, tmp_path / "none.png", "y" * 300 + ".png")
    assert (status, out) == (2, "") and "2 of 2 could not be read" in err and err.count("\n") == 3


def test_a_folder_stands_for_all_images_below_it(finished, pictures, tmp_path, command):
    folder = tmp_path / "many"
    for place in ("b.png", "a/deep/1.PNG", ".hidden.png", "a/.git/2.png", "a/notes.txt"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures[0], folder / place)
    status, out, err = command("predict", finished.folder, folder, pictures[1])
    assert (status, err) == (0, "")
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        str(folder / "a/deep/1.PNG"),
        str(folder / "b.png"),
        str(pictures[1]),
    ]


def test_a_link_that_leads_nowhere_stops_no_other_file(finished, pictures, tmp_path, command):
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(pictures[0], folder / "a\tb\n.png")
    (folder / "notes").symlink_to("/nowhere")
    status, out, err = command("predict", finished.folder, folder)
    assert status == 2 and "notes leads nowhere" in err and "1 of 2 could not be read" in err
    assert out.count("\n") == 1 and out.startswith(f"{folder}/a\\tb\\n.png\t") and out.count("\t") == 2
    command("predict", finished.folder, folder, "--output", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as text:
        good, bad = csv.DictReader(text)
    assert good["class"] and bad["file"] == str(folder) and "leads nowhere" in bad["error"]


def test_a_folder_without_an_image_is_told(finished, tmp_path, command):
    (tmp_path / "none").mkdir()
    status, _, err = command("predict", finished.folder, tmp_path / "none")
    assert status == 2 and f"{tmp_path / 'none'}: no image in this folder" in err


def test_a_line_comes_before_the_next_images_are_read(finished, pictures, monkeypatch):
    opened = []
    monkeypatch.setattr(library, "open_image", lambda file: opened.append(file) or Image.open(file))
    answers = predict_files(finished.folder, [str(pictures[0])] * (3 * library.BATCH))
    next(answers)
    assert len(opened) == library.BATCH


def test_only_as_many_whole_images_are_in_memory_as_are_read_at_once(finished, pictures, monkeypatch):
    alive, most, lock = set(), [], threading.Lock()

    def opened(file):
        image = Image.open(file)
        with lock:
            alive.add(id(image))
            most.append(len(alive))
        weakref.finalize(image, alive.discard, id(image))
        image.load()
        return image

    monkeypatch.setattr(library, "open_image", opened)
    count = 3 * library.BATCH
    assert len(list(predict_files(finished.folder, [str(pictures[0])] * count))) == len(most) == count
    assert max(most) <= library.READERS


@pytest.mark.parametrize("top", ["0", "-1", "2.5", "", "x", "\u00b2"])
def test_a_top_that_is_no_count_is_refused(finished, pictures, refused, top):
    assert "--top: a whole number from 1 on" in refused("predict", finished.folder, pictures[0], f"--top={top}")


def test_more_classes_than_there_are_gives_all(finished, pictures, command):
    assert command("predict", finished.folder, pictures[0], "--top", 99)[1].count("\n") == 10


def test_predict_files_gives_names_and_numbers(finished, pictures):
    (file, ((name, probability),)), *_ = predict_files(finished.folder, [str(f) for f in pictures])
    assert file == str(pictures[0]) and name in "0123456789" and 0 < probability <= 1


# class mix and CSV ----------------------------------------------------------------------------------------------


def mix_file(path, rows):
    path.write_text("class,share\n" + "".join(f"{name},{share}\n" for name, share in rows))
    return path


def test_a_mix_moves_the_probabilities_by_bayes_rule(finished, pictures, tmp_path, command):
    shares = [0.5, *[0.5 / 9] * 9]
    status, out, err = command(
        "predict", finished.folder, *pictures, "--top=10", "--prior", mix_file(tmp_path / "m.csv", enumerate(shares))
    )
    assert (status, err) == (0, "")
    predictor = load_predictor(finished.folder)
    odds = predictor(finished.test.pixels[:3]) * shares  # the row stands for equal shares
    rows = [line.split("\t") for line in out.splitlines()]
    for i, expected in enumerate(odds / odds.sum(1, keepdims=True)):
        found = {int(name): float(p) for _, name, p in rows[10 * i : 10 * i + 10]}
        assert [found[k] for k in range(10)] == pytest.approx(expected.tolist(), abs=6e-5)


def test_equal_shares_are_what_the_row_stands_for(finished, pictures, command):
    plain = command("predict", finished.folder, *pictures)[1]
    assert command("predict", finished.folder, *pictures, "--prior=uniform")[1] == plain
    assert command("predict", finished.folder, *pictures, "--prior=training")[1] != plain


def test_the_mix_of_the_files_is_estimated_and_said(finished, pictures, tmp_path, command):
    status, out, err = command("predict", finished.folder, *pictures, tmp_path / "none.png", "--prior=estimate")
    assert status == 2 and out.count("\n") == 3
    assert "estimated mix (% ± standard error): " in err and "warning: the mix is estimated from 3 images of 10 classes" in err


@pytest.mark.parametrize(
    "rows, said",
    [
        ([(k, 0.2) for k in range(10)], "sum to 2 and not to 1"),
        ([(k, 0.1) for k in range(9)] + [("cat", 0.1)], "no class is called 'cat'"),
        ([(k, 1 / 9) for k in range(9)], "no share for class '9'"),
        ([(k, 0.1) for k in range(9)] + [(8, 0.1)], "line 11: class '8' is there twice"),
        ([(k, 0.2) for k in range(9)] + [(9, -0.8)], "one share, 0 or more"),
        ([(0, "many")], "line 2: a class and its share are wanted"),
    ],
)
def test_a_mix_that_is_none_is_refused(finished, pictures, tmp_path, refused, rows, said):
    assert said in refused("predict", finished.folder, pictures[0], "--prior", mix_file(tmp_path / "m.csv", rows))


def test_a_prior_of_no_known_name_and_a_missing_file_are_refused(finished, pictures, tmp_path, refused):
    assert "give uniform, training, estimate" in refused("predict", finished.folder, pictures[0], "--prior=uniformly")
    assert "cannot be read" in refused("predict", finished.folder, pictures[0], "--prior", tmp_path / "none.csv")
    (tmp_path / "m.csv").write_text("0,1\n")
    assert "first line is not `class,share`" in refused("predict", finished.folder, pictures[0], "--prior", tmp_path / "m.csv")


def test_a_csv_has_a_line_for_every_file_also_one_that_is_broken(finished, pictures, tmp_path, command):
    plain = command("predict", finished.folder, pictures[0], pictures[2], "--top=2")[1]
    pictures[1].write_bytes(b"no image")
    status, out, err = command("predict", finished.folder, *pictures, "--top=2", "--output", tmp_path / "p.csv")
    assert status == 2 and out == "" and "1 of 3 could not be read" in err and "2 files predicted, 1 that" in err
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [(r["file"], r["rank"]) for r in rows] == [
        *((str(pictures[0]), n) for n in "12"),
        (str(pictures[1]), ""),
        *((str(pictures[2]), n) for n in "12"),
    ]
    assert "cannot be read as an image" in rows[2]["error"] and not rows[0]["error"]
    assert [f"{r['file']}\t{r['class']}\t{float(r['probability']):.4f}" for r in rows if r["rank"]] == plain.splitlines()


def test_a_csv_is_whole_or_not_there_and_replaces_nothing(finished, pictures, tmp_path, refused):
    (tmp_path / "p.csv").write_text("mine")
    assert "is there already" in refused("predict", finished.folder, pictures[0], "--output", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "mine"
    assert "cannot be written" in refused("predict", finished.folder, pictures[0], "--output", tmp_path / "no" / "p.csv")
    assert "cannot be written" in refused("predict", finished.folder, pictures[0], "--output", tmp_path / "p.csv" / "o.csv")
    assert "cannot be written" in refused("predict", finished.folder, pictures[0], "--output", tmp_path / ("n" * 300))
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    assert "is there already" in refused("predict", finished.folder, pictures[0], "--output", tmp_path / "link.csv")

    def answers():
        yield "a.png", [("0", 0.5)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.save(answers(), str(tmp_path / "q.csv"))
    assert [p.name for p in tmp_path.iterdir() if "q.csv" in p.name] == []
