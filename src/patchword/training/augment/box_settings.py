"""Settings of training views with boxes."""

import math
from dataclasses import dataclass, field

from patchword.errors import SettingsError
from patchword.training.augment.settings import ColourSettings


@dataclass(frozen=True, kw_only=True)
class BoxAugmentSettings:
    """The defaults change nothing: the complete image, in the middle of the view.

    scale: range of the size of the image relative to that which fits the view (large scale jitter: Ghiasi et al. 2021,
    section 3). Above 1 the view is a crop, with at least one object of the image completely inside; below 1 the rest of the view
    is filled. stretch: range of the width relative to the height. flip: probability of a horizontal flip. keep: an
    object stays if at least this share of its area is inside the view.

    shorter: if given, views have the aspect of their image: the shorter side is drawn from these, in pixels, and made smaller where
    the longer side would pass `longest`. crop: probability that such a view is of a part of the image, as DETR's authors cut it
    (facebookresearch/detr, datasets/coco.py).
    """

    scale: tuple[float, float] = (1.0, 1.0)
    stretch: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    keep: float = 0.3
    colour: ColourSettings = field(default_factory=ColourSettings)
    shorter: tuple[int, ...] = ()
    longest: int = 1333
    crop: float = 0.0

    def __post_init__(self) -> None:
        for name, largest in (("scale", 10.0), ("stretch", 4.0)):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and 0.05 <= low <= high <= largest):
                raise SettingsError(
                    f"augment.{name} is {low:g} to {high:g}",
                    f"give two numbers from 0.05 to {largest:g}, the smaller first",
                )
        for name in ("flip", "keep", "crop"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise SettingsError(f"augment.{name} is {value!r}", "give a number from 0 to 1")
        if self.shorter and not 1 <= min(self.shorter) <= max(self.shorter) <= self.longest:
            raise SettingsError(
                f"augment.shorter is {list(self.shorter)} and augment.longest {self.longest}",
                "give sides from 1 pixel, none of them above augment.longest",
            )
        if self.crop and not self.shorter:
            raise SettingsError(
                f"augment.crop is {self.crop:g}, but views have one size",
                "set augment.scale, which crops such views, or augment.shorter",
            )
