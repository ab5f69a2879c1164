"""Preprocessing settings, stored in the weights file.

`Preprocess` records every choice that changes a number; `images/prepare.py` applies it. This module holds only
settings, so that describing a checkpoint needs neither NumPy nor Pillow.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.images.geometry import VARIABLE_SIZE, Cover, Plan, ResizeRule, Shorter, Size, Squash

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
ValueRange = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Resample:
    """interpolation, antialias: images/resample.py says what each filter is. "area" is the exact mean over each target pixel's rectangle.

    rounding: "uint8" rounds to 8 bits as Pillow does, "torch-uint8" as torch's kernel for 8-bit tensors (torchvision
    on tensors: its weights have fewer bits, a value in a hundred is one level off Pillow's), "truncate" cuts to 8 bits (a TensorFlow
    cast), "none" stays in float (vision_transformer; DINOv3 in transformers, which rescales first).
    Float and 16-bit images stay in float under "uint8", but are clipped to 0..1 as 8 bits would be.
    """

    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    rounding: Literal["uint8", "torch-uint8", "truncate", "none"] = "uint8"

    def __post_init__(self) -> None:
        if not self.antialias and self.interpolation == "lanczos":
            raise SettingsError(
                "preprocess: lanczos without antialias is not defined",
                "use antialias=true, or bilinear, bicubic, nearest or area",
            )
        if self.rounding == "torch-uint8" and not (
            self.antialias and self.interpolation in ("bilinear", "bicubic")
        ):
            raise SettingsError(
                f"preprocess: torch-uint8 rounding does not support {self.interpolation}, antialias={self.antialias}",
                "use it with antialiased bilinear or bicubic",
            )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is read.

    apply_exif: turn an image upright first (timm and torchvision do not).
    value_range: (lowest, highest) of float, 16- and 32-bit data; None takes 0..65535 and 0..1.
    draft_margin: a JPEG is decoded by 1/2, 1/4 or 1/8 (libjpeg's DCT scaling) while both sides stay this many times
        what the resize makes of them; 0 decodes it whole. Measured in docs/decisions/0003.
    """

    apply_exif: bool = True
    value_range: ValueRange | None = None
    draft_margin: float = 3.0

    def __post_init__(self) -> None:
        if self.draft_margin != 0 and not 1 <= self.draft_margin < math.inf:
            raise SettingsError(
                f"preprocess: draft_margin is {self.draft_margin}",
                "set it to 0 (always full size) or to a number from 1",
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise SettingsError(
                f"preprocess: value_range {self.value_range} is empty",
                "give the lowest value first, then the highest",
            )


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Everything between an upright image and the tensor that enters the model.

    image_size: (h, w) that the model receives; for the rules whose size varies (capped, patches, keep) the
        nominal size, which nothing is cut to.
    in_channels: 1 grey, 3 RGB, n the n channels of an n-channel file.
    mean, std: per channel (or one number for all), of values 0..1.
    version: the rules that this file describes. A new patchword that resizes differently will count it up and
        keep the old rules, so that a saved model never changes (only 1 exists).
    """

    NEWEST: ClassVar[int] = 1

    image_size: Size
    resize: ResizeRule
    in_channels: int = 3
    resample: Resample = field(default_factory=Resample)
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    reading: Reading = field(default_factory=Reading)
    version: int = 1

    def __post_init__(self) -> None:
        if min(self.image_size) < 1 or self.in_channels < 1:
            raise SettingsError(
                f"preprocess: image_size {self.image_size}, in_channels {self.in_channels}: both must be at least 1",
                "give whole numbers from 1",
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.in_channels) or not all(map(math.isfinite, values)):
                raise SettingsError(
                    f"preprocess: {name} is {values} for {self.in_channels} channels",
                    f"give one value, or {self.in_channels}",
                )
        if min(self.std) <= 0:
            raise SettingsError(
                f"preprocess: std is {self.std}, but must be positive", "give numbers above 0"
            )
        if self.version != self.NEWEST:
            raise SettingsError(
                f"preprocess: version {self.version}, but this patchword supports only version {self.NEWEST}",
                "update patchword",
            )

    @classmethod
    def simple(
        cls,
        image_size: int | Size,
        in_channels: int = 3,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.5,),
        interpolation: Interpolation = "bicubic",
    ) -> "Preprocess":
        """For models trained here: cover `image_size`, antialiased, and cut the centre."""
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        return cls(
            image_size=size,
            resize=Cover(size=size),
            in_channels=in_channels,
            resample=Resample(interpolation=interpolation),
            mean=mean,
            std=std,
        )

    @property
    def fixed_size(self) -> bool:
        """Whether every image comes out as `image_size`, so that a batch can be stacked."""
        return not isinstance(self.resize, VARIABLE_SIZE)

    @property
    def common_size(self) -> Size | None:
        """The size (height, width) of every prepared image; None if each image has its own."""
        return self.image_size if self.fixed_size else None

    def with_range(self, value_range: ValueRange | None) -> "Preprocess":
        """The same, reading deep images by another range; None changes nothing. Raises: SettingsError."""
        if value_range is None:
            return self
        try:
            low, high = (float(value) for value in value_range)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError
        except (TypeError, ValueError):
            raise SettingsError(
                f"value_range is {value_range!r}", "give the lowest and the highest value, such as (0, 255)"
            ) from None
        return replace(self, reading=replace(self.reading, value_range=(low, high)))

    def plan(self, size: Size) -> Plan:
        """The resize and crop of an upright image of `size` = (h, w)."""
        return self.resize.plan(size, self.image_size)


def sized_as(preprocess: Preprocess, size: Size) -> Preprocess:
    """The same preprocessing for another image size; its margins keep their proportion."""
    scale = max(new / old for new, old in zip(size, preprocess.image_size, strict=True))

    def scaled(side: int) -> int:
        return max(1, int(side * scale))

    rule = preprocess.resize
    match rule:
        case Squash(size=box):
            rule = replace(rule, size=(scaled(box[0]), scaled(box[1])))
            if box == preprocess.image_size:
                rule = replace(rule, size=size)
        case Cover(size=box):
            rule = replace(
                rule, size=size if box == preprocess.image_size else (scaled(box[0]), scaled(box[1]))
            )
        case Shorter(size=side):
            rule = replace(rule, size=min(size) if side == min(preprocess.image_size) else scaled(side))
        case _:
            pass
    return replace(preprocess, image_size=size, resize=rule)
