"""Shared by the recipes: learning rate, batch, averaging window, training and evaluation sizes, augmentation."""

import math
from dataclasses import replace

from patchword.images.geometry import Cover
from patchword.images.preprocess import Preprocess
from patchword.training.augment.settings import AugmentSettings, ColourSettings, GeometrySettings, MixSettings
from patchword.training.recipes.facts import DataFacts, Size


def rate_for(dim: int) -> float:
    """The learning rate, larger for narrow models: 4e-3 at 64 channels, 2e-3 at 128, 1e-3 from 192 on."""
    return 4e-3 if dim <= 64 else 2e-3 if dim <= 128 else 1e-3


def decay_over(steps: int) -> float:
    """The decay that averages over about 4 % of the run."""
    return round(min(max(1 - 25 / max(steps, 1), 0.9), 0.9999), 5)


def batch_for(wanted: int, num_images: int) -> int:
    """The batch, capped by the data: at least four steps in an epoch, and at least two images in a batch."""
    return max(min(wanted, num_images // 4), 2)


def safe_std(std: tuple[float, ...]) -> tuple[float, ...]:
    """Replace tiny deviations, because a constant channel has none to divide by."""
    return tuple(max(s, 1e-2) for s in std)


def is_tiny(size: Size) -> bool:
    """Whether images are so small that a crop would cut off the object."""
    return min(size) <= 16


def stored_size(size: Size) -> Size:
    """The size of stored images: 1.5 times a training view, so that crops stay sharp."""
    return size if is_tiny(size) else (math.ceil(size[0] * 1.5), math.ceil(size[1] * 1.5))


# Objects look larger in training crops than in complete images, so a model is more accurate on a larger centre crop than it
# was trained on (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"). Measured on held-out training images,
# top-1 at the size of the views, then at 5/4 of it from an image of 11/8:
#     flowers5, four runs of 40 and 139 epochs on three hold-outs of 300    70.4 -> 73.2 % (loss 0.811 -> 0.765)
#     CIFAR-10, 2,000 images, one run at 32 pixels                          48.9 -> 53.3 % (loss 1.459 -> 1.384)
VIEW, MARGIN = 0.8, 1.1


def evaluation_size(view: Size, patch: Size) -> Size:
    """The evaluation size, in complete patches, for training views of size `view`."""
    rows, columns = (max(round(v / VIEW / p), 1) * p for v, p in zip(view, patch, strict=True))
    return rows, columns


def from_the_middle(preprocess: Preprocess) -> Preprocess:
    """The same size, cropped from the centre of a slightly larger image."""
    height, width = preprocess.image_size
    return replace(preprocess, resize=Cover(size=(round(height * MARGIN), round(width * MARGIN))))


def gentle() -> AugmentSettings:
    """For tiny images, where a crop would cut off the object; never mirrored (digits, letters)."""
    return AugmentSettings(
        geometry=GeometrySettings(degrees=10.0, translate=0.08, shear=5.0, zoom=0.1, outside="zeros")
    )


def strong(facts: DataFacts) -> AugmentSettings:
    return AugmentSettings(
        geometry=GeometrySettings(
            crop_scale=(0.35, 1.0),
            crop_ratio=(0.75, 1.3333),
            flip=0.5 if facts.mirrors else 0.0,
            degrees=15.0,
        ),
        colour=ColourSettings(brightness=0.3, contrast=0.3, saturation=0.3),
        mixing=MixSettings(mixup=0.3, cutmix=1.0, probability=0.8),
    )
