"""Who wins: recipe, file, option, -o; and what is said of choices known to train badly."""

from pathlib import Path
from typing import Any

import pytest

from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.errors import SettingsError
from patchword.training.choose import Chosen, choose
from patchword.training.overlay import Overlay, make_overlay
from patchword.training.recipes.facts import DataFacts

IMAGE, PATCH, EPOCHS = "model.image.size", "model.patch.size", "schedule.epochs"
FLAGS = {
    IMAGE: "--image-size",
    PATCH: "--patch-size",
    EPOCHS: "--epochs",
    "model": "--model",
    "optim.lr": "--lr",
}
DIGITS = DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def _options(**values: Any) -> list[tuple[str, str, Any]]:
    """Options of the command by the name of their constant here."""
    paths = {"image": IMAGE, "patch": PATCH, "epochs": EPOCHS, "model": "model", "lr": "optim.lr"}
    return [(paths[name], FLAGS[paths[name]], value) for name, value in values.items()]


@pytest.fixture
def saved(digits: Dataset, tmp_path: Path) -> str:
    """The config.toml of a run that asked for much."""
    first = choose(
        digits, DIGITS, make_overlay(options=_options(image=(16, 16), epochs=9), overrides=("optim.lr=1e-4",))
    )
    (tmp_path / "config.toml").write_text(tree.to_toml(first.settings, first.sources))
    return str(tmp_path / "config.toml")


def _who(chosen: Chosen, path: str) -> str:
    return tree.source_of(path, chosen.sources)


def test_a_saved_file_gives_the_same_settings(digits: Dataset, saved: str) -> None:
    chosen = choose(digits, DIGITS, make_overlay(saved))
    assert tree.to_toml(chosen.settings) == tree.to_toml(
        choose(digits, DIGITS, make_overlay(saved, overrides=("schedule.epochs=9",))).settings
    )
    assert chosen.settings.optim.lr == 1e-4 and chosen.settings.model.image.size == (16, 16)
    assert _who(chosen, "optim.lr") == "file config.toml"


def test_options_win_over_the_file_and_the_source_says_so(digits: Dataset, saved: str) -> None:
    options = _options(epochs=2, image=(24, 24), patch=(3, 3), lr=5e-4)
    chosen = choose(digits, DIGITS, make_overlay(saved, options))
    settings = chosen.settings
    assert (settings.schedule.epochs, settings.optim.lr) == (2, 5e-4)
    assert settings.model.image.size == settings.preprocess.image_size == (24, 24)
    assert settings.model.patch.size == (3, 3)
    for path, who in {
        "schedule.epochs": "option --epochs",
        "optim.lr": "option --lr",
        "model.image.size": "option --image-size",
        "model.patch.size": "option --patch-size",
    }.items():
        assert _who(chosen, path) == who


def test_a_model_by_name_replaces_the_files_whole_model(digits: Dataset, saved: str) -> None:
    chosen = choose(digits, DIGITS, make_overlay(saved, _options(model="Ti/16", image=(32, 32))))
    assert (chosen.settings.model.dim, chosen.settings.model.positions.kind) == (192, "learned")
    assert _who(chosen, "model.dim") == "option --model"


def test_a_named_model_takes_the_patch_that_is_asked_for(digits: Dataset) -> None:
    options = _options(model="Ti/16", image=(32, 32), patch=(8, 8))
    assert choose(digits, DIGITS, make_overlay(options=options)).settings.model.grid_size == (4, 4)


def test_the_last_of_two_that_say_the_same_wins(digits: Dataset) -> None:
    chosen = choose(
        digits, DIGITS, make_overlay(options=_options(epochs=5), overrides=("schedule.epochs=3",))
    )
    assert chosen.settings.schedule.epochs == 3 and _who(chosen, "schedule.epochs") == "option -o"


def test_two_values_that_fit_only_each_other_come_in_any_order(digits: Dataset) -> None:
    both = ("model.dim=96", "model.attention.num_heads=3")
    sizes = ("model.image.size=[12, 12]", "preprocess.image_size=[12, 12]", "preprocess.resize.size=[12, 12]")
    for overrides in (both, both[::-1], sizes, sizes[::-1]):
        settings = choose(digits, DIGITS, make_overlay(overrides=overrides)).settings
        assert settings.model.dim % settings.model.attention.num_heads == 0
    with pytest.raises(SettingsError, match="5 attention heads"):
        choose(digits, DIGITS, make_overlay(overrides=("model.attention.num_heads=5",)))


