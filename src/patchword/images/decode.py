"""One decoder for training, evaluation and prediction: any image in, upright channels out.

Routes: `.npy` and arrays (arrays.py); TIFF deeper than 8 bits or with other channels (tiff.py,
tiff_pixels.py); 16-bit colour PNG (png.py); netpbm (netpbm.py); all else Pillow (pillow.py). Each gives what is stored; orientation and
channels are made in one place, here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import ImageError
from patchword.images import pillow
from patchword.images.arrays import from_array, read_npy
from patchword.images.geometry import Size
from patchword.images.gif import refuse_without_colours
from patchword.images.icon import with_true_depths
from patchword.images.jpeg import refuse_grey_end, with_end_marker
from patchword.images.limits import MAX_PIXELS, Limits
from patchword.images.netpbm import read_netpbm
from patchword.images.orientation import (
    BOTTOM_EDGE_LEFT,
    BOTTOM_EDGE_TOP,
    RIGHT_EDGE_LEFT,
    RIGHT_EDGE_TOP,
    read_orientation,
    upright_array,
    upright_image,
)
from patchword.images.png import is_deep_colour, parse_png, read_deep
from patchword.images.preprocess import ValueRange
from patchword.images.sources import FileSource, name_of, read_bytes
from patchword.images.stored import Pixels, Stored, to_channels, wrong_channels
from patchword.images.tga import has_alpha
from patchword.images.tiff import is_ordinary, parse_tiff
from patchword.images.truncation import ENDS, refuse_without_end

Source = FileSource | BinaryIO | Image.Image | NDArray[Any]
Picture = Pixels
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options for decoding one image.

    min_size: from the upright (h, w) of the image to the least (h, w) that a JPEG may be decoded to.
    """

    channels: int = 3
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None
    min_size: Callable[[Size], Size] | None = None
    apply_exif: bool = True


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An upright image of the wanted channels: a Pillow image of mode L or RGB, or [H, W, C].

    size: (h, w) of the whole upright image. A JPEG may have been decoded smaller than that; `box` (left, top,
    right, bottom) is then the part of `picture` that the full image covers, to a fraction of a pixel.
    """

    picture: Image.Image | Pixels
    size: Size
    box: Box


def decode(
    source: Source,
    *,
    name: str = "",
    channels: int = 3,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    min_size: Size | None = None,
    apply_exif: bool = True,
) -> Picture:
    """A path, bytes, binary file, PIL image or array → [H, W, channels], upright, alpha over white.

    uint8, or float32 in 0..1 for anything deeper than 8 bits. channels: 1 grey, 3 RGB, n as stored.
    value_range: (lowest, highest) of float, 16- and 32-bit data; 8-bit images are unaffected.
    min_size: (h, w); a JPEG may come smaller than it is, but no side below this.
    Raises: ImageError that names the image, the reason and what to do.
    """
    request = Request(
        channels=channels,
        max_pixels=max_pixels,
        value_range=value_range,
        min_size=None if min_size is None else lambda size: min_size,
        apply_exif=apply_exif,
    )
    picture = load(source, request, name).picture
    if isinstance(picture, Image.Image):
        pixels = np.array(picture)
        return pixels[..., None] if pixels.ndim == 2 else pixels
    return picture


def load(source: Source, request: Request, name: str = "") -> Loaded:
    """As `decode`, but an 8-bit image stays with Pillow, so that the resize needs no copy."""
    name = name_of(source, name)
    try:
        with np.errstate(all="ignore"):  # odd floats warn while being copied; they are checked afterwards
            return _load(source, request, name, Limits(request.max_pixels))
    except MemoryError as error:  # within the limits, but not on this machine now
        raise ImageError(f"{name}: not enough memory to decode it", "resize the image") from error


def _load(source: Source, request: Request, name: str, limits: Limits) -> Loaded:
    if isinstance(source, np.ndarray):
        stored = from_array(source, request.channels, name, limits, request.value_range)
        return _loaded(stored, 1, request, name)
    if isinstance(source, Image.Image):
        return _load_image(source, source.format or "image", request, name, limits)
    data, kind = read_bytes(source, name, limits)
    if kind == "npy":
        array = read_npy(data, name, limits)
        stored = from_array(array, request.channels, name, limits, request.value_range)
        return _loaded(stored, 1, request, name)
    if kind == "netpbm":
        return _loaded(read_netpbm(data, name, limits, request.value_range), 1, request, name)
    if kind == "png":
        return _load_png(data, request, name, limits)
    if kind == "tiff":
        return _load_tiff(data, request, name, limits)
    if kind == "jpeg":
        data = with_end_marker(data, name, limits)
    elif kind in ("ico", "cur"):
        data, kind = with_true_depths(data), "ico"
    elif kind == "gif":
        refuse_without_colours(data, name)
    elif kind in ENDS:
        refuse_without_end(data, kind, name)
    image = pillow.open_image(data, kind, name)
    pillow.check_size(image, limits, name)
    if kind == "tga" and not has_alpha(data):
        image = pillow.without_alpha(image, kind, name)
    elif kind == "gif":
        pillow.fill_background(image, name)
    loaded = _load_image(image, kind, request, name, limits)
    if kind == "jpeg":
        refuse_grey_end(image, data, name, limits)
    return loaded


def _load_png(data: bytes, request: Request, name: str, limits: Limits) -> Loaded:
    png = parse_png(data, name, limits)
    orientation = png.orientation if request.apply_exif else 1
    stored: Image.Image | Stored
    if is_deep_colour(png):
        stored = read_deep(png, name, limits, request.value_range)
    else:
        image = pillow.open_image(png.data, "png", name)
        stored = pillow.decode_image(image, "png", name, request.value_range)
    return _loaded(stored, orientation, request, name)


def _load_tiff(data: bytes, request: Request, name: str, limits: Limits) -> Loaded:
    tiff = parse_tiff(data, name, limits)
    if not is_ordinary(tiff):
        from patchword.images.tiff_pixels import read_tiff  # Pillow's TIFF plugin takes 10 ms to import

        stored = read_tiff(data, tiff, name, limits, request.value_range)
        return _loaded(stored, tiff.orientation if request.apply_exif else 1, request, name)
    if tiff.samples > 4:
        raise wrong_channels(name, tiff.samples, request.channels)
    # Pillow itself turns a TIFF upright while loading it.
    return _load_image(pillow.open_image(data, "tiff", name), "tiff", request, name, limits)


def _load_image(image: Image.Image, kind: str, request: Request, name: str, limits: Limits) -> Loaded:
    pillow.check_size(image, limits, name)
    if kind != "jpeg":
        pillow.load(image, kind, name)  # the EXIF of a PNG may come after its pixels
    orientation = _orientation(image) if request.apply_exif and kind != "tiff" else 1
    width, height = image.size
    box = None
    if request.min_size is not None and kind == "jpeg":
        box = _draft(image, request.min_size, orientation)
    stored = pillow.decode_image(image, kind, name, request.value_range)
    loaded = _loaded(stored, orientation, request, name)
    if box is None:
        return loaded
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    return Loaded(picture=loaded.picture, size=size, box=box)


def _orientation(image: Image.Image) -> int:
    exif = image.info.get("exif")
    return read_orientation(exif) if isinstance(exif, bytes) else 1


def _draft(image: Image.Image, min_size: Callable[[Size], Size], orientation: int) -> Box | None:
    """Let libjpeg decode by 1/2, 1/4 or 1/8; the box of the complete image in what it will give, upright.

    None if nothing is gained."""
    width, height = image.size
    swapped = orientation in (5, 6, 7, 8)
    least = min_size((width, height) if swapped else (height, width))
    least_height, least_width = least[::-1] if swapped else least
    shrink = min(width // max(least_width, 1), height // max(least_height, 1))
    if shrink < 2 or image.draft(None, (width // shrink, height // shrink)) is None:
        return None
    scale = max(round(width / image.width), round(height / image.height))
    return _upright_box(width / scale, height / scale, image.size, orientation)


def _upright_box(width: float, height: float, stored: tuple[int, int], orientation: int) -> Box:
    """Decoding by 1/k rounds sides up, so the last column or row may lie half outside; where it goes when turned."""
    beyond_right, beyond_bottom = stored[0] - width, stored[1] - height
    left = beyond_right * (orientation in RIGHT_EDGE_LEFT) + beyond_bottom * (orientation in BOTTOM_EDGE_LEFT)
    top = beyond_right * (orientation in RIGHT_EDGE_TOP) + beyond_bottom * (orientation in BOTTOM_EDGE_TOP)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return (left, top, left + width, top + height)


def _loaded(stored: Image.Image | Stored, orientation: int, request: Request, name: str) -> Loaded:
    picture = to_channels(stored, request.channels, name)
    if isinstance(picture, Image.Image):
        picture = upright_image(picture, orientation)
        width, height = picture.size
    else:
        picture = upright_array(picture, orientation)
        height, width = picture.shape[:2]
    return Loaded(picture=picture, size=(height, width), box=(0.0, 0.0, float(width), float(height)))
