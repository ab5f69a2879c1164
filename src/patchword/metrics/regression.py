"""Scores of models that predict numbers, as pure functions on arrays.

Shapes: N images, T numbers for each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import Floats

REPEATS = 1000
# At most this many values are drawn at once.
_AT_ONCE = 4_000_000
_LOW, _HIGH = 2.5, 97.5
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class NumberScore:
    """Errors of one number, in its own unit, each with its 95 % interval from bootstrap samples of the images.

    mae: the mean of |p - y|. rmse: the root of the mean of (p - y)². r2: 1 - Σ(p - y)² / Σ(y - ȳ)², which is 0 for
    always predicting the mean ȳ of these images; None if all y are equal.
    """

    images: int
    mae: float
    mae_interval: Interval
    rmse: float
    rmse_interval: Interval
    r2: float | None
    r2_interval: Interval | None


def number_scores(
    predicted: Floats, truth: Floats, *, repeats: int = REPEATS, seed: int = 0
) -> list[NumberScore]:
    """One score for each of the T columns. predicted, truth [N, T].

    Raises: ValueError if the shapes differ, there are no images, or a value is not finite.
    """
    if predicted.shape != truth.shape or truth.ndim != 2 or not len(truth):
        raise ValueError(f"shapes {predicted.shape} and {truth.shape} must be the same [N, T] with N above 0")
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError("a value is NaN or infinite")
    pairs = zip(predicted.T.astype(np.float64), truth.T.astype(np.float64), strict=True)
    return [_score(p, y, repeats, seed) for p, y in pairs]


def _score(p: NDArray[np.float64], y: NDArray[np.float64], repeats: int, seed: int) -> NumberScore:
    rng, n = np.random.default_rng(seed), len(y)
    # Centred, so that large values such as years lose no digits.
    errors, centred = p - y, y - y.mean()
    parts = []
    done, size = 0, max(_AT_ONCE // n, 1)
    while done < repeats:
        rows = rng.integers(0, n, (min(size, repeats - done), n))
        parts.append(_statistics(errors[rows], centred[rows]))
        done += len(rows)
    whole = _statistics(errors[None], centred[None])[:, 0]
    drawn = np.concatenate(parts, axis=1) if parts else whole[:, None]
    mae, rmse, r2 = (_interval(values) for values in drawn)
    known = bool(np.isfinite(whole[2]))
    return NumberScore(
        images=n,
        mae=float(whole[0]),
        mae_interval=mae or (float(whole[0]),) * 2,
        rmse=float(whole[1]),
        rmse_interval=rmse or (float(whole[1]),) * 2,
        r2=float(whole[2]) if known else None,
        r2_interval=r2 if known else None,
    )


def _statistics(errors: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """errors, y [R, N] → MAE, RMSE and R² [3, R]; R² is NaN if all y are equal."""
    squares = (errors**2).mean(axis=1)
    variance = y.var(axis=1)
    constant = y.max(axis=1) == y.min(axis=1)
    r2 = np.where(constant, np.nan, 1 - squares / np.where(constant, 1.0, variance))
    return np.stack([np.abs(errors).mean(axis=1), np.sqrt(squares), r2])


def _interval(values: NDArray[np.float64]) -> Interval | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (_LOW, _HIGH))
    return float(low), float(high)
