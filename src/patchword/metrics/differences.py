"""Differences between trained models: intervals over seeds and over images, corrections, and what can be seen at all.

Scores are shares, at most 1, and so are differences. Two sources of chance are kept apart, because they shrink with different numbers:
seeds (another initialisation, order and augmentation) and images (another test set of the same kind).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Enough for the second digit of a p-value of 0.01, as corrected for five comparisons.
RESAMPLES = 20_000
# Where each sample costs more: of images whose differences are all different, and of scores that are no mean over images.
FEWER_RESAMPLES = 2_000
# More different values than that are drawn image by image.
_FEW_VALUES = 200
_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference, its 95 % interval, and the two-sided p-value against no difference. method: in words."""

    mean: float
    low: float
    high: float
    p: float
    method: str

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero and the p-value is below 0.05."""
        return (self.low > 0 or self.high < 0) and self.p < 0.05


def paired_t(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The mean of second - first over pairs, by Student's t with one degree of freedom less than pairs.

    Equal differences in every pair have an interval of width zero; their p-value is 0, or 1 if they are zero.
    Raises: ValueError for fewer than two pairs.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"a paired interval needs two pairs, not {len(first)} and {len(second)} values")
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    return _by_t(float(np.mean(differences)), error, len(differences) - 1, "paired t")


def welch_t(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of the means of two samples that are not paired (Welch 1947). Raises: ValueError for samples below two."""
    if min(len(first), len(second)) < 2:
        raise ValueError(f"Welch's interval needs two values each, not {len(first)} and {len(second)}")
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
    mean = float(np.mean(second)) - float(np.mean(first))
    spread = sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    freedom = sum(parts) ** 2 / spread if spread else float(len(first) + len(second) - 2)
    return _by_t(mean, math.sqrt(sum(parts)), freedom, "Welch's t, not paired")


def _by_t(mean: float, error: float, freedom: float, method: str) -> Difference:
    from scipy.special import stdtr

    if error <= 1e-12 * max(abs(mean), 1e-12):
        return Difference(mean=mean, low=mean, high=mean, p=0.0 if abs(mean) > 1e-12 else 1.0, method=method)
    half = t_quantile(freedom) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error))
    return Difference(mean=mean, low=mean - half, high=mean + half, p=p, method=method)


