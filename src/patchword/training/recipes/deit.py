"""From scratch on ImageNet: DeiT.

    patchword train imagenet/ --recipe deit
    patchword train imagenet/ --recipe deit --model ViT-B/16 --teacher NAME

Touvron et al. 2021 (arXiv 2012.12877, table 9; facebookresearch/deit, main.py): AdamW at 5e-4 for 512 images, linear in the batch
of 1024; weight decay 0.05, drop path 0.1, 5 epochs of warm-up, 300 epochs; RandAugment 9 with noise 0.5, colour 0.3, mixup 0.8
and CutMix 1 for half of the batches each, erasing 0.25, each image three times in a batch, smoothing 0.1. Gradients are clipped to
norm 1, which DeiT does not do. Mixing pairs are neighbours in the batch, and each image keeps the larger part.
Published, not measured here (ImageNet-1k, 300 epochs): Ti 72.2 %, S 79.9 %, B 81.8 %.
A batch of 512 with the same rate gave B only 78.8 % (facebookresearch/deit, issues): keep --batch-size 1024, which is computed in
micro-batches if it does not fit.
"""

from dataclasses import replace

from patchword.training.augment.settings import AugmentSettings, MixSettings, RandAugment
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import Published, inception_crop, model_for, settings_of
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from scratch on ImageNet, as DeiT"


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    model, why = model_for("deit", facts, overlay, "ViT-S/16")
    model = replace(model, block=replace(model.block, drop_path=0.1))
    geometry, colour = inception_crop(facts, colour=0.3)
    recipe = Published(
        name="deit",
        batch=1024,
        epochs=300,
        optim=OptimSettings(lr=2.5e-4, lr_rule="linear", weight_decay=0.05),
        augment=AugmentSettings(
            geometry=geometry,
            colour=colour,
            policy=RandAugment(operations=2, magnitude=9, noise=0.5, probability=0.5),
            mixing=MixSettings(mixup=0.8, cutmix=1.0, probability=1.0, cutmix_share=0.5),
            erase=0.25,
            erase_fill="noise",
        ),
        task=ClassifySettings(label_smoothing=0.1),
        repeats=3,
    )
    settings, more = settings_of(recipe, model, facts, overlay)
    return settings, why + more
