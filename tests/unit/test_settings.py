"""Settings: what is written reads back, and every mistake is named with what is near."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword import settings
from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Learned:
    kind: ClassVar[str] = "learned"
    std: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Rope:
    kind: ClassVar[str] = "rope"
    theta: float = 100.0
    order: Literal["ij", "xy"] = "ij"


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str = "plain"
    size: tuple[int, int] = (224, 224)
    scales: tuple[float, ...] = ()
    flip: bool = False
    scale: float | None = None
    positions: Learned | Rope = Learned()


trees = st.builds(
    Tree,
    name=st.text(),
    size=st.tuples(st.integers(), st.integers()),
    scales=st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
    flip=st.booleans(),
    scale=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    positions=st.builds(Learned, std=st.floats(0, 1)) | st.builds(Rope, theta=st.floats(1, 1e4)),
)


@given(trees)
def test_plain_dicts_and_toml_give_the_tree_back(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree
) -> None:
    assert settings.from_plain(Tree, settings.to_plain(tree)) == tree
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_text(settings.to_toml(tree, {"": "default"}), encoding="utf-8")
    assert settings.from_plain(Tree, settings.read_toml(file)) == tree


def test_toml_says_who_chose_each_value() -> None:
    text = settings.to_toml(Tree(), {"": "default", "positions": "recipe", "flip": "option"})
    assert "flip = false  # option" in text
    assert "std = 0.02  # recipe" in text
    assert 'name = "plain"  # default' in text


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("flip", "true", Tree(flip=True)),
        ("scale", "3e-4", Tree(scale=3e-4)),
        ("scale", "none", Tree()),
        ("size", "[32, 48]", Tree(size=(32, 48))),
        ("name", "7", Tree(name="7")),
        ("positions", "{kind = 'rope', theta = 10}", Tree(positions=Rope(theta=10.0))),
        ("positions.std", "0.1", Tree(positions=Learned(std=0.1))),
        ("positions.kind", "rope", Tree(positions=Rope())),
    ],
)
def test_an_option_sets_the_value_at_its_path(path: str, value: str, expected: Tree) -> None:
    assert settings.replace_at(Tree(), path, value) == expected


@pytest.mark.parametrize(
    ("path", "value", "telling"),
    [
        ("flipp", "true", "'flip'"),
        ("positions.sdt", "1", "'std'"),
        ("positions", "{kind = 'learnt'}", "'learned'"),
        ("positions.kind", "roap", "'rope'"),
        ("positions.theta", "3", "of kind 'learned' has no 'theta'"),
        ("kind", "rope", "which part's kind"),
        ("flip", "3", "flip is 3"),
        ("size", "[1]", "1 value instead of 2"),
        ("size", "7", "which is not a list"),
        ("size", "[1.5, 2]", "whole number"),
        ("size", "[true, 2]", "whole number"),
        ("name.part", "x", "no parts"),
        ("std", "1", "'positions.std'"),
        ("positions.std", "nan", "which is not a number"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_near(path: str, value: str, telling: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings.replace_at(Tree(), path, value)
    assert telling in raised.value.message
    assert raised.value.fix


def test_a_kind_keeps_fields_of_other_kinds_out() -> None:
    with pytest.raises(SettingsError, match=r"positions\.theta"):
        settings.from_plain(Tree, {"positions": {"kind": "learned", "theta": 3.0}})


def test_a_kind_set_alone_takes_its_defaults_and_its_fields_may_come_before_it() -> None:
    rope = Tree(positions=Rope(theta=7.0))
    for where in ("option", "file"):
        changes = [("positions.theta", "7", where), ("positions.kind", "rope", where)]
        assert settings.replace_all(Tree(), changes) == settings.replace_all(Tree(), changes[::-1]) == rope
    assert settings.from_plain(Tree, {"positions": {"kind": "rope"}}) == Tree(positions=Rope())


def test_the_kind_that_is_there_already_keeps_its_fields() -> None:
    assert (
        settings.replace_at(Tree(positions=Learned(std=0.1)), "positions.kind", "learned").positions.std
        == 0.1
    )  # type: ignore[union-attr]


def test_who_chose_a_kind_chose_its_defaults() -> None:
    sources = {"": "recipe", "positions.kind": "option"}
    assert settings.source_of("positions.theta", sources) == "option"
    assert settings.source_of("name", sources) == "recipe"


def test_an_override_without_a_value_is_refused() -> None:
    assert settings.parse_override("train.lr=3e-4") == ("train.lr", "3e-4")
    with pytest.raises(SettingsError, match="no '='"):
        settings.parse_override("train.lr")


def test_a_broken_toml_file_is_named_with_its_line(tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "run.toml"  # type: ignore[operator]
    file.write_text("a = 1\nb = \n")
    with pytest.raises(SettingsError, match=r"run\.toml.*line 2"):
        settings.read_toml(file)
    with pytest.raises(SettingsError, match=r"did you mean 'run\.toml'"):
        settings.read_toml(file.with_name("rum.toml"))
    for place, words in (
        (tmp_path, "is a folder, not a file"),  # each names its own cause, and none says that TOML is wrong
        (file / "x.toml", "does not exist"),
    ):
        with pytest.raises(SettingsError, match=words):
            settings.read_toml(place)  # type: ignore[arg-type]
    file.write_bytes(b"\xff\xfea\x00")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        settings.read_toml(file)


@pytest.mark.parametrize("where", ["option", "file"])
def test_a_setting_without_its_first_part_is_given_it(where: str) -> None:
    with pytest.raises(SettingsError) as said:
        if where == "option":
            settings.replace_at(Tree(), "theta", "5")
        else:
            settings.from_plain(Tree, {"theta": 5})
    assert "unknown setting 'theta'" in said.value.message
    assert said.value.fix.startswith("write it as ") and "positions.theta" in said.value.fix
