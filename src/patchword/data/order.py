"""The order of the training images: a pure function of the seed and the epoch, so that a run resumes at any step."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Part = Callable[[int], slice]


def steps_in(n: int, batch: int) -> int:
    """Number of full batches of `n` images; an incomplete one is dropped unless it is the only one."""
    return max(n // batch, 1)


def order(
    n: int,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    *,
    part: Part | None = None,
    repeats: int = 1,
    weights: NDArray[np.float64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Yield the sample numbers of each global step from step `start` on: int64, those of this process.

    A sample number is `index + copy * n`: the image is `number % n`, and each copy has random numbers of its own.

    part: which positions of a global batch of a given length this process takes; None takes all.
    repeats: copies of each image in a batch (Hoffer et al. 2020, "Augment your batch"; the repeated augmentation of
        DeiT). An epoch keeps its number of steps, so it contains n / repeats different images, as in DeiT. Copies are
        far apart in their batch: first one copy of every image, then the next. The images of the copies are rotated by one
        place, so that an image is never mixed with itself, and with as many processes as copies each has one.
    weights [n]: draw images with replacement, in proportion to these. The k-th draw of an image in an epoch is its copy k.
    """
    steps, size = steps_in(n, batch), min(batch, n)
    distinct = -(-size // repeats)
    chance = np.random.default_rng((seed, epoch))
    if weights is None:
        images = chance.permutation(n)[: steps * distinct]
    else:
        images = chance.choice(n, steps * distinct, p=np.asarray(weights, np.float64) / np.sum(weights))
    places = np.concatenate([np.roll(np.arange(distinct), -copy) for copy in range(repeats)])[:size]
    laid_out = images.reshape(steps, distinct)[:, places]
    if weights is None:
        samples = laid_out + n * (np.arange(size) // distinct)
    else:
        samples = laid_out + n * _times_before(laid_out.ravel()).reshape(laid_out.shape)
    mine = slice(None) if part is None else part(size)
    for step in range(start, steps):
        yield samples[step, mine]


def _times_before(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value occurs earlier in the array."""
    ranks = np.empty(len(values), np.int64)
    by_value = np.argsort(values, kind="stable")
    ordered = values[by_value]
    first = np.searchsorted(ordered, ordered)
    ranks[by_value] = np.arange(len(values)) - first
    return ranks
