"""Resize rules: which pixels of an image the model gets, and at what size.

Every rule answers one question, "an image of h x w: resize it to what, and what then?", with a
`Plan`. The rounding of sides is part of a rule, because one pixel more or less moves every sample.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError

Size = tuple[int, int]  # height, width

# A 1 x 100000 strip resized to 224 on its shorter side would be 22 million pixels wide. Beyond this many
# pixels only the part that is kept is resized (a value may then be a level off: the box is in 32-bit floats).
MAX_RESIZED_PIXELS = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Resize to `resized`, then take `output` from offset `top`, `left`; negative offsets pad."""

    resized: Size
    output: Size
    top: int = 0
    left: int = 0


@dataclass(frozen=True, kw_only=True)
class Squash:
    """Both sides to `size` = (h, w), the aspect lost; then the centre `image_size`."""

    kind: ClassVar[str] = "squash"
    size: Size
    crop: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        _check_sides("squash size", self.size)

    def plan(self, size: Size, image_size: Size) -> Plan:
        return _centred(self.size, image_size, self.crop)


@dataclass(frozen=True, kw_only=True)
class Shorter:
    """The shorter side to `size`, the longer in proportion; then the centre `image_size`.

    longer: "truncate" as torchvision, timm and transformers do; "half-even" in float32, as TensorFlow does.
    crop: the offset is "round"ed half to even (torchvision, timm) or "floor"ed (transformers, TensorFlow).
    """

    kind: ClassVar[str] = "shorter"
    size: int
    longer: Literal["truncate", "half-even"] = "truncate"
    crop: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        _check_sides("shorter size", (self.size,))

    def plan(self, size: Size, image_size: Size) -> Plan:
        short, long = min(size), max(size)
        if self.longer == "truncate":
            other = int(self.size * long / short)
        else:
            import numpy as np

            factor = np.float32(self.size) / np.float32(short)
            other = int(np.rint(np.float32(long) * factor))
        height, width = size
        resized = (self.size, other) if height <= width else (other, self.size)
        return _centred(resized, image_size, self.crop)


@dataclass(frozen=True, kw_only=True)
class Cover:
    """The smallest image of the same aspect that covers `size` = (h, w), then the centre `image_size`.

    For models trained here, square or not; timm's "center" where the size is not square.
    """

    kind: ClassVar[str] = "cover"
    size: Size

    def __post_init__(self) -> None:
        _check_sides("cover size", self.size)

    def plan(self, size: Size, image_size: Size) -> Plan:
        ratio = min(size[0] / self.size[0], size[1] / self.size[1])
        return _centred((round(size[0] / ratio), round(size[1] / ratio)), image_size, "round")


@dataclass(frozen=True, kw_only=True)
class Border:
    """The complete image inside `size` = (h, w), the rest filled with the mean colour.

    Source: timm's crop mode "border" (ResizeKeepRatio with longest=1, then CenterCropOrPad).
    """

    kind: ClassVar[str] = "border"
    size: Size

    def __post_init__(self) -> None:
        _check_sides("border size", self.size)

    def plan(self, size: Size, image_size: Size) -> Plan:
        ratio = max(size[0] / self.size[0], size[1] / self.size[1])
        resized = (max(round(size[0] / ratio), 1), max(round(size[1] / ratio), 1))
        return _centred(resized, image_size, "round")


@dataclass(frozen=True, kw_only=True)
class Capped:
    """The shorter side to `shorter` unless the longer would pass `longest`; no crop, so sizes vary.

    longer: what the other side is made from. "rounded": the shorter side after rounding (DETR's and
    YOLOS' own code, where the longer side can pass `longest` by rounding); "exact": the unrounded one
    (transformers). multiple: both sides then go down to a multiple of it (YOLOS: 16).
    """

    kind: ClassVar[str] = "capped"
    shorter: int
    longest: int
    longer: Literal["rounded", "exact"] = "rounded"
    multiple: int = 1

    def __post_init__(self) -> None:
        _check_sides("capped size", (self.shorter, self.longest, self.multiple))

    def plan(self, size: Size, image_size: Size) -> Plan:
        short, long = min(size), max(size)
        exact = float(self.shorter)
        if long / short * self.shorter > self.longest:
            exact = self.longest * short / long
        rounded = round(exact)
        other = int((rounded if self.longer == "rounded" else exact) * long / short)
        if short == rounded:
            rounded, other = short, long
        rounded, other = (max(side - side % self.multiple, self.multiple) for side in (rounded, other))
        resized = (rounded, other) if size[0] <= size[1] else (other, rounded)
        return Plan(resized=resized, output=resized)


@dataclass(frozen=True, kw_only=True)
class Patches:
    """As many complete patches as fit in `max_patches`, the aspect kept to a patch (NaFlex); sizes vary.

    Source: big_vision, pp/proj/image_text/ops_naflex.py, and transformers' Siglip2ImageProcessor: the
    scale is found by bisection between 1e-6 and 100 until the bounds are closer than 1e-5.
    """

    kind: ClassVar[str] = "patches"
    patch: Size
    max_patches: int

    def __post_init__(self) -> None:
        _check_sides("patches", (*self.patch, self.max_patches))

    def plan(self, size: Size, image_size: Size) -> Plan:
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            rows, columns = self._grid(size, middle)
            if rows * columns <= self.max_patches:
                low = middle
            else:
                high = middle
        rows, columns = self._grid(size, low)
        resized = (rows * self.patch[0], columns * self.patch[1])
        return Plan(resized=resized, output=resized)

    def _grid(self, size: Size, scale: float) -> Size:
        rows = max(math.ceil(size[0] * scale / self.patch[0]), 1)
        columns = max(math.ceil(size[1] * scale / self.patch[1]), 1)
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class Keep:
    """No resize and no crop: the image as it is; sizes vary."""

    kind: ClassVar[str] = "keep"

    def plan(self, size: Size, image_size: Size) -> Plan:
        return Plan(resized=size, output=size)


ResizeRule = Squash | Shorter | Cover | Border | Capped | Patches | Keep
VARIABLE_SIZE = (Capped, Patches, Keep)


def _centred(resized: Size, image_size: Size, offset: Literal["round", "floor"]) -> Plan:
    """The centre `image_size` of `resized`. Where a side is too short, padding starts as torchvision's does."""
    offsets = []
    for have, want in zip(resized, image_size, strict=True):
        if have < want or offset == "floor":
            offsets.append(-((want - have) // 2) if have < want else (have - want) // 2)
        else:
            offsets.append(round((have - want) / 2))
    return Plan(resized=resized, output=image_size, top=offsets[0], left=offsets[1])


def _check_sides(what: str, sides: tuple[int, ...]) -> None:
    if min(sides) < 1:
        raise SettingsError(
            f"preprocess: {what} is {sides}, every number must be at least 1", "give whole numbers from 1"
        )
