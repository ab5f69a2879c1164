"""Size and EXIF orientation of image files, by their headers."""

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from patchword.data.dataset import Reader
from patchword.data.pool import in_order
from patchword.errors import ImageError
from patchword.images.decode import decode
from patchword.images.geometry import Size
from patchword.images.orientation import read_orientation

_THREADS = 4
TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """size: (h, w) of the upright image. orientation: 1 to 8, as in EXIF. reason: why the file cannot be read."""

    size: Size
    orientation: int = 1
    reason: str = ""

    @property
    def stored(self) -> Size:
        """(h, w) as the pixels lie in the file."""
        return self.size[::-1] if self.orientation in TURNED else self.size


def headers(reader: Reader, names: Sequence[str]) -> list[Header]:
    def work(row: int) -> Header:
        return _header(reader, row, names[row])

    return list(in_order(work, range(len(names)), _THREADS, 16 * _THREADS))


def _header(reader: Reader, row: int, name: str) -> Header:
    try:
        source = reader(row)
        found = _by_pillow(source)
        if found is not None:
            return found
        # Arrays and the deep formats that Pillow does not open.
        pixels = decode(source, name=name)
        return Header((pixels.shape[0], pixels.shape[1]))
    except ImageError as error:
        return Header((0, 0), 1, error.about(name))
    except OSError as error:
        return Header((0, 0), 1, error.strerror or str(error))


def _by_pillow(source: object) -> Header | None:
    if not isinstance(source, bytes | str | os.PathLike):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                width, height = image.size
                exif = image.info.get("exif")
                orientation = read_orientation(exif) if isinstance(exif, bytes) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Header((width, height) if orientation in TURNED else (height, width), orientation)


def sizes_of(found: Sequence[Header]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """[N, 2] (h, w), upright."""
    return np.array([header.size for header in found], dtype=np.int64).reshape(-1, 2)
