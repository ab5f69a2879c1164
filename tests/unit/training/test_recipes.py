"""Each recipe holds the values of its source, is capped by the data, and says what it does with weights."""

from typing import Any

import numpy as np
import pytest
import torch

from patchword.data.open import open_data
from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.cost import cost
from patchword.model.sizes import sized
from patchword.training.choose import choose
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import effective_lr
from patchword.training.overlay import Overlay, make_overlay
from patchword.training.recipes import (
    DESCRIPTIONS,
    FROM_WEIGHTS,
    RECIPES,
    WITH_BOXES,
    WITHOUT_LABELS,
    recipe_named,
)
from patchword.training.recipes.facts import DataFacts, ObjectFacts
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.settings import MAESettings
from patchword.training.tune import LayerDecay
from patchword.weights.card import ModelCard
from support.yolos import with_yolos

MEAN = (0.5, 0.5, 0.5)
IMAGENET = DataFacts(num_images=1_281_167, num_classes=1000, channels=3, size=(375, 500), mean=MEAN, std=MEAN)
FEW = DataFacts(num_images=300, num_classes=5, channels=3, size=(300, 400), mean=MEAN, std=MEAN)
TI = ModelCard(config=sized("ti/16"), preprocess=Preprocess.simple(224))
S = ModelCard(config=sized("s/16"), preprocess=Preprocess.simple(224))


def _with(facts: DataFacts, weights: ModelCard | None) -> DataFacts:
    from dataclasses import replace

    return replace(facts, weights=weights)


def _for(name: str, facts: DataFacts, weights: ModelCard | None) -> DataFacts:
    """Facts that the recipe can be used with: weights where it needs them, no labels where it learns without."""
    from dataclasses import replace

    task = MAESettings() if name in WITHOUT_LABELS else facts.task
    objects = None
    if name in WITH_BOXES:
        task = DetectSettings(num_classes=facts.num_classes)
        objects = ObjectFacts(count=900, most=20, small=0.1, median=0.2, large=0.4)
    facts = replace(facts, weights=weights if name in FROM_WEIGHTS else None, task=task, objects=objects)
    return with_yolos(facts) if name == "yolos" else facts


def _settings(name: str, facts: DataFacts = IMAGENET, *overrides: str, **options: Any) -> TrainSettings:
    paths = {"model": "model", "epochs": "schedule.epochs", "tune": "tune"}
    overlay = make_overlay(options=[(paths[k], f"--{k}", v) for k, v in options.items()], overrides=overrides)
    return recipe_named(name)(facts, overlay)[0]


def _peak(settings: TrainSettings) -> float:
    return effective_lr(settings.optim, settings.run.batch_size)[0]


@pytest.mark.parametrize(
    ("name", "batch", "lr", "decay", "epochs"),
    [
        ("simple", 1024, 1e-3, 0.1, 90),
        ("deit", 1024, 1e-3, 0.05, 300),
        ("deit3", 2048, 4e-3, 0.05, 800),
        ("augreg", 4096, 1e-3, 0.1, 300),
    ],
)
def test_a_published_recipe_has_the_published_values(
    name: str, batch: int, lr: float, decay: float, epochs: int
) -> None:
    settings = _settings(name)
    assert (settings.run.batch_size, settings.schedule.epochs) == (batch, epochs)
    assert _peak(settings) == pytest.approx(lr, rel=1e-4) and settings.optim.weight_decay == decay
    assert (settings.model.dim, settings.model.depth, settings.model.image.size) == (384, 12, (224, 224))


