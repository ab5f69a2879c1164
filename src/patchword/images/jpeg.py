"""JPEG: whether all pixels are in the file. libjpeg silently fills missing pixels with grey."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.errors import ImageError
from patchword.images import pillow
from patchword.images.limits import Limits

_END = b"\xff\xd9"
# Coded data that would go on differently, were a part of the image still to come.
_TRIALS = (b"\x55" * 64, b"\xa9" * 64)
# A download that was given its place on the disk in advance ends in zeros, which decode to something.
_ZEROS = bytes(64)
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)


def with_end_marker(data: bytes, name: str, limits: Limits) -> bytes:
    """The file as it is, or with the end marker that it lacks when nothing else is missing.

    Downloads that lack only their last bytes are common. Pillow refuses them; adding the marker blindly
    would let any truncated file pass, half of it grey.
    """
    if _END in data[-4096:] or not _is_sequential(data):
        return data
    if data.endswith(_ZEROS):
        data = data.rstrip(b"\0")
        if data.endswith(_END):
            return data
    data = data.removesuffix(_END[:1])  # half of the marker may be there
    try:
        return data + _END if _is_whole(data, name, limits) else data
    except ImageError:
        return data  # damaged in another way: normal decoding reports it


def refuse_grey_end(image: Image.Image, data: bytes, name: str, limits: Limits) -> None:
    """Raises ImageError if an end marker comes before the end of the pixels.

    image: as decoded, not turned. Its last pixel is then the grey of no data at all: only where it is that grey, which
    images may hold, is the file tried.
    """
    last = image.getpixel((image.width - 1, image.height - 1))
    if any(level not in (127, 128) for level in (last if isinstance(last, tuple) else (last,))):
        return
    try:
        is_whole = _is_whole(data[: data.rfind(_END)], name, limits)
    except ImageError:
        return  # what follows the marker is not for the decoder
    if not is_whole:
        raise ImageError(
            f"{name}: the JPEG file is truncated (its last pixels are missing)", "download it again"
        )


def _is_whole(data: bytes, name: str, limits: Limits) -> bool:
    """Of a file up to its end marker. A decoder that has all its blocks ignores further data, so different bytes
    must not change a pixel; and a decoder that waits for a restart marker passes by all else.
    """
    if not _has_all_restarts(data):
        return False
    data = data.rstrip(_END[:1])  # with it the trial would begin as a marker does
    first, second = (_pixels(data + trial + _END, name, limits) for trial in _TRIALS)
    return np.array_equal(first, second)


def _pixels(data: bytes, name: str, limits: Limits) -> NDArray[Any]:
    image = pillow.open_image(data, "jpeg", name)
    pillow.check_size(image, limits, name)
    with pillow.translated(name, "jpeg"):
        return np.asarray(image)


def _is_sequential(data: bytes) -> bool:
    """One scan: a progressive file cut between two scans looks complete but is not."""
    return b"\xff\xc2" not in data and data.count(b"\xff\xda") == 1


def _has_all_restarts(data: bytes) -> bool:
    """Whether a file of one scan has the restart markers that its interval asks for; others are not judged."""
    interval, units, position = 0, 0, 2
    try:
        while True:
            marker, length = struct.unpack_from(">HH", data, position)
            if marker == 0xFFDD:
                (interval,) = struct.unpack_from(">H", data, position + 4)
            elif marker & 0xFF in _FRAMES and marker >> 8 == 0xFF:
                units = _units(data, position + 5)
            elif marker == 0xFFDA:
                break
            elif marker == 0xFFFF:
                length = -1  # a filling byte
            position += 2 + length
    except (struct.error, ZeroDivisionError):
        return True
    if not interval or not _is_sequential(data):
        return True
    found = sum(data.count(bytes([0xFF, 0xD0 + i]), position) for i in range(8))
    return found >= -(-units // interval) - 1


def _units(data: bytes, position: int) -> int:
    """How many blocks of all components together (MCUs) a frame has."""
    height, width, components = struct.unpack_from(">HHB", data, position)
    factors = [data[position + 6 + 3 * i] for i in range(components)]
    across, down = max(f >> 4 for f in factors), max(f & 15 for f in factors)
    if components == 1:
        across = down = 1
    return int(-(-width // (8 * across)) * -(-height // (8 * down)))
