"""Fine-tune trained weights with AdamW: the same model with a head for these classes, early blocks at smaller rates.

    patchword train flowers/ --weights NAME

For models as wide as published ones: AdamW at 5e-4 for 256 images, linear in the batch; each block at 0.65 times the rate of
the block after it (0.75 from 24 blocks on); weight decay 0.05, drop path 0.1, warm-up for a tenth of the run, cosine. These
are the values of MAE (He et al. 2022, arXiv 2111.06377, table 9) and BEiT (Bao et al. 2022, arXiv 2106.08254), which fine-tune
on ImageNet with RandAugment, mixup 0.8 and CutMix 1. Runs on a few hundred images are too short for such strong mixing, so the
augmentation is milder: crops from 0.35 of the area, mirroring, colour, erasing 0.1, and no mixing below 5,000 images.
The head starts from a linear probe (training/floor.py).
Published, not measured here: MAE ViT-B/16 83.6 % on ImageNet-1k after 100 epochs, 7 h 11 min on 32 V100
(facebookresearch/mae, FINETUNE.md). `python benchmarks/finetune_flowers.py` measures this recipe on flowers5.

Models narrower than published ones were usually trained on few images and transfer little. On hold-outs of flowers5's training
images (300 images, one seed each, a standard error of 2.7 points), at 64 pixels, 20 epochs, from a model of 128 channels with
49 % on CIFAR-10:
    a tenth of the rate, mild augmentation        61.0, 62.3 % on two hold-outs
    the rate from scratch, mild augmentation      69.7, 67.0 %
    rate and augmentation from scratch            66.7, 71.0 %
    from scratch                                  69.7, 71.3 %
so they get the rate and augmentation from scratch, for all blocks alike. Such weights speed up the start but do not improve the
result: at 32 pixels they gave 66.0 % after 5 epochs, against 56.0 % from scratch; after 20 epochs the two were equal.
"""

import math
from dataclasses import replace

from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.training.augment.settings import AugmentSettings, ColourSettings, GeometrySettings, MixSettings
from patchword.training.config import AverageSettings, RunSettings, TrainSettings, view_size
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.common import (
    VIEW,
    batch_for,
    decay_over,
    from_the_middle,
    gentle,
    is_tiny,
    rate_for,
    stored_size,
    strong,
)
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.pretrained import card_for, model_of, preprocess_of
from patchword.training.schedule import ScheduleSettings
from patchword.training.tasks.settings import ClassifySettings
from patchword.training.tune import Full, LayerDecay, LoRA

DESCRIPTION = "from weights, AdamW with smaller rates for early blocks"
EPOCHS, MIN_STEPS, MAX_STEPS = 15, 300, 10_000
# Width of the narrowest published models.
NARROW = 192
# From so many images on, fine-tuning mixes images, as MAE and BEiT do on ImageNet.
MANY = 5000
# MAE's decays: 0.65 for ViT-B (12 blocks), 0.75 for ViT-L and ViT-H (24 and 32).
DEEP = 24
# Adapters begin at zero, so they bear a larger rate than trained weights; not tuned.
ADAPTER_LR = 1e-3


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data and weights, and the choices as text.

    Raises: SettingsError if there are no weights, or if another model is specified.
    """
    card = card_for("finetune", facts, overlay)
    model, why = model_of(card, facts, overlay)
    preprocess, augment = preprocess_of(card, facts, model), _augment(facts, overlay, model)
    if augment.view != 1:
        preprocess = from_the_middle(preprocess)
        rows, columns = view_size(model, augment)
        reason = "objects look larger in training crops; --image-size uses one size for both"
        why.append(Choice(what=f"trained at {columns}x{rows}", why=reason))
    return _settings(facts, overlay, model, preprocess, augment), why


def is_narrow(model: ViTConfig) -> bool:
    """Whether the model is narrower than any published one, so that it is trained as from scratch."""
    return model.dim < NARROW


def _augment(facts: DataFacts, overlay: Overlay, model: ViTConfig) -> AugmentSettings:
    if is_tiny(model.image.size):
        return gentle()
    if is_narrow(model):
        return replace(strong(facts), view=VIEW if overlay.get("model.image.size") is None else 1.0)
    many = facts.num_images >= MANY
    return AugmentSettings(
        geometry=GeometrySettings(
            crop_scale=(0.35, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5 if facts.mirrors else 0.0
        ),
        colour=ColourSettings(brightness=0.3, contrast=0.3, saturation=0.3),
        mixing=MixSettings(mixup=0.8, cutmix=1.0, probability=0.5) if many else MixSettings(),
        erase=0.1,
    )


def _settings(
    facts: DataFacts, overlay: Overlay, model: ViTConfig, preprocess: Preprocess, augment: AugmentSettings
) -> TrainSettings:
    narrow = is_narrow(model)
    batch = batch_for(_batch(model), facts.num_images)
    steps_per_epoch = max(facts.num_images // batch, 1)
    epochs = overlay.get("schedule.epochs")
    if epochs is None:
        epochs = _epochs(steps_per_epoch)
    if overlay.kind("tune") == LoRA.kind:
        optim = OptimSettings(lr=ADAPTER_LR, lr_rule="sqrt", weight_decay=0.0)
    else:
        optim = OptimSettings(lr=rate_for(model.dim)) if narrow else OptimSettings(lr=5e-4, lr_rule="linear")
    if not narrow:
        model = replace(model, block=replace(model.block, drop_path=0.1))
    return TrainSettings(
        model=model,
        preprocess=preprocess,
        augment=augment,
        optim=optim,
        schedule=ScheduleSettings(epochs=epochs, warmup_epochs=min(5.0, epochs / 10), final_lr=0.01),
        tune=Full() if narrow else LayerDecay(decay=0.65 if model.depth < DEEP else 0.75),
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
