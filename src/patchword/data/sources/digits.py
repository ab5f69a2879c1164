"""The built-in data set: scikit-learn's 1,797 scans of handwritten digits, 8 × 8, grey.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository
(its test part), as shipped with scikit-learn.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Split
from patchword.data.request import OpenRequest

DESCRIPTION = "digits (built in)"
# Fixed, so that everybody's test images are the same 360.
TEST_SHARE, SEED = 0.2, 0
LEVELS = 16


class Scans:
    """The scans as [8, 8, 1] uint8; loaded when the first is asked for, also after unpickling."""

    def __call__(self, row: int) -> NDArray[np.uint8]:
        scan: NDArray[np.uint8] = _scans()[0][row]
        return scan


@functools.cache
def _scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.rint(digits.images * (255 / LEVELS)).astype(np.uint8)
    return levels[..., None], digits.target.astype(np.int64)


def recognises(path: str) -> bool:
    # A folder of that name is meant when it is written as a path.
    return path == "digits" and not Path("digits").is_dir()


def read(path: str, request: OpenRequest) -> Dataset:
    """Always the same stratified split: 1,437 scans to train on, 360 to test."""
    from sklearn.model_selection import train_test_split

    labels = _scans()[1]
    everything = np.arange(len(labels))
    train, test = train_test_split(everything, test_size=TEST_SHARE, random_state=SEED, stratify=labels)
    return Dataset(
        path=path,
        kind="digits",
        classes=tuple(str(digit) for digit in range(10)),
        splits={"train": _split("train", train, labels), "test": _split("test", test, labels)},
    )


def _split(name: str, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Split:
    ordered = np.sort(rows)
    names = tuple(f"digits/{row}" for row in ordered)
    return Split(name=name, names=names, labels=labels[ordered], reader=Scans(), rows=ordered)
