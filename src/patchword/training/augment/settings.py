"""Augmentation settings, applied by the modules next to this one."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from patchword.errors import SettingsError

MAX_BOXES, MAX_OPERATIONS = 16, 16


@dataclass(frozen=True, kw_only=True)
class GeometrySettings:
    """Where each training view is sampled; the defaults change nothing.

    `crop_scale` is the range of the view's share of the image area and `crop_ratio` the range of its width to
    height relative to the image's own (random-resized-crop: Szegedy et al. 2015, section 6). `degrees` and
    `shear` (degrees) are drawn from -value..value, `translate` from -value..value as a share of the image's
    width and height, `zoom` from 1-value..1+value (above 1 enlarges). `outside` is the padding beyond the border.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    outside: Literal["reflection", "border", "zeros"] = "reflection"

    def __post_init__(self) -> None:
        _check_range("crop_scale", self.crop_scale, 1.0)
        _check_range("crop_ratio", self.crop_ratio, math.inf)
        _check_share("flip", self.flip)
        _check_share("translate", self.translate)
        for name in ("degrees", "shear"):
            _check_limit(name, getattr(self, name), 180.0 if name == "degrees" else 80.0)
        _check_limit("zoom", self.zoom, 0.9)

    @property
    def is_identity(self) -> bool:
        """True if no setting moves a pixel."""
        amounts = (self.flip, self.degrees, self.translate, self.shear, self.zoom)
        return self.crop_scale == self.crop_ratio == (1.0, 1.0) and not any(amounts)

    @property
    def stays_inside(self) -> bool:
        """True if no view reaches beyond its image."""
        return not any((self.degrees, self.translate, self.shear, self.zoom))


@dataclass(frozen=True, kw_only=True)
class ColourSettings:
    """Colour jitter (Krizhevsky et al. 2012, section 4.1; Chen et al. 2020, appendix A).

    `brightness`, `contrast` and `saturation` multiply by a factor from max(0, 1-value)..1+value; `hue` rotates
    by -value..value turns (at most 0.5) about the grey axis; `grey` is the probability of dropping all colour.
    Saturation, hue and grey need RGB: they are applied to 3-channel batches only and skipped for all others,
    which have no agreed hue. Brightness and contrast apply to any number of channels.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_limit(name, getattr(self, name), math.inf)
        _check_limit("hue", self.hue, 0.5)
        _check_share("grey", self.grey)

    @property
    def is_identity(self) -> bool:
        """True if no setting changes a value."""
        return not any((self.brightness, self.contrast, self.saturation, self.hue, self.grey))


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """Mixing neighbours of a batch and their targets.

    `mixup` (Zhang et al. 2018) and `cutmix` (Yun et al. 2019) are the alphas of the Beta(alpha, alpha) that each
    pair's share is drawn from; 0 turns the method off. `probability` is the share of images that are mixed at
    all; if both methods are on, `cutmix_share` of those are cut and the others blended.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    cutmix_share: float = 0.5

    def __post_init__(self) -> None:
        # Above 2 the rejection sampler would run out of rounds too often; published values are 0.1 to 1.
        _check_limit("mixup", self.mixup, 2.0)
        _check_limit("cutmix", self.cutmix, 2.0)
        _check_share("probability", self.probability)
        _check_share("cutmix_share", self.cutmix_share)

    @property
    def is_identity(self) -> bool:
        """True if images are never mixed."""
        return self.probability == 0 or not (self.mixup or self.cutmix)


@dataclass(frozen=True, kw_only=True)
class NoPolicy:
    """No operations besides geometry, colour and mixing."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Some operations of one strength (Cubuk et al. 2020), as timm's "rand-m9-mstd0.5-inc1", which DeiT trains with.

    Each of `operations` steps draws one of 15 operations with replacement (identity is not one of them) and applies it
    with `probability`; the paper's 1 applies all. `magnitude` is from 0 to 10, where 10 is 30 degrees, a shear of 0.3, a
    shift by 0.45 of the side, factors of 0.1 or 1.9. `noise` is the standard deviation of the magnitude, drawn for each
    operation. `fill`: the value, 0 to 1, of what shears, shifts and rotations uncover.
    """

    kind: ClassVar[str] = "randaugment"
    operations: int = 2
    magnitude: float = 9.0
    noise: float = 0.5
    probability: float = 0.5
    fill: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.operations <= MAX_OPERATIONS:
            raise SettingsError(
                f"augment.policy: operations is {self.operations}",
                f"use an integer for operations from 1 to {MAX_OPERATIONS}",
            )
        _check_limit("magnitude", self.magnitude, 10.0, "augment.policy")
        _check_limit("noise", self.noise, 10.0, "augment.policy")
        _check_limit("probability", self.probability, 1.0, "augment.policy")
        _check_limit("fill", self.fill, 1.0, "augment.policy")


