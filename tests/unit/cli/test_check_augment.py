"""`patchword check DATA --augment`: sixteen training views in one picture, with the settings that `train` would use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.cli.main import run
from patchword.data.open import open_data
from patchword.training.choose import choose
from patchword.training.overlay import make_overlay
from patchword.training.preview import draw_views
from patchword.training.recipes.facts import DataFacts
from support.scans import write_scans

Output = pytest.CaptureFixture[str]
FACTS = DataFacts(num_images=12, num_classes=2, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_scans(tmp_path / "scans", {"train/d0": 3, "train/d1": 3, "val/d0": 2, "val/d1": 2})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "scans"


def test_the_picture_has_sixteen_pairs_and_depends_on_the_settings(scans: Path, capsys: Output) -> None:
    assert run(["check", str(scans), "--augment"]) == 0
    assert "16 training views, recipe scratch: scans-views.png" in capsys.readouterr().err
    first = np.asarray(Image.open("scans-views.png").convert("L"))
    pw.check(scans, augment="again.png", recipe="scratch")
    assert np.array_equal(first, np.asarray(Image.open("again.png").convert("L")))
    options = ["-o", "augment.policy.kind=trivialaugment", "--recipe", "scratch"]
    assert run(["check", str(scans), "--json", "--augment", "other.png", *options]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 10
    assert not np.array_equal(first, np.asarray(Image.open("other.png").convert("L")))


def test_the_pairs_are_images_and_views_with_their_classes(scans: Path) -> None:
    dataset = open_data(scans)
    settings = choose(dataset, FACTS, make_overlay(overrides=["augment.geometry.zoom=1e-9"])).settings
    plain = choose(
        dataset,
        FACTS,
        make_overlay(
            overrides=[f"augment.geometry.{n}=0" for n in ("degrees", "translate", "shear", "zoom")]
        ),
    ).settings
    views = draw_views(dataset, plain)
    assert len(views) == 16 and len({view.name for view in views}) == 6
    for view in views:
        assert np.array_equal(view.source, view.view)
        assert list(view.shares) == [Path(view.name).parent.name] and not view.mixed
    copies = [view.view for view in draw_views(dataset, settings) if view.name == views[0].name]
    assert len(copies) == 3 and not np.array_equal(copies[0], copies[1])
    mixed = choose(dataset, FACTS, make_overlay(overrides=["augment.mixing.mixup=1"])).settings
    shares = [view.shares for view in draw_views(dataset, mixed)]
    assert all(abs(sum(share.values()) - 1) < 0.02 for share in shares) and any(len(s) == 2 for s in shares)


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["--augment", "{}"], "scans', which does not end in .png", "put --augment last"),
        (["{}", "--augment", "no/a.png"], "folder no does not exist", "create that folder"),
        (["{}", "--recipe", "scratch"], "--recipe only applies to the training views", "add --augment"),
        (
            ["{}", "--augment", "--recipe", "scrtch"],
            "unknown recipe 'scrtch' (did you mean 'scratch'?)",
            "scratch",
        ),
        (
            ["{}", "--augment", "-o", "augment.flip=1"],
            "unknown setting 'flip' (did you mean 'geometry.flip'?)",
            "geometry.flip",
        ),
    ],
)
def test_mistakes_are_refused_with_a_fix_and_no_picture(
    scans: Path, words: list[str], error: str, fix: str, capsys: Output
) -> None:
    assert run(["check", *(word.format(scans) for word in words)]) in (1, 2)
    first, second = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error in first and fix in second
    assert not list(scans.parent.rglob("*.png.part")) and not list(scans.parent.glob("*.png"))


def test_data_that_cannot_be_trained_on_get_no_picture(scans: Path, capsys: Output) -> None:
    assert run(["check", str(scans / "train" / "d0"), "--augment", "a.png"]) == 2
    assert not Path("a.png").exists()
