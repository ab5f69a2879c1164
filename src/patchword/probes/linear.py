"""A linear probe: multinomial logistic regression on standardised features, with the penalty chosen by cross-validation.

The protocol of Kornblith et al. 2019 (arXiv 1805.08974), with scikit-learn's L-BFGS. It is convex and starts from zero, so
it draws no random numbers.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword import metrics
from patchword.errors import DataError

Floats = NDArray[np.float64]

# L2 penalties of the mean loss, strongest first; four decades in half-decade steps.
PENALTIES = tuple(10.0 ** (-i / 2) for i in range(9))
FOLDS = 3
# With more images, the penalty is chosen on an even selection of this size.
_CHOSEN_ON = 10_000
_ITERATIONS, _TOLERANCE, _TOLERANCE_OF_FOLDS = 1000, 1e-5, 1e-3
# The search ends after this many penalties in a row with a higher loss.
_WORSE = 2
# Multiplications per pass over the features from which threads help.
_WORTH_THREADS = 100_000_000
# The bias of a class without training images: it is never predicted.
_NEVER = -1e4


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A linear head: logits = x @ weight.T + bias for features x [N, D] as they are.

    weight [C, D] and bias [C], float32. penalty: L2, of the mean loss, on standardised features. converged: whether the fit
    ended before its limit of iterations.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    penalty: float
    converged: bool

    def logits(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values @ self.weight.T + self.bias


def fit_linear(
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    penalty: float | None = None,
    weights: Floats | None = None,
    bias: bool = True,
) -> LinearProbe:
    """Fit a head to features values [N, D] with labels [N].

    penalty: None chooses it by folds inside these images. weights [N]: of each image, as for balanced classes; only their
    ratios matter. bias: without it, the logits are linear in the features. A class without images is never predicted.
    Raises: DataError if the images are of one class.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            "a probe needs training images of at least two classes, and these are of "
            + ("one" if len(present) else "none"),
            "add class folders, or choose other data",
        )
    wide = values.astype(np.float64)
    mean = wide.mean(axis=0) if bias else np.zeros(wide.shape[1])
    scale = np.sqrt(((wide - mean) ** 2).mean(axis=0))
    scale[scale <= 1e-6 * max(float(scale.max()), 1e-30)] = np.inf  # a constant feature tells nothing
    standard = (wide - mean) / scale
    index = np.searchsorted(present, labels)
    share = np.ones(len(labels)) if weights is None else weights * (len(labels) / weights.sum())
    if penalty is None:
        penalty = _chosen_penalty(standard, index, share, len(present), bias)
    weight, offset, converged = _fit(_model(bias, _TOLERANCE), standard, index, share, penalty)
    folded = weight / scale
    whole = np.zeros((num_classes, wide.shape[1]))
    biases = np.full(num_classes, _NEVER if bias else 0.0)
    whole[present], biases[present] = folded, offset - folded @ mean
    return LinearProbe(
        weight=whole.astype(np.float32),
        bias=biases.astype(np.float32),
        penalty=penalty,
        converged=converged,
    )


def _chosen_penalty(
    values: Floats, labels: NDArray[np.int64], share: Floats, count: int, bias: bool
) -> float:
    """The penalty with the lowest loss on held-out folds; the strongest of equal ones."""
    if len(labels) > _CHOSEN_ON:
        some = places_in_class(labels).argsort(kind="stable")[:_CHOSEN_ON]  # classes evenly
        values, labels, share = values[some], labels[some], share[some]
    fold = places_in_class(labels) % FOLDS
    # A class of one image is never held out: the rest could not learn it.
    fold[np.bincount(labels, minlength=count)[labels] == 1] = FOLDS
    splits = [(~out, out) for out in (fold == held for held in range(FOLDS))]
    # Each fold's model starts where the stronger penalty before ended.
    models = [
        (_model(bias, _TOLERANCE_OF_FOLDS, warm=True), rest, out)
        for rest, out in splits
        if out.any() and len(np.unique(labels[rest])) == count
    ]
    losses: list[float] = []
    for penalty in PENALTIES:
        losses.append(0.0)
        for model, rest, out in models:
            weight, offset, _ = _fit(model, values[rest], labels[rest], share[rest], penalty)
            each = metrics.cross_entropy(values[out] @ weight.T + offset, labels[out])
            losses[-1] += float((each * share[out]).sum())
        # Weaker penalties take the most iterations, and the loss has one minimum in practice.
        if len(losses) - 1 - int(np.argmin(losses)) >= _WORSE:
            break
    best: float = PENALTIES[int(np.argmin(losses))]
    return best


def places_in_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each image among those of its class, [N]."""
    order = labels.argsort(kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(labels))[:-1]))
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) - starts[labels[order]]
    return places


def _model(bias: bool, tolerance: float, *, warm: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=_ITERATIONS, tol=tolerance, fit_intercept=bias, warm_start=warm)


def _fit(
    model: Any, values: Floats, labels: NDArray[np.int64], share: Floats, penalty: float
) -> tuple[Floats, Floats, bool]:
    """weight [C, D], bias [C], and whether the fit converged."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    model.C = 1 / (penalty * share.sum())
    # A small product is over before a second thread has started; on a busy machine waiting for it takes most of the time.
    threads = 1 if values.size * (int(labels.max()) + 1) < _WORTH_THREADS else None
    with threadpool_limits(threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(values, labels, sample_weight=share)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    weight, offset = model.coef_.copy(), np.broadcast_to(model.intercept_, len(model.coef_)).copy()
    if len(weight) == 1:  # two classes: one logit, of the second
        weight, offset = np.concatenate((-weight, weight)) / 2, np.concatenate((-offset, offset)) / 2
    return weight, offset, converged
