"""Fine-tune trained weights: the same model with a head for these classes.

Models as wide as published ones get common values: a tenth of the rate from scratch, few epochs, mild
augmentation. These were not tuned, because no published weights were available during development.

Narrower models were usually trained on few images and transfer little. On hold-outs of flowers5's training images (300 images, one seed
each, a standard error of 2.7 points), at 64 pixels, 20 epochs, from a model of 128 channels with 49 % on CIFAR-10:
    a tenth of the rate, mild augmentation        61.0, 62.3 % on two hold-outs
    the rate from scratch, mild augmentation      69.7, 67.0 %
    rate and augmentation from scratch            66.7, 71.0 %
    from scratch                                  69.7, 71.3 %
so they get the rate and augmentation from scratch. Such weights speed up the start but do not improve the result: at
32 pixels they gave 66.0 % after 5 epochs, against 56.0 % from scratch; after 20 epochs the two were equal.
"""

import math
from dataclasses import replace

from patchword.checkpoints.card import ModelCard
from patchword.errors import SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.training.augment.settings import AugmentSettings, ColourSettings, GeometrySettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings, view_size
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import (
    VIEW,
    decay_over,
    from_the_middle,
    gentle,
    is_tiny,
    rate_for,
    safe_std,
    stored_size,
    strong,
)
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from weights, with a new head for the data's classes"
EPOCHS, MIN_STEPS, MAX_STEPS = 20, 300, 10_000
# Width of the narrowest published models.
NARROW = 192


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data and weights, and the choices as text.

    Raises: SettingsError if there are no weights, or if another model is specified.
    """
    card = facts.weights
    if card is None:
        raise SettingsError("the recipe finetune needs weights", "add --weights")
    if (name := overlay.model_name()) is not None:
        raise SettingsError(
            f"--model {name} cannot be combined with weights",
            "remove --model; the weights determine the model",
        )
    model, why = _model(card, facts, overlay)
    preprocess, augment = _preprocess(card, facts, model), _augment(facts, overlay, model)
    if augment.view != 1:
        preprocess = from_the_middle(preprocess)
        rows, columns = view_size(model, augment)
        reason = "objects look larger in training crops; --image-size uses one size for both"
        why.append(Choice(what=f"trained at {columns}x{rows}", why=reason))
    return _settings(facts, overlay, model, preprocess, augment), why


def _model(card: ModelCard, facts: DataFacts, overlay: Overlay) -> tuple[ViTConfig, list[Choice]]:
    """The model of the weights, at the specified size, with a head for these classes."""
    old, why = card.config, []
    size, reason = overlay.get("model.image.size"), "the size of the weights"
    if size is not None:
        reason = overlay.source("model.image.size")
    else:
        size = card.preprocess.image_size if card.preprocess.fixed_size else old.image.size
    why.append(Choice(what=f"images of {size[1]}x{size[0]} pixels", why=reason))
    # A colour model reads grey images as equal channels, which occur in its training data. A grey model
    # would lose the colours, so its kernel is widened. Files with other channel counts only fit such a model.
    keeps = old.image.channels > 1 and (facts.channels == 1 or old.image.channels != 3)
    channels = old.image.channels if keeps else facts.channels
    if channels != old.image.channels:
        why.append(Choice(what=f"{channels} channels instead of {old.image.channels}", why="as in the data"))
    patch, patch_size = old.patch, overlay.get("model.patch.size")
    if patch_size is not None:
        patch = replace(old.patch, size=patch_size)
        source = overlay.source("model.patch.size")
        why.append(Choice(what=f"patches of {patch_size[1]}x{patch_size[0]}", why=source))
    model = replace(
        old,
        image=replace(old.image, size=size, channels=channels),
        patch=patch,
        head=replace(old.head, num_classes=facts.num_classes),
    )
    return model, why


def _preprocess(card: ModelCard, facts: DataFacts, model: ViTConfig) -> Preprocess:
    """Normalise as the weights expect; for another number of channels, use the statistics of the data."""
    same = model.image.channels == card.config.image.channels
    simple = Preprocess.simple(
        model.image.size,
        in_channels=model.image.channels,
        mean=card.preprocess.mean if same else facts.mean,
        std=card.preprocess.std if same else safe_std(facts.std),
    )
    reading = replace(simple.reading, value_range=card.preprocess.reading.value_range)
    return replace(simple, resample=card.preprocess.resample, reading=reading)


def _augment(facts: DataFacts, overlay: Overlay, model: ViTConfig) -> AugmentSettings:
    if is_tiny(model.image.size):
        return gentle()
    if model.dim >= NARROW:
        return _mild(facts)
    return replace(strong(facts), view=VIEW if overlay.get("model.image.size") is None else 1.0)


def _settings(
    facts: DataFacts, overlay: Overlay, model: ViTConfig, preprocess: Preprocess, augment: AugmentSettings
) -> TrainSettings:
    narrow = model.dim < NARROW
    batch = max(min(_batch(model), facts.num_images // 4), 2)
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs")
    if epochs is None:
        epochs = _epochs(steps_per_epoch)
    return TrainSettings(
        model=model,
        preprocess=preprocess,
        augment=augment,
        optim=OptimSettings(lr=rate_for(model.dim) * (1 if narrow else 0.1)),
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=min(1.0, epochs / 10), final_lr=0.01),
        task=ClassifySettings(label_smoothing=0.1),
        average=AverageSettings(decay=decay_over(epochs * steps_per_epoch)),
        run=RunSettings(
            batch_size=batch, stored_size=stored_size(view_size(model, augment)), recipe="finetune"
        ),
    )


def _batch(model: ViTConfig) -> int:
    """The batch size. Activations grow with the model's width, so wide models get smaller batches."""
    return 64 if model.dim <= 384 else 32 if model.dim <= 768 else 16


def _epochs(steps_per_epoch: int) -> int:
    fewest, most = MIN_STEPS / steps_per_epoch, MAX_STEPS / steps_per_epoch
    return max(1, math.ceil(min(max(EPOCHS, fewest), most)))


def _mild(facts: DataFacts) -> AugmentSettings:
    return AugmentSettings(
        geometry=GeometrySettings(
            crop_scale=(0.5, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5 if facts.mirrors else 0.0
        ),
        colour=ColourSettings(brightness=0.2, contrast=0.2, saturation=0.2),
    )
