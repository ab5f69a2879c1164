"""Who wins: recipe, file, option, -o; and what is said of choices known to train badly."""

from pathlib import Path

import pytest

from patchword import settings as tree
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.errors import SettingsError
from patchword.training.choose import Chosen, Wishes, choose, wished_run
from patchword.training.recipes.facts import Asked, DataFacts

DIGITS = DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


@pytest.fixture
def saved(digits: Dataset, tmp_path: Path) -> str:
    """The config.toml of a run that asked for much."""
    first = choose(
        digits, DIGITS, Wishes(asked=Asked(image_size=(16, 16), epochs=9), overrides=("optim.lr=1e-4",))
    )
    (tmp_path / "config.toml").write_text(tree.to_toml(first.settings, first.sources))
    return str(tmp_path / "config.toml")


def _who(chosen: Chosen, path: str) -> str:
    return tree.source_of(path, chosen.sources)


def test_a_saved_file_gives_the_same_settings(digits: Dataset, saved: str) -> None:
    chosen = choose(digits, DIGITS, Wishes(config_file=saved))
    assert tree.to_toml(chosen.settings) == tree.to_toml(
        choose(digits, DIGITS, Wishes(config_file=saved, overrides=("schedule.epochs=9",))).settings
    )
    assert chosen.settings.optim.lr == 1e-4 and chosen.settings.model.image.size == (16, 16)
    assert _who(chosen, "optim.lr") == "file config.toml"


def test_options_win_over_the_file_and_the_source_says_so(digits: Dataset, saved: str) -> None:
    asked = Asked(epochs=2, image_size=(24, 24), patch_size=(3, 3))
    options = (("optim.lr", "--lr", 5e-4),)
    chosen = choose(digits, DIGITS, Wishes(asked=asked, config_file=saved, options=options))
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
    chosen = choose(
        digits, DIGITS, Wishes(asked=Asked(model="Ti/16", image_size=(32, 32)), config_file=saved)
    )
    assert (chosen.settings.model.dim, chosen.settings.model.positions.kind) == (192, "learned")
    assert _who(chosen, "model.dim") == "option --model"


def test_a_named_model_takes_the_patch_that_is_asked_for(digits: Dataset) -> None:
    asked = Asked(model="Ti/16", image_size=(32, 32), patch_size=(8, 8))
    assert choose(digits, DIGITS, Wishes(asked=asked)).settings.model.grid_size == (4, 4)


def test_the_last_of_two_that_say_the_same_wins(digits: Dataset) -> None:
    chosen = choose(digits, DIGITS, Wishes(asked=Asked(epochs=5), overrides=("schedule.epochs=3",)))
    assert chosen.settings.schedule.epochs == 3 and _who(chosen, "schedule.epochs") == "option -o"


def test_two_values_that_fit_only_each_other_come_in_any_order(digits: Dataset) -> None:
    both = ("model.dim=96", "model.attention.num_heads=3")
    sizes = ("model.image.size=[12, 12]", "preprocess.image_size=[12, 12]", "preprocess.resize.size=[12, 12]")
    for overrides in (both, both[::-1], sizes, sizes[::-1]):
        settings = choose(digits, DIGITS, Wishes(overrides=overrides)).settings
        assert settings.model.dim % settings.model.attention.num_heads == 0
    with pytest.raises(SettingsError, match="5 attention heads"):
        choose(digits, DIGITS, Wishes(overrides=("model.attention.num_heads=5",)))


def test_one_seed_whoever_says_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\nseed = 3\n")
    file = str(tmp_path / "c.toml")
    assert wished_run(Wishes()).seed == 0
    assert wished_run(Wishes(config_file=file)).seed == 3
    assert wished_run(Wishes(config_file=file, options=(("run.seed", "--seed", 4),))).seed == 4
    assert wished_run(Wishes(config_file=file, overrides=("optim.lr=1", "run.seed=5"))).seed == 5
    with pytest.raises(SettingsError, match="whole number"):
        wished_run(Wishes(overrides=("run.seed=many",)))


@pytest.mark.parametrize(
    ("wishes", "telling"),
    [
        # lucidrains/vit-pytorch#45: 16-pixel patches on 32-pixel pictures leave four tokens.
        (Wishes(asked=Asked(image_size=(32, 32), patch_size=(16, 16))), "only 2 x 2 tokens"),
        (Wishes(overrides=("model.attention.num_heads=8",)), "heads of 8 channels"),
        (Wishes(options=(("optim.lr", "--lr", 0.1),)), "learning rate 0.1"),
        (Wishes(asked=Asked(image_size=(30, 30), patch_size=(4, 4))), "2 columns and 2 rows of padding"),
    ],
)
def test_what_trains_badly_is_done_and_said(digits: Dataset, wishes: Wishes, telling: str) -> None:
    assert any(telling in choice.what for choice in choose(digits, DIGITS, wishes).choices)


def test_what_a_recipe_chooses_raises_no_doubt(digits: Dataset) -> None:
    assert not any("warning" in choice.what for choice in choose(digits, DIGITS, Wishes()).choices)
