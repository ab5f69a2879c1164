"""EXIF orientation, read by hand: a broken block must mean "upright", never an error or a warning."""

import struct
from typing import Any

from numpy.typing import NDArray
from PIL import Image

_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Position of the stored right and bottom edges in the upright image.
RIGHT_EDGE_LEFT, RIGHT_EDGE_TOP = (2, 3), (7, 8)
BOTTOM_EDGE_LEFT, BOTTOM_EDGE_TOP = (6, 7), (3, 4)


def read_orientation(exif: bytes | None) -> int:
    """The orientation 1..8 in an EXIF block (with or without its "Exif" prefix); 1 if there is none."""
    if not exif:
        return 1
    block = exif[6:] if exif[:4] == b"Exif" else exif
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", block, entry)
            if tag == _TAG and number == 1 and kind in (3, 4):
                (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), block, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1  # the block points outside itself
    return 1


def upright_image(image: Image.Image, orientation: int) -> Image.Image:
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def upright_array(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The same turn for [H, W, C], as a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
