"""From scratch on many images: "Better plain ViT baselines for ImageNet-1k".

    patchword train imagenet/ --recipe simple

Beyer, Zhai and Kolesnikov 2022 (arXiv 2205.01580; google-research/big_vision, configs/vit_s16_i1k.py): ViT-S/16 with fixed
sine-cosine positions and mean pooling, no dropout; batch 1024, AdamW at 1e-3, 10,000 steps of warm-up, cosine, gradients clipped
to norm 1; inception crop, mirroring, RandAugment(2, 10), mixup 0.2. Its decoupled weight decay of 1e-4 is not multiplied by the
rate, so it is 0.1 here. Each operation of its RandAugment is applied with a probability from 0.2 to 0.8, here with 0.5.
For smaller batches the rate falls with the square root of the batch, which the paper does not say.
Published, not measured here: ViT-S/16 76.5 % on ImageNet-1k after 90 epochs, 6 to 7 h on a TPUv3-8; 80.0 % after 300 epochs.
"""

from dataclasses import replace

from patchword.model.kinds import MeanPool, SinCos2d
from patchword.training.augment.settings import AugmentSettings, MixSettings, RandAugment
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import Published, inception_crop, model_for, settings_of
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from scratch on many images: a better plain ViT baseline"


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    model, why = model_for("simple", facts, overlay, "ViT-S/16")
    model = replace(
        model,
        tokens=replace(model.tokens, class_token=False),
        positions=SinCos2d(),
        head=replace(model.head, pool=MeanPool()),
    )
    geometry, colour = inception_crop(facts, smallest=0.05)
    recipe = Published(
        name="simple",
        batch=1024,
        epochs=90,
        optim=OptimSettings(lr=5e-4, lr_rule="sqrt", weight_decay=0.1),
        augment=AugmentSettings(
            geometry=geometry,
            colour=colour,
            policy=RandAugment(operations=2, magnitude=10, noise=0, probability=0.5),
            mixing=MixSettings(mixup=0.2),
        ),
        task=ClassifySettings(label_smoothing=0.0),
        warmup_steps=10_000,
    )
    settings, more = settings_of(recipe, model, facts, overlay)
    return settings, why + more
