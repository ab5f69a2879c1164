"""`--vary`: short names, the values that a setting can have, and mistakes answered in two lines."""

import tomllib

import pytest

from patchword.cli.main import run
from patchword.errors import SettingsError
from patchword.runs.comparing.vary import combinations, factor, parse_vary


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("positions.kind=none,rope2d", "model.positions.kind", ["none", "rope2d"]),
        ("positions=none,relative", "model.positions.kind", ["none", "relative_bias"]),
        ("norm=layer,rms", "model.norm.kind", ["layer", "rms"]),
        ("pool=mean,class", "model.head.pool.kind", ["mean", "class"]),
        ("patch=2,4x8", "model.patch.size", [[2, 2], [4, 8]]),
        ("patch.size=[2,2],[4,4]", "model.patch.size", [[2, 2], [4, 4]]),
        ("lr=1e-3,3e-3", "optim.lr", [0.001, 0.003]),
        ("recipe=scratch,simple", "run.recipe", ["scratch", "simple"]),
        ("weights=none,hf://a/b", "run.weights", ["", "hf://a/b"]),
        ("tune=head,full", "tune", [{"kind": "head"}, {"kind": "full"}]),
        ("drop_path=0,0.1", "model.block.drop_path", [0.0, 0.1]),
        ("model.depth=2,4", "model.depth", [2, 4]),
    ],
)  # fmt: skip
def test_a_name_is_an_option_a_part_or_the_end_of_a_path(text: str, path: str, values: list[object]) -> None:
    found = parse_vary(text)
    assert found.path == path
    assert [value.entries for value in found.values] == [((path, value),) for value in values]


@pytest.mark.parametrize(
    ("text", "wrong", "fix"),
    [
        ("positons.kind=a,b", "did you mean 'model.positions.kind'", "--dry-run"),
        ("positions.kind=none", "only 'none'", "positions.kind=none,learned"),
        ("positions.kind=none,lerned", "did you mean 'learned'", "use one of: none, learned"),
        ("depth=2,2", "2 twice", "once"),
        ("optim.lr=1,1.0", "the same value", "once"),
        ("lr=0.1,fast", "'fast', which is not a number", "optim.lr"),
        ("size=3,4", "could mean model.image.size, model.patch.size", "more of the name"),
        ("augment=a,b", "has parts", "augment.erase"),
        ("seed=1,2", "cannot be compared", "--seeds"),
        ("split_seed=1,2", "cannot be compared", "other images"),
        ("nonsense", "no '='", "NAME=A,B"),
    ],
)  # fmt: skip
def test_a_mistake_costs_two_lines(
    text: str, wrong: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", "digits", "--vary", text]) == 2
    error, advice = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and wrong in error
    assert advice.startswith("  fix: ") and fix in advice


def test_several_settings_give_every_combination_a_folder_of_its_own() -> None:
    arms = combinations([factor("norm", ["layer", "rms"]), factor("weights", ["a/last", "b/last"])])
    assert [arm.name for arm in arms] == ["layer, a/last", "layer, b/last", "rms, a/last", "rms, b/last"]
    assert len({arm.folder for arm in arms}) == 4 and all("/" not in arm.folder for arm in arms)
    with pytest.raises(SettingsError, match="twice"):
        combinations([factor("norm", ["layer", "rms"]), factor("norm.kind", ["layer", "batch"])])


def test_a_kind_set_by_itself_keeps_what_it_needs_of_the_old_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """A resize has a size and no default for it; the other kinds of positions have all defaults."""
    options = ("-o", "preprocess.resize.kind=squash", "-o", "model.positions.kind=learned")
    assert (
        run(["train", "digits", "--dry-run", "--threads", "1", "-o", "run.precision=float32", *options]) == 0
    )
    settings = tomllib.loads(capsys.readouterr().out)
    resize = settings["preprocess"]["resize"]
    assert resize["kind"] == "squash" and resize["size"] == [8, 8]
    assert settings["model"]["positions"]["kind"] == "learned"
