"""Scores of bootstrap samples of the images: equal to the score of the images that a sample holds, each as often."""

from typing import Any

import numpy as np
import pytest

from patchword.metrics.detection import Detections, Truths, evaluate, precision_of_samples
from patchword.metrics.differences import bootstrap, of_samples
from patchword.metrics.multilabel import macro_precisions, mean_average_precision, times_drawn
from support.boxes import scene

RNG = np.random.default_rng(3)


def taken(boxes: Any, times: np.ndarray) -> Any:
    """The boxes of images that are there as often as `times` says, each copy with a number of its own."""
    copies = [(image, n) for image, count in enumerate(times) for n in range(count)]
    rows = [np.flatnonzero(boxes.images == image) for image, _ in copies]
    order = np.concatenate(rows)
    fields = {name: value[order] for name, value in vars(boxes).items()}
    fields["images"] = np.repeat(np.arange(len(copies)), [len(row) for row in rows])
    return type(boxes)(**fields)


@pytest.mark.parametrize("seed", range(3))
def test_the_precision_of_a_sample_is_that_of_its_images(seed: int) -> None:
    there, found = scene(seed)
    times = np.concatenate((np.ones((1, 12), np.int64), times_drawn(12, 3, seed)))
    values = precision_of_samples(there, found, times, classes=5)
    for row, value in zip(times, values, strict=True):
        some: tuple[Truths, Detections] = taken(there, row), taken(found, row)
        scores = evaluate(*some, images=int(row.sum()), names=list("abcde"))
        assert value == pytest.approx(scores.ap, abs=1e-12)
    nowhere = precision_of_samples(there, found, np.zeros((1, 12), np.int64), classes=5)
    assert np.isnan(nowhere).all()


@pytest.mark.parametrize("ties", [False, True])
def test_mean_precision_of_a_sample_is_that_of_its_images(ties: bool) -> None:
    scores, truth = RNG.normal(size=(40, 4)), RNG.random((40, 4)) < 0.2
    scores = scores.round(0) if ties else scores
    truth[:, 3] = False
    times = times_drawn(40, 5, 0)
    for row, value in zip(times, macro_precisions(scores, truth, times), strict=True):
        some = np.repeat(np.arange(40), row)
        assert value == pytest.approx(mean_average_precision(scores[some], truth[some], repeats=0).macro)


def test_many_different_differences_have_the_interval_of_a_normal_mean() -> None:
    draws = RNG.normal(0.1, 1, 2000)
    found, error = bootstrap(draws), draws.std() / len(draws) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.mean == pytest.approx(draws.mean()) and found.p < 0.01
    assert bootstrap(draws - draws.mean()).p > 0.9


def test_a_score_that_is_no_mean_has_the_quantiles_of_its_samples() -> None:
    differences = RNG.normal(0.02, 0.01, 1000)
    found = of_samples(0.02, differences, 50)
    assert (found.low, found.high) == tuple(np.quantile(differences, (0.025, 0.975)))
    assert found.p == pytest.approx(2 * ((differences <= 0).sum() + 1) / 1001)
    nothing = of_samples(0.0, np.zeros(10), 50)
    assert nothing.p == 1 and nothing.low < 0 < nothing.high
