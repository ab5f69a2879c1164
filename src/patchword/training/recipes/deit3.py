"""From scratch on ImageNet: DeiT III.

    patchword train imagenet/ --recipe deit3 --model ViT-B/16

Touvron et al. 2022 (arXiv 2204.07118; facebookresearch/deit, README_revenge.md): LAMB, 4e-3 for ViT-S and 3e-3 for larger models at
a batch of 2048, weight decay 0.05, 5 epochs of warm-up, 800 epochs; 3-Augment with colour 0.3, mixup 0.8 and CutMix 1, each image
three times in a batch, no smoothing; binary cross-entropy; LayerScale 1e-4, positions on the patches alone; drop path by size: 0.05
for S, 0.2 for B, 0.45 for L, 0.6 for H. For smaller batches the rate falls with the square root of the batch (You et al. 2020,
arXiv 1904.00962). DeiT III trains B at 192, L at 192 and H at 160 pixels and fine-tunes them at 224 for 20 epochs; here the size is
224 unless --image-size says otherwise.
Published, not measured here (ImageNet-1k at 224): S 81.4 %, B 83.8 %, L 84.9 %, H 85.2 %.
"""

import math
from dataclasses import replace

from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned
from patchword.training.augment.settings import AugmentSettings, MixSettings, ThreeAugment
from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.published import Published, inception_crop, model_for, settings_of
from patchword.training.tasks.settings import ClassifySettings

DESCRIPTION = "from scratch on ImageNet, as DeiT III"
BATCH = 2048


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these data, and the choices as text. Raises: SettingsError if weights are given."""
    model, why = model_for("deit3", facts, overlay, "ViT-S/16")
    path = _drop_path(model)
    why.append(Choice(what=f"drop path {path:g}", why=f"DeiT III's value for {model.dim} channels"))
    model = replace(model, block=replace(model.block, drop_path=path, layer_scale=1e-4))
    if isinstance(model.positions, Learned):
        model = replace(model, positions=replace(model.positions, covers="patches"))
    geometry, colour = inception_crop(facts, colour=0.3)
    peak = 4e-3 if model.dim <= 384 else 3e-3
    recipe = Published(
        name="deit3",
        batch=BATCH,
        epochs=800,
        optim=OptimSettings(
            method="lamb", lr=round(peak / math.sqrt(BATCH / 256), 7), lr_rule="sqrt", weight_decay=0.05
        ),
        augment=AugmentSettings(
            geometry=geometry,
            colour=colour,
            policy=ThreeAugment(),
            mixing=MixSettings(mixup=0.8, cutmix=1.0, probability=1.0, cutmix_share=0.5),
        ),
        task=ClassifySettings(loss="binary_cross_entropy", label_smoothing=0.0),
        repeats=3,
    )
    settings, more = settings_of(recipe, model, facts, overlay)
    return settings, why + more


def _drop_path(model: ViTConfig) -> float:
    """DeiT III's value for the width: 0.05 up to S, 0.2 for B, 0.45 for L, 0.6 for H."""
    return 0.05 if model.dim <= 384 else 0.2 if model.dim <= 768 else 0.45 if model.dim <= 1024 else 0.6
