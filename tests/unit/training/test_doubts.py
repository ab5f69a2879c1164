"""Each setting that is known to fail is named, and the recipe's own settings never are."""

from dataclasses import replace
from pathlib import Path

import pytest

from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.training.choose import choose
from patchword.training.doubts import DOUBTS
from patchword.training.overlay import make_overlay
from patchword.training.recipes.facts import DataFacts
from patchword.weights.card import ModelCard

MEAN = (0.5,)
SCRATCH = DataFacts(num_images=1437, num_classes=10, channels=1, size=(64, 64), mean=MEAN, std=MEAN)
TI = ModelCard(config=sized("ti/16"), preprocess=Preprocess.simple(224))
TUNED = replace(SCRATCH, weights=TI)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def _said(digits: Dataset, facts: DataFacts, *overrides: str) -> str:
    chosen = choose(digits, facts, make_overlay(overrides=overrides))
    return "\n".join(f"{c.what}: {c.why}" for c in chosen.choices)


# (the doubt, facts, settings that raise it, settings that just do not, what is said)
CASES = [
    ("few_tokens", SCRATCH, ("model.image.size=[32,32]", "model.patch.size=[16,16]"), (), "only 2 x 2 tokens"),
    (
        "coarse_patches",
        SCRATCH,
        ("model.image.size=[32,128]", "model.patch.size=[16,8]"),
        ("model.image.size=[64,64]", "model.patch.size=[16,16]"),
        "with 2 of them in a line",
    ),
    ("narrow_heads", SCRATCH, ("model.attention.num_heads=8",), (), "channels: heads narrower"),
    ("high_rate_for_weights", TUNED, ("optim.lr=0.01",), ("optim.lr=0.001",), "predicts one class for everything"),
    ("high_rate", SCRATCH, ("optim.lr=0.1",), ("optim.lr=0.01",), "more than ten times the recipe's"),
    ("large_batch", SCRATCH, ("run.batch_size=2000",), ("run.batch_size=1437",), "batches of 2000"),
    (
        "long_warmup",
        SCRATCH,
        ("schedule.epochs=20", "schedule.warmup_epochs=11"),
        ("schedule.epochs=20", "schedule.warmup_epochs=10"),
        "warm-up of 11 epochs",
    ),
    ("strong_mixing", SCRATCH, ("schedule.epochs=9",), ("schedule.epochs=20",), "mixup or CutMix in a run of 9"),
    ("few_steps", SCRATCH, ("schedule.epochs=13",), ("schedule.epochs=14",), "a run of 286 steps"),
    ("large_model_from_scratch", SCRATCH, ("model=S/16",), ("model=Ti/16",), "384 channels for 1437"),
    (
        "decay_with_sgd",
        TUNED,
        ("run.recipe=finetune-sgd", "optim.weight_decay=0.05"),
        ("run.recipe=finetune-sgd",),
        "weight decay 0.05 with SGD",
    ),
    ("layers_from_scratch", SCRATCH, ("tune.kind=llrd",), (), "--tune llrd:0.65 from scratch"),
    ("other_size", TUNED, ("model.image.size=[96,96]",), (), "the weights have 14 x 14"),
    ("many_threads", SCRATCH, ("run.threads=1000",), ("run.threads=1",), "1000 threads"),
    ("padding", SCRATCH, ("model.image.size=[30,30]", "model.patch.size=[4,4]"), (), "2 columns and 2 rows"),
]  # fmt: skip


def test_every_doubt_has_a_case() -> None:
    assert [case[0] for case in CASES] == [doubt.__name__ for doubt in DOUBTS]


@pytest.mark.parametrize(("name", "facts", "bad", "good", "telling"), CASES, ids=[case[0] for case in CASES])
def test_what_is_known_to_fail_is_named(
    digits: Dataset, name: str, facts: DataFacts, bad: tuple[str, ...], good: tuple[str, ...], telling: str
) -> None:
    assert telling in _said(digits, facts, *bad)
    assert telling.split(" of ")[0] not in _said(digits, facts, *good)


@pytest.mark.parametrize("facts", [SCRATCH, TUNED], ids=["scratch", "finetune"])
def test_the_recipes_that_are_chosen_raise_no_doubt(digits: Dataset, facts: DataFacts) -> None:
    assert "warning" not in _said(digits, facts)


@pytest.mark.parametrize("tune", ["head", "lora", "last"])
def test_random_weights_are_not_frozen(digits: Dataset, tune: str) -> None:
    with pytest.raises(SettingsError, match="random weights"):
        _said(digits, SCRATCH, f"tune.kind={tune}")


def test_settings_that_a_head_does_not_use_are_named(digits: Dataset, tmp_path: Path) -> None:
    said = _said(digits, TUNED, "tune.kind=head", "schedule.epochs=7", "optim.lr=1")
    assert "schedule.epochs, optim.lr without effect" in said and "learning rate 1" not in said
