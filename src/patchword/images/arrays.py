"""NumPy arrays and `.npy` files: the order of their axes, without unpickling."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Meaning, Stored, scaled, wrong_channels

_DESCR = re.compile(rb"'descr':\s*'[<>|=]?([A-Za-z?])\d{0,4}'")
# Possessive, and a comma after every number but the last: there is one way to read it, so matching never backtracks.
_SHAPE = re.compile(rb"'shape':\s*+\(\s*+((?:\d{1,18}+L?\s*+,\s*+){0,8}+(?:\d{1,18}+L?\s*+)?+)\)")
_FORTRAN = re.compile(rb"'fortran_order':\s*+True")
_LONGEST_HEADER = 10_000


def from_array(
    array: NDArray[Any], channels: int, name: str, limits: Limits, value_range: ValueRange | None
) -> Stored:
    """[H, W], [H, W, C] or [C, H, W] → Stored. Where both readings of three axes would do, channels are last."""
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: the array has dtype {array.dtype}, which is not numeric",
            "pass uint8, uint16 or float in 0..1",
        )
    hwc = _channels_last(array, channels, name)
    limits.check(hwc.shape[1], hwc.shape[0], hwc.shape[2], hwc.dtype.itemsize, name)
    pixels = np.ascontiguousarray(scaled(hwc, name, value_range))
    meaning: Meaning = "bands"
    if channels in (1, 3) and hwc.shape[2] in (1, 3):
        meaning = "grey" if hwc.shape[2] == 1 else "rgb"
    return Stored(pixels=pixels, meaning=meaning)


def _channels_last(array: NDArray[Any], channels: int, name: str) -> NDArray[Any]:
    if array.ndim == 2:
        hwc = array[..., None]
    elif array.ndim == 3:
        fitting = (1, 3) if channels in (1, 3) else (channels,)
        if array.shape[2] in fitting:
            hwc = array
        elif array.shape[0] in fitting:
            hwc = array.transpose(1, 2, 0)
        else:
            raise wrong_channels(name, min(array.shape[0], array.shape[2]), channels)
    else:
        raise ImageError(
            f"{name}: an array of shape {array.shape} is not one image",
            "pass one image of shape (h, w), (h, w, c) or (c, h, w)",
        )
    if 0 in hwc.shape:
        raise ImageError(f"{name}: an array of shape {array.shape} has no pixels", "remove it")
    return hwc


def read_npy(data: bytes, name: str, limits: Limits) -> NDArray[Any]:
    """The array of a `.npy` file. The header is checked before anything is allocated; nothing is unpickled.

    The header is a Python dict in text. It is matched, not evaluated: numpy's reader tokenizes it and can raise
    anything on a damaged one. Source: numpy.lib.format.
    """
    wide = data[6:7] > b"\1"  # the length of the header in 4 bytes instead of 2
    start = 12 if wide else 10
    length = int.from_bytes(data[8:start], "little")
    header = data[start : start + length]
    descr, shape = _DESCR.search(header), _SHAPE.search(header)
    if len(header) < length or length > _LONGEST_HEADER or shape is None:
        raise ImageError(
            f"{name}: the .npy header is damaged or truncated", "save the array again with numpy.save"
        )
    if descr is None or descr[1] == b"O":
        raise ImageError(
            f"{name}: the .npy file holds Python objects or records, not numbers (reading it could run pickled code)",
            "save plain numbers with numpy.save(..., allow_pickle=False)",
        )
    dtype = _dtype(descr[0].split(b"'")[-2].decode("latin-1"), name)
    sides = tuple(int(side) for side in re.findall(rb"\d+", shape[1]))
    count = math.prod(sides)
    start += length
    if len(data) - start < count * dtype.itemsize:
        raise ImageError(
            f"{name}: the file is truncated ({len(data)} bytes for an array of shape {sides})",
            "download it again",
        )
    limits.check_bytes(count * (dtype.itemsize + 4), name)
    flat = np.frombuffer(data, dtype, count=count, offset=start)
    array = flat.reshape(sides, order="F" if _FORTRAN.search(header) else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _dtype(descr: str, name: str) -> np.dtype[Any]:
    kind = descr.lstrip("<>|=")[0]
    try:
        if kind in "?biuf":
            return np.dtype(descr)
    except TypeError:
        pass
    raise ImageError(
        f"{name}: the .npy file has dtype {descr!r}, which is not numeric",
        "save uint8, uint16 or float in 0..1",
    )
