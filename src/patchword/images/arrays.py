"""NumPy arrays and `.npy` files: which axis is which, and never a pickle."""

import io
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.stored import Meaning, Stored, ValueRange, scaled, wrong_channels


def from_array(
    array: NDArray[Any], channels: int, name: str, limits: Limits, value_range: ValueRange | None
) -> Stored:
    """[H, W], [H, W, C] or [C, H, W] → Stored. Where both readings of three axes would do, channels are last."""
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"{name}: an array of {array.dtype}, not of numbers", "give uint8, uint16 or float 0..1"
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
            f"{name}: an array of shape {array.shape}",
            "give one picture of shape (h, w), (h, w, c) or (c, h, w)",
        )
    if 0 in hwc.shape:
        raise ImageError(f"{name}: an array of shape {array.shape} holds no pixels", "leave it out")
    return hwc


def read_npy(data: bytes, name: str, limits: Limits) -> NDArray[Any]:
    """The array of a `.npy` file. The header is checked before anything is allocated; nothing is unpickled."""
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ImageError(
            f"{name}: a .npy file with a damaged header", "write it again with numpy.save"
        ) from error
    if dtype.hasobject:
        raise ImageError(
            f"{name}: a .npy file of Python objects, whose reading would run its pickled code",
            "save plain numbers with numpy.save(..., allow_pickle=False)",
        )
    count = 1
    for side in shape:
        count *= int(side)
    start = file.tell()
    if count < 0 or dtype.itemsize == 0 or len(data) - start < count * dtype.itemsize:
        raise ImageError(
            f"{name}: the file is cut off ({len(data)} bytes for an array of {shape})", "get it again"
        )
    limits.check_bytes(count * (dtype.itemsize + 4), name)
    flat = np.frombuffer(data, dtype, count=count, offset=start)
    array = flat.reshape(shape, order="F" if fortran else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
