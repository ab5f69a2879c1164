"""What `patchword evaluate` says of a class: the one that it is most often confused with."""

from patchword.cli.class_table import _confused_with

NAMES = ("cat", "dog", "owl", "fox")


def test_a_class_is_shown_with_the_one_that_it_is_most_often_confused_with() -> None:
    assert _confused_with([9, 1, 5, 2], 0, NAMES).startswith("owl 5")
    assert _confused_with([0, 9, 2, 2], 1, NAMES).startswith("owl 2")  # of equal ones the first
    assert _confused_with([0, 0, 3, 0], 2, NAMES) == ""
