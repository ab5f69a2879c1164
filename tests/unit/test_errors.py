"""Errors: two lines, an exit code, and nothing lost between processes."""

import pickle
import unicodedata

import pytest

from patchword import errors


def test_an_error_says_what_and_what_to_do() -> None:
    error = errors.DataError("flowers/val has the class 'tulip'", "rename it")
    assert str(error).splitlines() == ["flowers/val has the class 'tulip'", "  fix: rename it"]


def test_an_error_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(errors.ImageError("a.jpg is empty", "remove it")))
    assert (type(error), error.message, error.fix) == (errors.ImageError, "a.jpg is empty", "remove it")
    unsaid = pickle.loads(pickle.dumps(errors.MissingFact("no size", "give it", "image_size")))
    assert (unsaid.fix, unsaid.fact) == ("give it", "image_size")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UserError, 2),
        (errors.UnsafeFile, 2),
        (errors.OutputError, 2),
        (errors.PartialFailure, 3),
        (errors.TrainingBroken, 4),
        (errors.Interrupted, 130),
    ],
)
def test_each_kind_has_the_exit_code_of_the_design(kind: type[errors.PatchwordError], code: int) -> None:
    assert kind("x").exit_code == code


def test_the_nearest_names_ignore_case_and_leave_out_the_far() -> None:
    assert errors.nearest("VIT-TI/16", ["ViT-Ti/16", "ViT-S/16", "digits"])[0] == "ViT-Ti/16"
    assert errors.nearest("zebra", ["ViT-Ti/16"]) == []
    assert errors.near_text("tulip", ["tulips"]) == " (did you mean 'tulips'?)"


@pytest.mark.parametrize("name", ["caf\u00e9", "\ud55c\uad6d"])
def test_names_that_look_the_same_are_told_apart(name: str) -> None:
    parted = unicodedata.normalize("NFD", name)
    said = errors.suggestion(parted, ["zebra", name])
    assert ascii(parted) in said and ascii(name) in said and "looks the same" in said
    assert errors.suggestion("tulip", ["tulips"]) == " (did you mean 'tulips'?)"
    assert errors.suggestion("zebra", [name]) == ""
