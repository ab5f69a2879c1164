"""Hold out images such that each keeps its side when others are added or removed."""

import hashlib
import re
import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from patchword.data.contents import equal_files, hashes_of
from patchword.data.dataset import Dataset, Split
from patchword.data.targets import Labels, Targets

HELD_OUT = 0.2
# Blocks are short: numbers at a regular distance could otherwise all fall on one side.
BLOCK = 64
_GOLDEN = round(2**56 * (5**0.5 - 1) / 2)
# The last number of the file's name, before an ending without a digit or one such as .mp4.
_NUMBER = re.compile(r"\d+(?=\D*(?:\.\w+)?$)(?![^/]*/)", re.ASCII)


def place_of(key: str, seed: int) -> float:
    """A number in 0..1 that looks random and that only (key, seed) decides.

    Numbered files are spread evenly: within a block of consecutive numbers each place is the one before plus the
    golden ratio (Weyl's sequence), so that a class of 40 files holds out 8 or so, where a hash alone may hold out 16.
    é as one character or as two is the same name: file systems and zip programs change it.
    """
    name = unicodedata.normalize("NFC", key)
    step, found = 0, _NUMBER.search(name)
    if found is not None:
        block, step = divmod(int(found[0]), BLOCK)
        name = f"{name[: found.start()]}\0{block}\0{name[found.end() :]}"
    digest = hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return (int.from_bytes(digest, "big") + step * _GOLDEN) % 2**56 / 2**56


def held_out(
    labels: NDArray[np.int64] | Targets,
    keys: Sequence[str],
    seed: int,
    *,
    contents: Sequence[Hashable] | None = None,
    share: float = HELD_OUT,
) -> NDArray[np.bool_]:
    """Which images are held out of training: those whose key's place is below `share`.

    labels: a class for each image [N], or any targets. keys: names; images with the same key are on one side. contents: images that share one are copies and are on
    one side, held out only if every copy's key would be.

    A class with two or more images (copies counted once) has some on both sides: where chance leaves one side
    empty, the image with the lowest place is held out, or the one with the highest is trained on. An image that
    stands under two classes may then be trained on although it was the only one held out of a class.

    An image's side depends on its own name, but for that rule. So:
    - Adding images never moves one from training to the held-out side, if its class had two images before and one
      of them a place of at least `share` (all but 0.2**n of the classes of n images). A new copy of the only
      image held out of a class is the other exception.
    - Removing images moves one to the held-out side only if its class has lost all its held-out images, or a copy.
    """
    places = np.array([place_of(key, seed) for key in keys], dtype=np.float64)
    groups = None if contents is None else np.unique(_numbered(contents), return_inverse=True)[1]
    if groups is not None and len(groups):
        highest = np.zeros(groups.max() + 1)
        np.maximum.at(highest, groups, places)
        places = highest[groups]
    held = places < share
    strata = (Labels(labels) if isinstance(labels, np.ndarray) else labels).strata()
    for members in strata:
        there = np.unique(places[members])
        if len(there) > 1 and not held[members].any():
            held[members] = places[members] == there[0]
    # An image of several classes may be the last of one and the first of another: to train on a class comes first.
    for members in strata:
        there = np.unique(places[members])
        if len(there) < 2:
            held[members] = False
        elif held[members].all():
            held[members] = places[members] < there[-1]
    if groups is not None and len(groups):
        trained = np.zeros(groups.max() + 1, dtype=bool)
        trained[groups[~held]] = True
        held &= ~trained[groups]
    return held


def joined(*columns: Sequence[Hashable | None]) -> NDArray[np.int64]:
    """[N]: a number for each image, equal for images that share a value in any column, directly or through others.

    None is shared with nothing.
    """
    parent = list(range(len(columns[0])))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for column in columns:
        first: dict[Hashable, int] = {}
        for index, value in enumerate(column):
            if value is not None:
                parent[root(index)] = root(first.setdefault(value, index))
    roots = [root(index) for index in range(len(parent))]
    return np.unique(np.array(roots, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def _numbered(contents: Sequence[Hashable]) -> NDArray[np.int64]:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(content, len(number)) for content in contents], dtype=np.int64)


def split_in_two(whole: Split, seed: int, keys: Sequence[str] | None = None) -> dict[str, Split]:
    """Split `whole` into "train" and "val", about 80/20 in every class, by the rules of `held_out`.

    keys: a name for each image that moving or zipping the data does not change; None places the images by their
    content, for those that have no name. Images of one group are on one side, which the group's name decides.
    """
    contents: Sequence[Hashable] | None = None
    if keys is None:
        found = hashes_of(whole)
        keys = [name if h is None else h.hex() for name, h in zip(whole.names, found, strict=True)]
    else:
        contents = equal_files(whole)
    if whole.groups is not None:
        groups = [group or None for group in whole.groups]
        contents = joined(keys if contents is None else contents, groups).tolist()
        keys = [group or key for group, key in zip(whole.groups, keys, strict=True)]
    mask = held_out(whole.targets, keys, seed, contents=contents)
    return {
        "train": whole.subset(np.flatnonzero(~mask), "train"),
        "val": whole.subset(np.flatnonzero(mask), "val"),
    }


def file_list_sha256(dataset: Dataset) -> str:
    """A fingerprint of what is in which split under which class; image contents are not read."""
    digest = hashlib.sha256()
    for split in dataset.splits.values():
        for i, name in enumerate(split.names):
            target = split.targets.text(i, dataset.classes)
            digest.update(f"{split.name}\0{name}\0{target}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
