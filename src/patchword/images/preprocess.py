"""From a picture to what the model is fed, as settings that travel in the weights file.

`Preprocess` says every choice that changes a number. `read` is the one route from a file to the
model's input: evaluation, prediction and embedding all take it, so their answers cannot differ.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import ImageError, SettingsError
from patchword.images.decode import Box, Loaded, Request, Source, load
from patchword.images.geometry import (
    MAX_RESIZED_PIXELS,
    VARIABLE_SIZE,
    Cover,
    Plan,
    ResizeRule,
    Size,
)
from patchword.images.limits import MAX_PIXELS
from patchword.images.resample import Interpolation, Resample, resize
from patchword.images.stored import Pixels, ValueRange


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a file is read as.

    apply_exif: turn a picture upright first (timm and torchvision do not).
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
                "give 0 (always whole), or a number from 1",
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise SettingsError(
                f"preprocess: value_range {self.value_range} is empty",
                "give the lowest number, then the highest",
            )


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Everything between an upright picture and the tensor that enters the model.

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
                    f"give one number, or {self.in_channels}",
                )
        if min(self.std) <= 0:
            raise SettingsError(f"preprocess: std is {self.std}, which cannot divide", "give numbers above 0")
        if self.version != self.NEWEST:
            raise SettingsError(
                f"preprocess: version {self.version}, and this patchword knows version {self.NEWEST}",
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
        """Whether every picture comes out as `image_size`, so that a batch can be stacked."""
        return not isinstance(self.resize, VARIABLE_SIZE)

    def plan(self, size: Size) -> Plan:
        """The resize and crop of an upright picture of `size` = (h, w)."""
        return self.resize.plan(size, self.image_size)

    def __call__(self, picture: Pixels | Image.Image, name: str = "image") -> NDArray[np.float32]:
        """An upright picture, [H, W, C] uint8 or float32 in 0..1 (as `decode` gives) → [C, h, w] float32.

        Anything else (other layouts, modes, files) goes through `read`.
        Raises: ImageError where the picture has not `in_channels` channels.
        """
        height, width = picture.size[::-1] if isinstance(picture, Image.Image) else picture.shape[:2]
        whole = (0.0, 0.0, float(width), float(height))
        return self._apply(Loaded(picture=picture, size=(height, width), box=whole), name)

    def _apply(self, loaded: Loaded, name: str) -> NDArray[np.float32]:
        picture = loaded.picture
        channels = len(picture.getbands()) if isinstance(picture, Image.Image) else picture.shape[2]
        if channels != self.in_channels:
            raise ImageError(
                f"{name}: {channels} channels, the model takes {self.in_channels}",
                f"decode it with channels={self.in_channels}",
            )
        plan, box = self.plan(loaded.size), loaded.box
        if plan.resized[0] * plan.resized[1] > MAX_RESIZED_PIXELS and min(plan.top, plan.left) >= 0:
            plan, box = _kept_part(plan, box)
        resized = resize(picture, plan.resized, self.resample, box)
        return self._normalise(_cut(resized, plan, self._fill(resized.dtype)))

    def _fill(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The colour of padding: the mean, rounded to 8 bits as timm does; black where a crop is too large."""
        if self.resize.kind != "border":
            return np.zeros(self.in_channels, dtype)
        mean = np.broadcast_to(np.asarray(self.mean), (self.in_channels,))
        levels = np.rint(mean * 255)
        fill: NDArray[Any] = levels if dtype == np.uint8 else levels / 255
        return fill.astype(dtype)

    def _normalise(self, pixels: Pixels) -> NDArray[np.float32]:
        """[h, w, C] → [C, h, w], in the order of torchvision's arithmetic: /255, - mean, / std, each in float32."""
        planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
        planes[...] = pixels.transpose(2, 0, 1)
        if pixels.dtype == np.uint8:
            planes /= np.float32(255)
        planes -= np.array(self.mean, np.float32)[:, None, None]
        planes /= np.array(self.std, np.float32)[:, None, None]
        return planes


def read(
    source: Source, preprocess: Preprocess, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """A file, bytes, array or PIL image → what the model is fed, [C, h, w] float32.

    THE one route for evaluation, prediction and embedding. Raises: ImageError naming the picture and why.
    """

    margin = preprocess.reading.draft_margin

    def min_size(size: Size) -> Size:
        height, width = preprocess.plan(size).resized
        return math.ceil(height * margin), math.ceil(width * margin)

    request = Request(
        channels=preprocess.in_channels,
        max_pixels=max_pixels,
        min_size=min_size if margin else None,
        apply_exif=preprocess.reading.apply_exif,
        value_range=preprocess.reading.value_range,
    )
    loaded = load(source, request, name)
    return preprocess._apply(loaded, name or "image")


def _kept_part(plan: Plan, box: Box) -> tuple[Plan, Box]:
    """The plan of a very thin picture: resize only what the crop keeps."""
    across, down = (box[2] - box[0]) / plan.resized[1], (box[3] - box[1]) / plan.resized[0]
    left, top = box[0] + plan.left * across, box[1] + plan.top * down
    kept = (left, top, left + plan.output[1] * across, top + plan.output[0] * down)
    return Plan(resized=plan.output, output=plan.output), kept


def _cut(pixels: Pixels, plan: Plan, fill: NDArray[Any]) -> Pixels:
    """The plan's rectangle of [H, W, C]; what lies outside is `fill`."""
    height, width = plan.output
    top, left = max(plan.top, 0), max(plan.left, 0)
    inside = pixels[top : plan.top + height, left : plan.left + width]
    if inside.shape[:2] == plan.output:
        return inside
    out = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    out[:] = fill
    row, column = max(-plan.top, 0), max(-plan.left, 0)
    out[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return out
