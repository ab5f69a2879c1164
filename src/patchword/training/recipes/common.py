"""What recipes share: the rate, how long the average looks back, sizes in training and after, how pictures are moved."""

import math
from dataclasses import replace

from patchword.images.geometry import Cover
from patchword.images.preprocess import Preprocess
from patchword.training.augment_settings import AugmentSettings, ColourSettings, GeometrySettings, MixSettings
from patchword.training.recipes.facts import DataFacts, Size


def rate_for(dim: int) -> float:
    """Narrow models take larger steps: 4e-3 at 64 channels, 2e-3 at 128, 1e-3 from 192 on."""
    return 4e-3 if dim <= 64 else 2e-3 if dim <= 128 else 1e-3


def decay_over(steps: int) -> float:
    """The average looks back over about 4 % of the run."""
    return round(min(max(1 - 25 / max(steps, 1), 0.9), 0.9999), 5)


def safe_std(std: tuple[float, ...]) -> tuple[float, ...]:
    """A channel that never changes has no deviation to divide by."""
    return tuple(max(s, 1e-2) for s in std)


def is_tiny(size: Size) -> bool:
    """Of so few pixels that a crop would cut the thing itself."""
    return min(size) <= 16


def stored_size(size: Size) -> Size:
    """Pictures are kept half as large again as a training view, so that a crop is still sharp."""
    return size if is_tiny(size) else (math.ceil(size[0] * 1.5), math.ceil(size[1] * 1.5))


# Crops show things larger than whole pictures do, so a model answers better at a larger size than it was trained at, from
# the middle (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"). Measured on held-out training images,
# top-1 at the size of the views, then at 5/4 of it from a picture of 11/8:
#     flowers5, four runs of 40 and 139 rounds on three hold-outs of 300    70.4 -> 73.2 % (loss 0.811 -> 0.765)
#     CIFAR-10, 2,000 images, one run at 32 pixels                          48.9 -> 53.3 % (loss 1.459 -> 1.384)
VIEW, MARGIN = 0.8, 1.1


def answered_size(view: Size, patch: Size) -> Size:
    """The size to answer at, in whole patches, for training views of size `view`."""
    rows, columns = (max(round(v / VIEW / p), 1) * p for v, p in zip(view, patch, strict=True))
    return rows, columns


def from_the_middle(preprocess: Preprocess) -> Preprocess:
    """The same size, cut from a picture that is a little larger."""
    height, width = preprocess.image_size
    return replace(preprocess, resize=Cover(size=(round(height * MARGIN), round(width * MARGIN))))


def gentle() -> AugmentSettings:
    """For pictures of few pixels, where a crop would cut the thing itself; never mirrored (digits, letters)."""
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
