"""Photographs for tests without files in the repository: crops of scikit-learn's two."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images


@functools.cache
def photos(size: int = 96) -> NDArray[np.uint8]:
    """Every whole square of the two photographs (427 x 640) at half their size: [n, size, size, 3]."""
    found = []
    for pixels in load_sample_images().images:
        half = np.asarray(Image.fromarray(pixels).resize((320, 213), Image.Resampling.BOX))
        found += [
            half[top : top + size, left : left + size]
            for top in range(0, 213 - size + 1, size)
            for left in range(0, 320 - size + 1, size)
        ]
    return np.stack(found)


def write_photos(folder: Path, size: int = 96) -> list[Path]:
    """The same as PNG files in a flat folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:02}.png" for i in range(len(photos(size)))]
    for path, image in zip(paths, photos(size), strict=True):
        Image.fromarray(image).save(path)
    return paths
