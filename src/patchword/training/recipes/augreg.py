"""From scratch on many images: "How to train your ViT?" (AugReg).

    patchword train imagenet/ --recipe augreg --model ViT-B/16

Steiner et al. 2022 (arXiv 2106.10270; google-research/big_vision, configs/vit_i1k.py): batch 4096, AdamW at 1e-3, 10,000 steps of
warm-up, cosine, gradients clipped to norm 1, 300 epochs; inception crop, mirroring, and the augmentation that suits the size: none
but crops for Ti ("light1"), RandAugment(2, 15) with mixup 0.5 from S on ("medium2"); no dropout. The strength of RandAugment ends
at 10 here, so 15 becomes 10. Its decoupled weight decay of 1e-4 is not multiplied by the rate, so it is 0.1 here. For smaller batches
the rate falls with the square root of the batch, which the paper does not say.
Published, not measured here: after 300 epochs on ImageNet-1k at 224 pixels S/16 78.8 %, B/16 79.2 % (timm's evaluation of the
released weights).
"""

from patchword.training.augment.settings import AugmentSettings, MixSettings, NoPolicy, RandAugment
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import Published, inception_crop, model_for, settings_of
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from scratch on many images, with the augmentation of AugReg"
WIDTH_OF_S = 384


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    model, why = model_for("augreg", facts, overlay, "ViT-S/16")
    light = model.dim < WIDTH_OF_S
    geometry, colour = inception_crop(facts, smallest=0.05)
    recipe = Published(
        name="augreg",
        batch=4096,
        epochs=300,
        optim=OptimSettings(lr=2.5e-4, lr_rule="sqrt", weight_decay=0.1),
        augment=AugmentSettings(
            geometry=geometry,
            colour=colour,
            policy=NoPolicy() if light else RandAugment(operations=2, magnitude=10, noise=0, probability=0.5),
            mixing=MixSettings() if light else MixSettings(mixup=0.5),
        ),
        task=ClassifySettings(label_smoothing=0.0),
        warmup_steps=10_000,
    )
    settings, more = settings_of(recipe, model, facts, overlay)
    return settings, why + more
