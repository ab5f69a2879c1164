"""The built-in data set: scikit-learn's 1,797 scans of handwritten digits, 8 × 8, grey.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository
(its test part), as shipped with scikit-learn.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Split
from patchword.data.request import OpenRequest, refuse_folder_options, refuse_table_options
from patchword.data.targets import Labels

DESCRIPTION = "digits (built in)"
LEVELS = 16
# The 360 test scans, one bit per scan, so that the split is the same for everyone: scikit-learn's
# train_test_split(test_size=0.2, random_state=0, stratify=labels).
TESTED = bytes.fromhex(
    "000004883524104000064100934205001a00080100240028062c12001000940a009019120420f8a0028110a000080a882044"
    "1524494240a00a0000004004d80000818020004805c400104008a0100005404800301000020ec409000224840083a8013c20"
    "a6980a0000000b08400804a0184802024041c1008004404684376a810216004480004042a0a4180a5000840b8561c6081080"
    "08004c80c02004068e00010882008100380803c008190000100e01008410a0210033282904c044c080680e01028300820088"
    "22a6402c24042108a860809081a00c02820242120138a41500"
)


class Scans:
    """The scans as [8, 8, 1] uint8; loaded when the first is asked for, also after unpickling."""

    def __call__(self, row: int) -> NDArray[np.uint8]:
        scan: NDArray[np.uint8] = _scans()[0][row]
        return scan


@functools.cache
def _scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels, labels = _table()
    levels = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / LEVELS)).astype(np.uint8)
    return levels, labels.astype(np.int64)


def _table() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels [1797, 64] and labels. From the file itself where it can be seen: importing scikit-learn takes seconds."""
    spec = importlib.util.find_spec("sklearn")
    file = Path(spec.origin if spec and spec.origin else "").parent / "datasets/data/digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.data, digits.target


def recognises(path: str) -> bool:
    # A folder of this name takes precedence.
    return path == "digits" and not Path("digits").is_dir()


def read(path: str, request: OpenRequest) -> Dataset:
    """Always the same stratified split: 1,437 scans to train on, 360 to test."""
    refuse_table_options(request, "digits is built in")
    refuse_folder_options(request, "digits is built in")
    labels = _scans()[1]
    tested = np.unpackbits(np.frombuffer(TESTED, np.uint8), count=len(labels)).astype(bool)
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    return Dataset(
        path=path,
        kind="digits",
        classes=tuple(str(digit) for digit in range(10)),
        splits={"train": _split("train", train, labels), "test": _split("test", test, labels)},
    )


def _split(name: str, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Split:
    names = tuple(f"digits/{row}" for row in rows)
    return Split(name=name, names=names, targets=Labels(labels[rows]), reader=Scans(), rows=rows)
