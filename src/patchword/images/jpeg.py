"""JPEG: whether a file without its end marker still holds every pixel."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import ImageError
from patchword.images import pillow
from patchword.images.limits import Limits

_END = b"\xff\xd9"
# Coded data that would go on differently, were a part of the picture still to come.
_TRIALS = (b"\x55" * 64, b"\xa9" * 64)


def with_end_marker(data: bytes, name: str, limits: Limits) -> bytes:
    """The file as it is, or with the end marker that it lacks when nothing else is missing.

    Downloads of which only the last bytes are gone are common. Pillow refuses them; adding the marker blindly
    would let any cut-off file pass, half of it grey. A decoder that has all its blocks ignores further data, so
    different bytes before the marker must not change a pixel.
    """
    if _END in data[-4096:] or not _is_sequential(data):
        return data
    data = data.removesuffix(_END[:1])  # half of the marker may be there
    try:
        first, second = (_pixels(data + trial + _END, name, limits) for trial in _TRIALS)
    except ImageError:
        return data  # damaged otherwise: the plain route says how
    return data + _END if np.array_equal(first, second) else data


def _pixels(data: bytes, name: str, limits: Limits) -> NDArray[Any]:
    image = pillow.open_image(data, "jpeg", name)
    pillow.check_size(image, limits, name)
    with pillow.translated(name, "jpeg"):
        return np.asarray(image)


def _is_sequential(data: bytes) -> bool:
    """One scan: a progressive file cut between two scans looks whole, and is not."""
    return b"\xff\xc2" not in data and data.count(b"\xff\xda") == 1
