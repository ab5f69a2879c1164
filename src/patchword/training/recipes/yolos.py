"""YOLOS as its authors train it, from its weights.

    patchword train blood/ --weights hf://hustvl/yolos-small    your classes for a trained YOLOS

AdamW at 2.5e-5 (5e-5 for backbones as narrow as ViT-Ti), weight decay 1e-4, gradients clipped to norm 0.1, all weights at one rate. DETR's
matching and losses, on the only layer that predicts. Every detection token stays; the head starts anew for classes that the weights lack.

Other than the authors, who resize views to shorter sides of 480 to 800 pixels: all images lie complete in one frame, so that a batch has
no padding that tokens attend to, and views are resized within it. The number of epochs follows from the data, the rate has a short
warm-up, batches are smaller, and weights are averaged, as in the other recipes.

Source: Fang et al. 2021 (arXiv 2106.00666), sections 2 and 3.1; hustvl/YOLOS, README.md and main.py.
"""

import math
from dataclasses import replace

from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.yolos_config import YolosConfig
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import decay_over, stored_size
from patchword.training.recipes.detect import (
    CELLS,
    SIDES,
    complete,
    evaluated_every,
    in_patches,
    sizes_of_objects,
    text_of_size,
)
from patchword.training.recipes.detr import CLIP, DECAY, budget, queries
from patchword.training.recipes.facts import Choice, DataFacts, Size
from patchword.training.recipes.pretrained import card_for, preprocess_of
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.detect_settings import DetectSettings, YolosSettings

DESCRIPTION = "YOLOS as its authors train it, from its weights"
# The second rate is for backbones up to this width.
RATE, RATE_NARROW, NARROW = 2.5e-5, 5e-5, 192
# Published models have seen no smaller images.
LEAST_SIDE = 512
BATCH, BATCH_WIDE = 8, 4
MIN_STEPS, EPOCHS = 1_000, 50


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text.

    Raises: SettingsError without the weights of YOLOS, or if another model is asked for.
    """
    if not isinstance(facts.detector, YolosConfig):
        raise SettingsError(
            "the recipe yolos starts from YOLOS, and no weights of it are given",
            "add --weights with those of YOLOS, or use --recipe detect",
        )
    card = card_for("yolos", facts, overlay)
    old, channels = card.config, card.config.image.channels
    if channels == 1:
        channels = facts.channels
    size, why = _size(facts, overlay, old.patch.size)
    model = replace(old, image=replace(old.image, size=size, channels=channels))
    preprocess = complete(preprocess_of(card, facts, model))
    number = facts.detector.num_queries
    settings = _settings(facts, overlay, model, preprocess)
    return settings, [
        Choice(what=f"YOLOS, {number} detection tokens", why="as in the weights"),
        why,
        sizes_of_objects(facts, model),
        *queries(facts, number),
        budget(facts, settings, overlay, "usual for a trained YOLOS that learns other classes"),
    ]


def _size(facts: DataFacts, overlay: Overlay, patch: Size) -> tuple[Size, Choice]:
    """(h, w) in complete patches, of the usual aspect of the images."""
    given = overlay.get("model.image.size")
    if given is not None:
        return given, Choice(what=text_of_size(given), why=overlay.source("model.image.size"))
    assert facts.objects is not None
    wanted = CELLS * max(patch) / max(facts.objects.small, 1e-6)
    side = next((one for one in SIDES if one >= max(wanted, LEAST_SIDE)), SIDES[-1])
    longest = max(facts.size)
    size = in_patches(tuple(side * part / longest for part in facts.size), patch)
    why = f"a tenth of the objects is below {facts.objects.small * max(size):.0f} pixels here; the aspect of most images"
    return size, Choice(what=text_of_size(size), why=why)


def _settings(facts: DataFacts, overlay: Overlay, model: ViTConfig, preprocess: Preprocess) -> TrainSettings:
    usual = BATCH if model.dim <= NARROW else BATCH_WIDE
    batch = overlay.get("run.batch_size") or max(min(usual, facts.num_images // 2), 1)
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs") or max(EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch))
    return TrainSettings(
        model=model,
        preprocess=preprocess,
        optim=OptimSettings(
            lr=RATE_NARROW if model.dim <= NARROW else RATE, weight_decay=DECAY, clip_grad=CLIP
        ),
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=min(1.0, epochs / 10), final_lr=0.01),
        task=DetectSettings(
            num_classes=facts.num_classes,
            detector=YolosSettings(),
            augment=BoxAugmentSettings(scale=(0.6, 1.6), flip=0.5 if facts.mirrors else 0.0),
        ),
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(
            batch_size=batch,
            stored_size=stored_size(model.image.size),
            evaluate_every=evaluated_every(epochs),
            recipe="yolos",
        ),
    )
