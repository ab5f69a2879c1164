"""DETR as its authors train it, from its weights, from those of its trunk, or from scratch.

    patchword train blood/ --weights detr-r50.pth        further classes for a trained DETR
    patchword train blood/ --recipe detr --weights resnet50.pth    from a trained trunk
    patchword train blood/ --model detr-r50              from scratch

AdamW at 1e-4 and 1e-5 for the trunk, weight decay 1e-4, gradients clipped to norm 0.1, frozen norms. The shorter side of a view is drawn
from 480 to 800 pixels, the longer is at most 1333; half of the views are of a part of the image; half are mirrored. Root and first
stage of a trained trunk keep their weights.

Other than the authors, who train 300 or 500 epochs with one drop of the rate at the end: the number of epochs follows from the data, the rate
falls as half a cosine, batches are smaller, and weights are averaged, as in the other recipes.

Source: Carion et al. 2020 (arXiv 2005.12872), section 4 and appendix A.4; facebookresearch/detr, main.py and datasets/coco.py.
"""

import math
from dataclasses import replace

from patchword.errors import SettingsError, near_text, plural
from patchword.formats.detection.layout import capped
from patchword.images.geometry import Capped
from patchword.images.preprocess import Preprocess
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.training.augment.box_settings import BoxAugmentSettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import decay_over, safe_std
from patchword.training.recipes.detect import evaluated_every
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.detect_settings import DetectSettings, DetrSettings
from patchword.training.tune import Trunk
from patchword.weights.detector_card import DetectorCard

DESCRIPTION = "DETR as its authors train it"
MODELS: dict[str, DetrConfig] = {
    "detr-r50": DetrConfig(),
    "detr-r50-dc5": DetrConfig(trunk=TrunkConfig(dilation=True)),
    "detr-r101": DetrConfig(trunk=TrunkConfig(units=(3, 4, 23, 3))),
    "detr-r101-dc5": DetrConfig(trunk=TrunkConfig(units=(3, 4, 23, 3), dilation=True)),
}
DEFAULT_MODEL = "detr-r50"
SHORTER, LONGEST = tuple(range(480, 801, 32)), 1333
RATE, DECAY, CLIP = 1e-4, 1e-4, 0.1
BATCH = 8
# Steps that fine-tuning and training from a trunk take at least, and epochs.
MIN_STEPS, MIN_STEPS_NEW, EPOCHS, EPOCHS_NEW = 1_000, 10_000, 50, 300


