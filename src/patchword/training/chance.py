"""Random numbers as a pure function of (seed, epoch, image): a run that is stopped and resumed draws the same ones.

Nothing here has a state to save. The numbers of an image depend neither on its batch, nor on the number of processes or
micro-batches, nor on what was drawn for other images.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The increment and the multipliers of SplitMix64.
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def seed_of(*parts: Any) -> int:
    """A number from 0 to 2**63 - 1 that depends on every part."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Draws:
    """Random numbers for each image of a batch, from a stream of their own.

    Source of the generator: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64),
    used as a hash of a counter.
    """

    def __init__(self, seed: int, epoch: int, samples: NDArray[np.int64]) -> None:
        """samples [B]: the number of each image in the data set (with repeated augmentation, of each of its copies)."""
        self._seed, self._epoch, self.samples = seed, epoch, np.asarray(samples, np.int64)
        start = np.uint64(seed_of(seed, epoch))
        self._keys = _mixed(start + _mixed(self.samples.astype(np.uint64)))
        self._drawn = 0

    def __len__(self) -> int:
        return len(self.samples)

    def uniform(self, *shape: int) -> Tensor:
        """[B, *shape] float32 on the CPU, from 0 to below 1; the next ones at each call."""
        count = int(np.prod(shape, dtype=np.int64))
        counters = np.arange(self._drawn + 1, self._drawn + count + 1, dtype=np.uint64)
        self._drawn += count
        bits = _mixed(self._keys[:, None] + counters * np.uint64(_STEP))
        # The 24 bits that a float32 below 1 holds exactly.
        values = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return torch.from_numpy(values.reshape(len(self.samples), *shape))

    def stream(self, name: str) -> "Draws":
        """An independent stream for the same images, so that a part which draws more does not shift another."""
        return Draws(seed_of(self._seed, name), self._epoch, self.samples)

    def part(self, rows: slice | NDArray[np.int64]) -> "Draws":
        """The draws of some of the images, from the beginning of the stream."""
        return Draws(self._seed, self._epoch, self.samples[rows])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))
