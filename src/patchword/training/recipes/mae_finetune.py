"""Fine-tune an encoder of a masked autoencoder on ImageNet, as published.

    patchword train imagenet/ --weights NAME --recipe mae-finetune

He et al. 2022 (arXiv 2111.06377, table 9; facebookresearch/mae, FINETUNE.md and main_finetune.py): AdamW, batch 1024, linear rate of
5e-4 for 256 images (1e-3 from ViT-L on), weight decay 0.05, layer-wise decay 0.65 (0.75 from ViT-L on), drop path 0.1, 0.2, 0.3 for
B, L, H; 5 epochs of warm-up, 100 epochs (50 from ViT-L on); RandAugment 9 with noise 0.5, mixup 0.8 and CutMix 1 for half of the
batches each, erasing 0.25, smoothing 0.1. The head reads the mean of the patches, with a norm of its own that starts fresh.
Gradients are not clipped. Different here: mixing pairs are neighbours in the batch, and the head starts from a linear probe on the
frozen features (training/floor.py) instead of a tiny random one.
Published, not measured here (ImageNet-1k, pre-trained for 1,600 epochs): ViT-B 83.66 %, 7 h 11 min on 32 V100; ViT-L 85.95 %, 8 h 52 min
on 32 V100; ViT-H 86.93 %, 13 h 9 min on 64 V100.
"""

from dataclasses import replace

from patchword.model.config import ViTConfig
from patchword.model.kinds import ClassPool, FirstPool, MeanPool
from patchword.training.augment.settings import AugmentSettings, MixSettings, RandAugment
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.pretrained import card_for, model_of, preprocess_of
from patchword.training.recipes.published import Published, inception_crop, settings_of
from patchword.training.tasks.settings import ClassifySettings
from patchword.training.tune import LayerDecay

DESCRIPTION = "from MAE weights on ImageNet, as MAE"
# Blocks of ViT-L and ViT-H.
LARGE, HUGE = 24, 32


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data and weights, and the choices as text.

    Raises: SettingsError if there are no weights, or if another model is specified.
    """
    card = card_for("mae-finetune", facts, overlay)
    model, why = model_of(card, facts, overlay)
    model, pooled = _pooled(model)
    large = model.depth >= LARGE
    path = 0.3 if model.depth >= HUGE else 0.2 if large else 0.1
    model = replace(model, block=replace(model.block, drop_path=path))
    geometry, colour = inception_crop(facts)
    recipe = Published(
        name="mae-finetune",
        batch=1024,
        epochs=50 if large else 100,
        optim=OptimSettings(lr=1e-3 if large else 5e-4, lr_rule="linear", weight_decay=0.05, clip_grad=0.0),
        augment=AugmentSettings(
            geometry=geometry,
            colour=colour,
            policy=RandAugment(operations=2, magnitude=9, noise=0.5, probability=0.5),
            mixing=MixSettings(mixup=0.8, cutmix=1.0, probability=1.0, cutmix_share=0.5),
            erase=0.25,
            erase_fill="noise",
        ),
        task=ClassifySettings(label_smoothing=0.1),
    )
    settings, more = settings_of(recipe, model, facts, overlay, preprocess_of(card, facts, model))
    settings = replace(settings, tune=LayerDecay(decay=0.75 if large else 0.65))
    return settings, [*why, pooled, *more]


def _pooled(model: ViTConfig) -> tuple[ViTConfig, Choice]:
    """The model with a head that reads the mean of the patches, if the weights have no pooling of their own."""
    head = model.head
    plain = head.norm == "tokens" and isinstance(head.pool, ClassPool | FirstPool | MeanPool)
    if not plain or head.pre_logits or head.projection or head.distilled:
        reason = f"the weights have their own, which this recipe keeps: {head.pool.words()}"
        return model, Choice(what="pooling of the weights", why=reason)
    changed = replace(model, head=replace(head, pool=MeanPool(), norm="pooled"))
    reason = "as published; this norm starts fresh, and the final norm of the weights is left out"
    return changed, Choice(what="the mean of the patches, then a norm", why=reason)