def test_one_seed_whoever_says_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\nseed = 3\n")
    file = str(tmp_path / "c.toml")
    assert Overlay().get("run.seed") is None
    assert make_overlay(file).get("run.seed") == 3
    assert make_overlay(file, [("run.seed", "--seed", 4)]).get("run.seed") == 4
    assert make_overlay(file, overrides=("optim.lr=1", "run.seed=5")).get("run.seed") == 5
    with pytest.raises(SettingsError, match="whole number"):
        make_overlay(overrides=("run.seed=many",)).get("run.seed")


@pytest.mark.parametrize("how", ["file", "-o"])
def test_what_follows_from_a_setting_follows_it_wherever_it_was_given(
    digits: Dataset, tmp_path: Path, how: str
) -> None:
    """An image size, a width and a number of epochs are the same choice in a file, by `-o` and by an option."""
    (tmp_path / "c.toml").write_text(
        "[model]\ndim = 96\n[model.image]\nsize = [24, 24]\n[schedule]\nepochs = 3\n"
    )
    overrides = (f"{IMAGE}=[24, 24]", f"{EPOCHS}=3", "model.dim=96")
    by_option = choose(
        digits, DIGITS, make_overlay(None, _options(image=(24, 24), epochs=3), ("model.dim=96",))
    )
    overlay = make_overlay(tmp_path / "c.toml") if how == "file" else make_overlay(overrides=overrides)
    chosen = choose(digits, DIGITS, overlay).settings
    assert chosen == by_option.settings
    assert chosen.preprocess.image_size == (24, 24) and chosen.schedule.warmup_epochs < 1
    assert chosen.model.head_dim == 32 and chosen.augment.view == 1


def test_an_image_size_keeps_what_else_a_file_says_of_preparing(digits: Dataset, saved: str) -> None:
    text = Path(saved).read_text().replace("mean = [0.3]", "mean = [0.25]")
    Path(saved).write_text(text)
    chosen = choose(digits, DIGITS, make_overlay(saved, _options(image=(24, 24))))
    assert chosen.settings.preprocess.mean == (0.25,) and chosen.settings.preprocess.image_size == (24, 24)


@pytest.mark.parametrize(
    "text",
    [
        "model.patch.size=[0, 0]",
        "model.image.size=[0, 8]",
        "schedule.epochs=0",
        "model.dim=0",
        "model.depth=0",
    ],
)
def test_a_setting_of_nothing_is_refused_and_not_taken_as_unset(digits: Dataset, text: str) -> None:
    with pytest.raises(SettingsError):
        choose(digits, DIGITS, make_overlay(overrides=(text,)))


def test_a_file_may_name_a_size_for_the_whole_model(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('model = "Ti/16"\n')
    assert choose(digits, DIGITS, make_overlay(tmp_path / "c.toml")).settings.model.dim == 192


@pytest.mark.parametrize(
    ("overlay", "telling"),
    [
        # lucidrains/vit-pytorch#45: 16-pixel patches on 32-pixel pictures leave four tokens.
        (make_overlay(options=_options(image=(32, 32), patch=(16, 16))), "only 2 x 2 tokens"),
        (make_overlay(overrides=("model.attention.num_heads=8",)), "heads of 8 channels"),
        (make_overlay(options=_options(lr=0.1)), "learning rate 0.1"),
        (make_overlay(options=_options(image=(30, 30), patch=(4, 4))), "2 columns and 2 rows of padding"),
    ],
)
def test_what_trains_badly_is_done_and_said(digits: Dataset, overlay: Overlay, telling: str) -> None:
    assert any(telling in choice.what for choice in choose(digits, DIGITS, overlay).choices)


def test_what_a_recipe_chooses_raises_no_doubt(digits: Dataset) -> None:
    assert not any("warning" in choice.what for choice in choose(digits, DIGITS).choices)