def test_what_sets_the_published_recipes_apart() -> None:
    simple, deit, deit3, augreg = (_settings(name) for name in ("simple", "deit", "deit3", "augreg"))
    assert simple.model.positions.kind == "sincos2d" and simple.model.head.pool.kind == "mean"
    assert simple.schedule.warmup_epochs * (IMAGENET.num_images // 1024) == pytest.approx(10_000, rel=1e-3)
    assert deit.run.repeats == deit3.run.repeats == 3 and simple.run.repeats == 1
    assert deit.augment.policy.kind == "randaugment" and deit.augment.erase == 0.25
    assert (deit.model.block.drop_path, deit.task.label_smoothing) == (0.1, 0.1)
    assert (deit3.optim.method, deit3.task.loss) == ("lamb", "binary_cross_entropy")
    assert deit3.augment.policy.kind == "threeaugment" and deit3.model.block.layer_scale == 1e-4
    paths = [
        _settings("deit3", model=f"ViT-{n}").model.block.drop_path for n in ("S/16", "B/16", "L/16", "H/14")
    ]
    assert paths == [0.05, 0.2, 0.45, 0.6]
    assert augreg.augment.mixing.mixup == 0.5 and _settings("augreg", model="Ti/16").augment.mixing.mixup == 0


def test_the_cifar_recipe_has_fewer_than_six_and_a_half_million_parameters() -> None:
    cifar = DataFacts(num_images=50_000, num_classes=10, channels=3, size=(32, 32), mean=MEAN, std=MEAN)
    settings = _settings("cifar", cifar)
    assert cost(settings.model).parameters < 6.5e6 and settings.model.grid_size == (8, 8)
    assert settings.optim.method == "muon"


def test_small_data_trains_longer_and_regularises_more_than_scratch() -> None:
    small, scratch = _settings("small-data", FEW), _settings("scratch", FEW)
    assert small.schedule.epochs >= 2 * scratch.schedule.epochs
    assert small.augment.erase and small.model.block.drop_path and not scratch.model.block.drop_path
    assert (
        small.model.dim == scratch.model.dim and _settings("small-data", FEW, epochs=7).schedule.epochs == 7
    )


def test_fine_tuning_has_falling_rates_that_grow_with_the_batch() -> None:
    settings = _settings("finetune", _with(FEW, S))
    assert settings.tune == LayerDecay(decay=0.65) and settings.model.block.drop_path == 0.1
    assert _peak(settings) == pytest.approx(5e-4 * settings.run.batch_size / 256)
    deep = ModelCard(config=sized("l/16"), preprocess=Preprocess.simple(224))
    assert _settings("finetune", _with(FEW, deep)).tune == LayerDecay(decay=0.75)
    lora = _settings("finetune", _with(FEW, S), tune={"kind": "lora"})
    assert _peak(lora) > 2 * _peak(settings)


def test_sgd_fine_tuning_is_that_of_the_paper_at_384_pixels() -> None:
    settings = _settings("finetune-sgd", _with(FEW, TI))
    optim = settings.optim
    assert (optim.method, optim.momentum, optim.weight_decay, optim.clip_grad) == ("sgd", 0.9, 0.0, 1.0)
    assert settings.model.image.size == settings.preprocess.image_size == (224 + 160,) * 2
    small = DataFacts(num_images=300, num_classes=5, channels=3, size=(64, 64), mean=MEAN, std=MEAN)
    assert _settings("finetune-sgd", _with(small, TI)).model.image.size == (224, 224)


def test_mae_fine_tuning_is_as_published() -> None:
    found = []
    for size in ("b/16", "l/16", "h/14"):
        card = ModelCard(config=sized(size), preprocess=Preprocess.simple(224))
        settings = _settings("mae-finetune", _with(IMAGENET, card))
        head, augment, schedule = settings.model.head, settings.augment, settings.schedule
        assert (head.pool.kind, head.norm, settings.run.batch_size, schedule.warmup_epochs) == (
            "mean",
            "pooled",
            1024,
            5,
        )
        assert (augment.mixing.mixup, augment.mixing.cutmix, augment.erase) == (0.8, 1.0, 0.25)
        assert settings.task.label_smoothing == 0.1 and not settings.optim.clip_grad
        assert isinstance(settings.tune, LayerDecay)
        found.append(
            (round(_peak(settings), 6), settings.tune.decay, settings.model.block.drop_path, schedule.epochs)
        )
    assert found == [(2e-3, 0.65, 0.1, 100), (4e-3, 0.75, 0.2, 50), (4e-3, 0.75, 0.3, 50)]


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_a_recipe_without_labels_is_for_pre_training(name: str) -> None:
    with pytest.raises(SettingsError, match="without labels"):
        _settings(name, FEW)
    settings = _settings(name, _for(name, FEW, None))
    assert settings.model.head.num_classes == FEW.num_classes
    assert settings.task.kind == "mae"


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in (*WITHOUT_LABELS, *WITH_BOXES)])
def test_a_recipe_that_needs_weights_or_refuses_them_says_so(name: str) -> None:
    needs = name in FROM_WEIGHTS
    with pytest.raises(SettingsError, match=f"the recipe {name}") as error:
        _settings(name, _with(FEW, None if needs else TI))
    assert "--weights" in str(error.value.fix)


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_is_capped_by_the_data_and_the_rate_follows(name: str) -> None:
    facts = _for(name, FEW, S)
    settings, many = _settings(name, facts), _settings(name, _for(name, IMAGENET, facts.weights))
    assert settings.run.batch_size <= FEW.num_images // 4
    if settings.optim.lr_rule != "none" and many.run.batch_size > settings.run.batch_size:
        assert _peak(settings) < _peak(many)


def test_a_rate_that_is_given_is_the_rate_of_the_run() -> None:
    chosen = choose(
        open_data("digits"),
        DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,)),
        make_overlay(options=[("run.recipe", "--recipe", "cifar"), ("optim.lr", "--lr", 2e-3)]),
    )
    assert _peak(chosen.settings) == 2e-3
    assert chosen.sources["optim.lr_rule"] == "option --lr"


def test_every_recipe_is_described_and_its_choice_is_explained() -> None:
    assert set(DESCRIPTIONS) == set(RECIPES)
    digits = DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))
    chosen = choose(open_data("digits"), digits)
    assert any("recipe scratch" in c.what and "no weights" in c.why for c in chosen.choices)


def test_repeated_images_come_with_different_random_numbers() -> None:
    """A batch holds copies of each image with sample numbers of their own; fewer than one copy is refused."""
    from patchword.data.order import order

    (batch, *_) = order(12, 6, 0, 0, repeats=3)
    images, copies = batch % 12, batch // 12
    assert len(set(images.tolist())) == 2 and sorted(copies.tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(np.unique(batch)) == 6 and torch.is_tensor(torch.from_numpy(batch))
    with pytest.raises(SettingsError, match="repeats 0"):
        choose(
            open_data("digits"),
            DataFacts(num_images=1437, num_classes=10, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,)),
            make_overlay(overrides=("run.repeats=0",)),
        )


def test_the_users_settings_win_over_every_recipe() -> None:
    for name in RECIPES:
        facts = _for(name, FEW, S)
        settings, _ = recipe_named(name)(facts, make_overlay(overrides=("schedule.epochs=3",)))
        assert settings.schedule.epochs == 3 and settings.schedule.warmup_epochs <= 0.3 + 1e-9
        assert recipe_named(name)(facts, Overlay())[0].schedule.epochs > 3
