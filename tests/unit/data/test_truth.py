"""Rows of a table of labels find their images by path, else by a file name that only one image has."""

import os
from pathlib import Path

import pytest

from patchword.data.truth import Truth, match
from patchword.errors import DataError


def labels_of(rows: list[str], images: list[str], folder: str = "elsewhere") -> list[str | None]:
    truth = Truth(path=f"{folder}/labels.csv", column="image", names=tuple(rows), labels=tuple(rows))
    return list(match(truth, images).labels)


@pytest.mark.parametrize(
    ("rows", "images", "found"),
    [
        # one path is the end of the other, whichever is longer
        (["a/1.jpg", "b/1.jpg"], ["x/b/1.jpg", "x/a/1.jpg"], ["b/1.jpg", "a/1.jpg"]),
        (["/data/x/a/1.jpg", "/data/x/b/1.jpg"], ["b/1.jpg"], ["/data/x/b/1.jpg"]),
        # the same path counts more than the end of one
        (["a/1.jpg"], ["z/a/1.jpg", "a/1.jpg"], [None, "a/1.jpg"]),
        # spellings of one path
        (["./a\\1.jpg"], ["a/1.jpg"], ["./a\\1.jpg"]),
        (["cafe\u0301.jpg"], ["x/caf\u00e9.jpg"], ["cafe\u0301.jpg"]),
        # without an ending, as Kaggle's tables of ids
        (["0ab1", "0ab2"], ["train/0ab2.jpg", "train/0ab1.jpg"], ["0ab2", "0ab1"]),
        # another machine's folders: the unique file name decides
        (["/home/x/1.jpg", "/home/x/2.jpg"], ["q/2.jpg", "q/1.jpg"], ["/home/x/2.jpg", "/home/x/1.jpg"]),
        # … but not where other rows are at their path: that file is another image
        (["a/1.jpg", "c/2.jpg"], ["a/1.jpg", "b/2.jpg"], ["a/1.jpg", None]),
        # two images of one name, or two rows for one image: neither is guessed
        (["1.jpg", "3.jpg"], ["a/1.jpg", "b/1.jpg", "3.jpg"], [None, None, "3.jpg"]),
        (["a/1.jpg", "b/1.jpg", "2.jpg"], ["1.jpg", "2.jpg"], [None, "2.jpg"]),
        (["a/1.jpg", "2.jpg"], ["a/1.jpg", "a/1.jpg", "2.jpg"], [None, None, "2.jpg"]),
    ],
)
def test_a_row_is_matched_to_the_one_image_that_it_can_mean(
    rows: list[str], images: list[str], found: list[str | None]
) -> None:
    assert labels_of(rows, images) == found


def test_a_path_may_begin_at_the_tables_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images fit by their ends; only one of them is where the table says."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    images = [os.path.join("..", "set", "a", "1.jpg"), os.path.join("..", "other", "a", "1.jpg")]
    assert labels_of(["a/1.jpg"], images, "../set") == ["a/1.jpg", None]


def test_what_does_not_match_is_listed() -> None:
    truth = Truth(
        path="t.csv", column="file", names=("a.jpg", "b.jpg", "c.jpg", "d.jpg"), labels=("x", None, "x", "x")
    )
    found = match(truth, ["p/a.jpg", "p/b.jpg", "q/c.jpg", "r/c.jpg", "e.jpg"])
    assert found.labels == ("x", None, None, None, None)
    assert found.no_label == ("p/b.jpg",) and found.no_image == ("d.jpg",)
    assert found.no_row == ("q/c.jpg", "r/c.jpg", "e.jpg") and found.ambiguous == ("c.jpg",)
    with pytest.raises(
        DataError, match=r"none of its 4 rows .* a.jpg, b.jpg, c.jpg and 1 more; .* are z.jpg"
    ):
        match(truth, ["z.jpg"])
    with pytest.raises(DataError, match=r"the 2 images \(1 of them may name several\)"):
        match(truth, ["p/a.jpg", "q/a.jpg"])
