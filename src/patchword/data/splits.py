"""Splitting a data set in two, the same way for the same seed."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from patchword.data.dataset import Dataset, Split

HELD_OUT = 0.2


def stratified(
    labels: NDArray[np.int64], seed: int, share: float = HELD_OUT
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and indices held out, in ascending order.

    Of each class `share` is held out, rounded, at least one image and never all; the one
    image of a class that has no other stays in training.
    """
    drawn = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(labels):
        members = drawn.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held.extend(members[:count].tolist())
    mask = np.zeros(len(labels), dtype=bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def split_in_two(whole: Split, seed: int) -> dict[str, Split]:
    """`whole` as "train" and "val", 80/20 by class."""
    train, held = stratified(whole.labels, seed)
    return {"train": whole.subset(train, "train"), "val": whole.subset(held, "val")}


def file_list_sha256(dataset: Dataset) -> str:
    """A fingerprint of what is in which split under which class; image contents are not read."""
    digest = hashlib.sha256()
    for split in dataset.splits.values():
        for name, label in zip(split.names, split.labels.tolist(), strict=True):
            digest.update(
                f"{split.name}\0{name}\0{dataset.classes[label]}\n".encode("utf-8", "surrogatepass")
            )
    return digest.hexdigest()
