"""What recipes share: how long the average looks back, what is stored, how little tiny pictures may be moved."""

import math

from patchword.training.augment import AugmentSettings, GeometrySettings
from patchword.training.recipes.facts import Size


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
