"""What recipes share: the rate, how long the average looks back, what is stored, how pictures are moved."""

import math

from patchword.training.augment import AugmentSettings, ColourSettings, GeometrySettings, MixSettings
from patchword.training.recipes.facts import DataFacts, Size


def rate_for(dim: int) -> float:
    """Narrow models take larger steps: 3e-3 at 64 channels, 2e-3 at 128, 1e-3 from 192 on."""
    return 3e-3 if dim <= 64 else 2e-3 if dim <= 128 else 1e-3


def decay_over(steps: int) -> float:
    """The average looks back over about 4 % of the run."""
    return round(min(max(1 - 25 / max(steps, 1), 0.9), 0.9999), 5)


def safe_std(std: tuple[float, ...]) -> tuple[float, ...]:
    """A channel that never changes has no deviation to divide by."""
    return tuple(max(s, 1e-2) for s in std)


def stored_size(size: Size, tiny: bool) -> Size:
    """Pictures are kept half as large again as the model sees them, so that a crop is still sharp."""
    return size if tiny else (math.ceil(size[0] * 1.5), math.ceil(size[1] * 1.5))


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
