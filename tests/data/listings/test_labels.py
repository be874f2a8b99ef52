"""Labels of a CSV: numbers, or names as they are spelt; what would make other classes of them is refused in one line."""

import pytest

from osdtw_lib.data.listings.labels import labels_of


def csv(tmp_path, picture, *labels):
    for i in range(len(labels)):
        picture(tmp_path / f"{i}.jpg")
    path = tmp_path / "train.csv"
    path.write_text("path,label\n" + "".join(f"{i}.jpg,{label}\n" for i, label in enumerate(labels)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "0.0", " 0 ", "1."], [0, 0, 0, 1]),
        (["00001", "00002"], ["00001", "00002"]),
        (["NA", "None", "null", "nan", "True"], ["NA", "None", "null", "nan", "True"]),
        (["1e5", "x"], ["1e5", "x"]),
        (["0", "1", "a"], ["0", "1", "a"]),
    ],
)
def test_labels_are_numbers_where_all_are_and_names_as_spelt_otherwise(labels, expected):
    assert labels_of("data.train", [(label.strip(), i) for i, label in enumerate(labels)]) == expected


def test_two_spellings_of_a_whole_number_are_one_class(tmp_path, picture, files_params, command):
    _, out, err = command("split", files_params(train=csv(tmp_path, picture, *["0", "0.0", "1", "1.0"] * 2)))
    assert "2 classes" in out and "4 to 4 a class" not in err


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["0", "1", "nan"], "line 4: the label is 'nan' where the others are numbers"),
        (["0", "NULL", "1"], "line 3: the label is 'NULL'"),
        (["0", "1", "1" + "0" * 20], "line 4: '100000000000000000000' is too large for the number of a class"),
        (["0", "1", "9" * 5000], "... without gaps"),
        (["0", "-1", "1"], "line 3: the label is '-1'; the classes are numbered from 0 on"),
        (["1", "2", "01"], "lines 2 and 4: the labels '1' and '01' are one number and would be two classes"),
        (["cat", "0", "dog", "0.0"], "lines 3 and 5: the labels '0' and '0.0' are one number"),
        (["1e2", "100", "x"], "lines 2 and 3"),
    ],
)
def test_labels_that_would_be_other_classes_are_refused(tmp_path, picture, files_params, refused, labels, said):
    assert said in refused("split", files_params(train=csv(tmp_path, picture, *labels)))


def test_a_list_may_not_number_beyond_all_classes_either(tmp_path, picture, files_params, refused):
    picture(tmp_path / "a.jpg")
    (tmp_path / "train.txt").write_text("a.jpg " + "8" * 30 + "\n")
    assert "train.txt, line 1: '" + "8" * 30 + "' is too large" in refused("split", files_params(train=tmp_path / "train.txt"))