@dataclass(frozen=True, kw_only=True)
class TrivialAugment:
    """One of 14 operations per image with one of 31 strengths (Müller and Hutter 2021: TrivialAugment Wide).

    Shifts are up to 32 pixels of the view, as in the paper, or its side if that is less. `fill`: the value, 0 to 1, of
    what shears, shifts and rotations uncover.
    """

    kind: ClassVar[str] = "trivialaugment"
    fill: float = 0.5

    def __post_init__(self) -> None:
        _check_limit("fill", self.fill, 1.0, "augment.policy")


@dataclass(frozen=True, kw_only=True)
class ThreeAugment:
    """Greyscale, solarisation or Gaussian blur, one of them per image (Touvron et al. 2022: DeiT III, section 3.2).

    `blur`: the range of the standard deviation in pixels of the view. Values from `solarise` on are inverted. DeiT III
    adds colour jitter: brightness, contrast and saturation of 0.3 in `augment.colour`.
    """

    kind: ClassVar[str] = "threeaugment"
    blur: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.5

    def __post_init__(self) -> None:
        _check_range("blur", self.blur, 10.0, "augment.policy")
        _check_limit("solarise", self.solarise, 1.0, "augment.policy")


Policy = NoPolicy | RandAugment | TrivialAugment | ThreeAugment


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """All augmentation of one training run, in the order of the fields; the defaults change nothing.

    Operations of a policy that need RGB (colour, greyscale) are skipped on batches without exactly three channels.

    `view` is the side of a training view as a share of the image's (rounded to whole patches): objects look
    larger in crops than in complete images, so a model may be evaluated at a larger size than it was trained at.
    `erase` is the probability of random erasing (Zhong et al. 2020), `erase_area` the range of the erased share
    of the view, in `erase_count` rectangles together. `erase_fill`: "mean" is the view's own mean, which is close to 0
    after normalisation; "zero" is black; "noise" is a random value for each pixel and channel.
    """

    geometry: GeometrySettings = field(default_factory=GeometrySettings)
    policy: Policy = field(default_factory=NoPolicy)
    colour: ColourSettings = field(default_factory=ColourSettings)
    mixing: MixSettings = field(default_factory=MixSettings)
    view: float = 1.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.33)
    erase_fill: Literal["mean", "zero", "noise"] = "mean"
    erase_count: int = 1

    def __post_init__(self) -> None:
        if not 0.1 <= self.view <= 2:
            raise SettingsError(
                f"augment.view is {self.view}", "use a share of the image's side from 0.1 to 2"
            )
        _check_share("erase", self.erase)
        _check_range("erase_area", self.erase_area, 1.0)
        if not 1 <= self.erase_count <= MAX_BOXES:
            raise SettingsError(
                f"augment.erase_count is {self.erase_count}", f"use an integer from 1 to {MAX_BOXES}"
            )


def _check_share(name: str, value: float) -> None:
    _check_limit(name, value, 1.0)


def _check_limit(name: str, value: float, largest: float, part: str = "augment") -> None:
    if not 0.0 <= value <= largest:
        raise SettingsError(f"{part}: {name} is {value}", f"use a value for {name} between 0 and {largest:g}")


def _check_range(name: str, bounds: tuple[float, float], largest: float, part: str = "augment") -> None:
    low, high = bounds
    if not 0.0 < low <= high <= largest:
        raise SettingsError(
            f"{part}: {name} is {bounds}",
            f"use two increasing numbers for {name}, above 0 and up to {largest:g}",
        )