def t_quantile(freedom: float, alpha: float = 0.05) -> float:
    """The two-sided quantile of Student's t: 2.78 for four degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha / 2))


def over_images(first: Floats, second: Floats, *, seed: int = 0) -> Difference:
    """The mean of second - first over images, as if other images had been drawn.

    first, second [R, N]: whether each of R paired runs classifies each of N images correctly. One run each: the exact McNemar
    test, with the interval of Clopper and Pearson for the share of changed answers that improve. Several: a bootstrap of the images
    (percentiles of 20,000 resamples) and a test that flips signs, each image with the mean over its runs, which leaves the seeds as they are.
    Raises: ValueError for arrays of other shapes or without images.
    """
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or not first.shape[1]:
        raise ValueError(f"answers of shapes {first.shape} and {second.shape} cannot be compared")
    if len(first) == len(second) == 1:
        return mcnemar(first[0], second[0])
    return bootstrap(second.mean(axis=0) - first.mean(axis=0), seed=seed)


def mcnemar(first: Floats, second: Floats) -> Difference:
    """The exact McNemar test of two models on the same images, first and second [N] of 0 and 1.

    Source: McNemar 1947; interval: Clopper and Pearson 1934 for the share that improves, among the answers that differ.
    """
    from scipy.special import bdtr, betaincinv

    images = len(first)
    better, worse = int(((second == 1) & (first == 0)).sum()), int(((second == 0) & (first == 1)).sum())
    changed = better + worse
    if not changed:
        return _nothing_changed(images, "exact McNemar")
    p = min(1.0, 2 * float(bdtr(min(better, worse), changed, 0.5)))
    low = 0.0 if not better else float(betaincinv(better, worse + 1, 0.025))
    high = 1.0 if not worse else float(betaincinv(better + 1, worse, 0.975))
    scale = changed / images
    return Difference(
        mean=(better - worse) / images,
        low=(2 * low - 1) * scale,
        high=(2 * high - 1) * scale,
        p=p,
        method="exact McNemar",
    )


def bootstrap(differences: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """The mean of `differences` [N] and its 95 % percentile interval over resampled images (Efron 1979).

    The p-value is that of flipping signs: without a difference, each image could as well have favoured the other. Where few images
    differ, it is larger than the share of resamples beyond zero, and for one run each it is McNemar's.
    Differences of k runs take at most 2k + 1 values, so resamples are drawn as counts of each value. Of differences that are
    nearly all different, 2,000 samples are drawn.
    """
    values, counts = np.unique(np.round(differences, 12), return_counts=True)
    images = len(differences)
    if len(values) == 1 and values[0] == 0:
        return _nothing_changed(images, "paired bootstrap")
    chance = np.random.default_rng(seed)
    if len(values) > _FEW_VALUES:
        return _image_by_image(differences, chance, min(resamples, FEWER_RESAMPLES))
    drawn = chance.multinomial(images, counts / images, size=resamples)
    means = drawn @ values / images
    low, high = (float(q) for q in np.quantile(means, (0.025, 0.975)))
    sizes, owner = np.unique(np.abs(values), return_inverse=True)
    together = np.bincount(owner, weights=counts).astype(np.int64)
    flipped = (2 * chance.binomial(together, 0.5, size=(resamples, len(sizes))) - together) @ sizes / images
    extreme = int((np.abs(flipped) >= abs(float(values @ counts)) / images - 1e-12).sum())
    return Difference(
        mean=float(np.mean(differences)),
        low=low,
        high=high,
        p=(extreme + 1) / (resamples + 1),
        method="paired bootstrap",
    )


def _image_by_image(differences: Floats, chance: np.random.Generator, resamples: int) -> Difference:
    """The bootstrap of differences that are nearly all different."""
    images, whole = len(differences), float(np.mean(differences))
    means, flipped = [], []
    for low in range(0, resamples, size := max(_AT_ONCE // images, 1)):
        count = min(size, resamples - low)
        means.append(differences[chance.integers(0, images, (count, images))].mean(axis=1))
        flipped.append((2 * chance.integers(0, 2, (count, images)) - 1) @ differences / images)
    low_end, high_end = (float(q) for q in np.quantile(np.concatenate(means), (0.025, 0.975)))
    extreme = int((np.abs(np.concatenate(flipped)) >= abs(whole) - 1e-12).sum())
    return Difference(
        mean=whole, low=low_end, high=high_end, p=(extreme + 1) / (resamples + 1), method="paired bootstrap"
    )


def of_samples(mean: float, differences: Floats, images: int) -> Difference:
    """A difference of scores that are no mean over images, such as average precision.

    mean: on the images themselves; differences [R]: on bootstrap samples of them, both models on the same samples; NaN counts for
    none. The p-value is twice the share of samples on the other side of zero (Efron and Tibshirani 1993, chapter 15).
    """
    there = differences[~np.isnan(differences)]
    if not len(there) or not there.any():
        return _nothing_changed(images, "paired bootstrap")
    low, high = (float(q) for q in np.quantile(there, (0.025, 0.975)))
    beyond = min(int((there <= 0).sum()), int((there >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(there) + 1))
    return Difference(mean=mean, low=low, high=high, p=p, method="paired bootstrap")


def _nothing_changed(images: int, method: str) -> Difference:
    """No answer differs: as many as 1 - 0.025^(1/N) of other images could."""
    half = 1 - 0.025 ** (1 / images)
    return Difference(mean=0.0, low=-half, high=half, p=1.0, method=method)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order: each may be compared with 0.05 (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = highest
    return corrected


@dataclass(frozen=True, kw_only=True)
class Power:
    """The smallest differences that a comparison decides, as shares. seeds: None for a single seed, which decides none.

    spread: standard deviation over seeds of the paired differences; changed: share of answers that differ between two models. Both
    are assumed before the first run, or None where nothing can be assumed; `seeds` and `images` are then None too. widths: the
    half-width over seeds in such standard deviations, None for a single seed. comparisons: how many are made, which Bonferroni's
    first step allows for.
    """

    num_seeds: int
    num_images: int
    comparisons: int
    spread: float | None
    changed: float | None
    seeds: float | None
    images: float | None
    widths: float | None

    @property
    def undecided_below(self) -> float | None:
        """Smaller differences stay undecided, because one of the two intervals then includes zero."""
        return None if self.seeds is None or self.images is None else max(self.seeds, self.images)


def power(
    num_seeds: int, num_images: int, comparisons: int, spread: float | None, changed: float | None
) -> Power:
    """What can be seen with so many paired seeds and images. changed: None where it does not say what the images can change."""
    alpha = 0.05 / max(comparisons, 1)
    widths = None if num_seeds < 2 else t_quantile(num_seeds - 1, alpha) / math.sqrt(num_seeds)
    return Power(
        num_seeds=num_seeds,
        num_images=num_images,
        comparisons=comparisons,
        spread=spread,
        changed=changed,
        seeds=None if widths is None or spread is None else widths * spread,
        images=None if changed is None else normal_quantile(comparisons) * math.sqrt(changed / num_images),
        widths=widths,
    )


def normal_quantile(comparisons: int) -> float:
    """The two-sided quantile of the normal distribution at 0.05, shared between so many comparisons."""
    from scipy.special import ndtri

    return float(ndtri(1 - 0.025 / max(comparisons, 1)))


def chance_to_see(true: float, spread: float, seeds: int, alpha: float = 0.05) -> float:
    """The probability that the interval over `seeds` paired seeds excludes zero, if the true difference is `true`."""
    from scipy.special import nctdtr

    if seeds < 2 or spread <= 0:
        return 0.0 if seeds < 2 else float(true != 0)
    quantile, centre = t_quantile(seeds - 1, alpha), abs(true) / spread * math.sqrt(seeds)
    return 1 - float(nctdtr(seeds - 1, centre, quantile)) + float(nctdtr(seeds - 1, centre, -quantile))


def seeds_needed(mean: float, spread: float, alpha: float = 0.05, most: int = 100) -> int | None:
    """The fewest paired seeds whose interval would exclude zero at this mean and spread; None if more than `most`."""
    enough = (k for k in range(2, most + 1) if t_quantile(k - 1, alpha) * spread / math.sqrt(k) < abs(mean))
    return next(enough, None)