def is_detr(name: str | None) -> bool:
    """Whether the name of a model is meant to be that of a DETR."""
    return name is not None and name.strip().lower().startswith("detr")


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text.

    Raises: SettingsError for an unknown model, one that contradicts the weights, or the weights of a ViT.
    """
    config, why = _config(facts, overlay)
    for path in overlay.entries:
        if path.startswith("model.") and path != "model.image.size":
            raise SettingsError(
                f"{path} ({overlay.source(path)}) is of a ViT, but DETR is built on a ResNet",
                "remove it; DETR's settings are task.detector.…",
            )
    preprocess, shorter, shown = _preprocess(facts, config, overlay)
    settings = _settings(facts, overlay, config, preprocess, shorter)
    return settings, [*why, shown, *queries(facts, config.num_queries), _budget(facts, settings, overlay)]


def _config(facts: DataFacts, overlay: Overlay) -> tuple[DetrConfig, list[Choice]]:
    name = overlay.model_name()
    if facts.weights is not None:
        raise SettingsError(
            "the recipe detr starts from DETR or from a ResNet, but the weights are those of "
            + ("a ViT" if facts.detector is None else f"a detector on a ViT ({facts.detector.kind})"),
            "remove --recipe, or give the weights of DETR",
        )
    if isinstance(facts.detr, DetectorCard):
        if name is not None:
            raise SettingsError(
                f"--model {name} cannot be combined with the weights of DETR",
                "remove --model; the weights determine the model",
            )
        old = facts.detr.config
        assert isinstance(old, DetrConfig)
        _refuse_channels(facts, old.trunk)
        return old, [
            Choice(what=f"DETR, {plural(old.num_queries, 'query', 'queries')}", why="as in the weights")
        ]
    known = DEFAULT_MODEL if name is None else name.strip().lower()
    if known not in MODELS:
        raise SettingsError(
            f"--model {name} is no DETR{near_text(known, MODELS)}", f"use one of: {', '.join(MODELS)}"
        )
    config = MODELS[known]
    reason = overlay.source("model") if name is not None else "the recipe's; change with --model"
    if facts.detr is None:
        channels = facts.channels
        trunk = replace(config.trunk, channels=channels)
        return replace(config, trunk=trunk), [Choice(what=known, why=reason)]
    _refuse_channels(facts, facts.detr)
    trunk = replace(facts.detr, dilation=config.trunk.dilation)
    if name is not None and trunk.units != config.trunk.units:
        raise SettingsError(
            f"--model {name} has a trunk of {sum(config.trunk.units)} units, but that of the weights has {sum(trunk.units)}",
            "remove --model, or give the weights of its ResNet",
        )
    return replace(config, trunk=trunk), [
        Choice(what=f"DETR on a ResNet of {sum(trunk.units)} units", why="as in the weights")
    ]


def _refuse_channels(facts: DataFacts, trunk: TrunkConfig) -> None:
    """Grey images are read as equal channels; others need a trunk made for them."""
    if facts.channels not in (1, trunk.channels):
        raise SettingsError(
            f"the images have {plural(facts.channels, 'channel')}, but the weights are for {trunk.channels}",
            "convert the images, or train without --weights",
        )


def _preprocess(
    facts: DataFacts, config: DetrConfig, overlay: Overlay
) -> tuple[Preprocess, tuple[int, ...], Choice]:
    """How images are read, the shorter sides of views, ascending, and the choice of sizes in words."""
    known, reason = capped(SHORTER[-1], LONGEST), "as published; change with --image-size"
    if config.trunk.channels != 3:
        known = replace(known, in_channels=config.trunk.channels, mean=facts.mean, std=safe_std(facts.std))
    if isinstance(facts.detr, DetectorCard) and isinstance(facts.detr.preprocess.resize, Capped):
        known, reason = facts.detr.preprocess, "as in the weights; change with --image-size"
    rule = known.resize
    assert isinstance(rule, Capped)
    side, longest, given = rule.shorter, rule.longest, overlay.get("model.image.size")
    if given is not None:
        side, reason = min(given), overlay.source("model.image.size")
        longest = max(given) if max(given) > side else round(side * LONGEST / SHORTER[-1])
    sides = tuple(sorted({max(round(side * part / SHORTER[-1]), 1) for part in SHORTER}))
    resize = replace(rule, shorter=side, longest=longest)
    what = f"images of {side} pixels on the shorter side, at most {longest}"
    return replace(known, image_size=(side, longest), resize=resize), sides, Choice(what=what, why=reason)


def queries(facts: DataFacts, number: int) -> list[Choice]:
    """A warning if the queries of the weights are too few for an image."""
    objects = facts.objects
    if objects is None or objects.most <= number:
        return []
    why = f"an image has {plural(objects.most, 'object')}, so some cannot be found"
    return [Choice(what=f"warning: {plural(number, 'query', 'queries')}", why=why)]


def _budget(facts: DataFacts, settings: TrainSettings, overlay: Overlay) -> Choice:
    why = "DETR needs 300 epochs of COCO to find its boxes from a trunk; --weights of a trained DETR need far fewer"
    if isinstance(facts.detr, DetectorCard):
        why = "usual for a trained DETR that learns other classes"
    return budget(facts, settings, overlay, why)


def budget(facts: DataFacts, settings: TrainSettings, overlay: Overlay, why: str) -> Choice:
    """Images and steps. why: what that number of epochs yields."""
    epochs, batch = settings.schedule.epochs, settings.run.batch_size
    minutes = overlay.get("run.max_minutes")
    if minutes and overlay.get("schedule.epochs") is None:
        return Choice(what=f"as many epochs as fit into {minutes:g} minutes", why="measured by trial steps")
    steps = epochs * max(facts.num_images // batch, 1)
    return Choice(what=f"{facts.num_images:,} images x {epochs} epochs = {steps:,} steps of {batch}", why=why)


def _settings(
    facts: DataFacts, overlay: Overlay, config: DetrConfig, preprocess: Preprocess, shorter: tuple[int, ...]
) -> TrainSettings:
    trained = isinstance(facts.detr, DetectorCard)
    batch = overlay.get("run.batch_size") or max(min(BATCH, facts.num_images // 2), 1)
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs")
    if epochs is None:
        fewest, usual = (MIN_STEPS, EPOCHS) if trained else (MIN_STEPS_NEW, EPOCHS_NEW)
        epochs = max(usual, math.ceil(fewest / steps_per_epoch))
    longest = preprocess.image_size[1]
    # Square, so that upright images are not stored smaller; not larger than most images are.
    stored = min(longest, max(facts.size))
    return TrainSettings(
        preprocess=preprocess,
        optim=OptimSettings(lr=RATE, weight_decay=DECAY, clip_grad=CLIP),
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=min(1.0, epochs / 10), final_lr=0.01),
        # A random trunk has nothing to keep.
        tune=Trunk() if facts.detr is not None else Trunk(rate=1.0, frozen=0),
        task=DetectSettings(
            num_classes=facts.num_classes,
            detector=DetrSettings.of(config),
            augment=BoxAugmentSettings(
                shorter=shorter, longest=longest, crop=0.5, flip=0.5 if facts.mirrors else 0.0, keep=0.0
            ),
        ),
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(
            batch_size=batch,
            stored_size=(stored, stored),
            evaluate_every=evaluated_every(epochs),
            recipe="detr",
        ),
    )
