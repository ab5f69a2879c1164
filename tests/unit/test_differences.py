"""Differences between models: intervals that equal SciPy's, and decisions that chance seldom makes."""

import numpy as np
import pytest
from scipy import stats

from patchword.metrics.differences import (
    bootstrap,
    chance_to_see,
    holm,
    mcnemar,
    over_images,
    paired_t,
    power,
    seeds_needed,
    welch_t,
)


def test_t_intervals_are_those_of_scipy() -> None:
    chance = np.random.default_rng(0)
    for first, second in ((5, 5), (3, 3), (4, 7)):
        a, b = chance.normal(0.9, 0.01, first), chance.normal(0.91, 0.02, second)
        if first == second:
            found, wanted = paired_t(a, b), stats.ttest_rel(b, a)
        else:
            found, wanted = welch_t(a, b), stats.ttest_ind(b, a, equal_var=False)
        interval = wanted.confidence_interval(0.95)
        assert found.low == pytest.approx(interval.low, abs=1e-9)
        assert found.high == pytest.approx(interval.high, abs=1e-9)
        assert found.p == pytest.approx(wanted.pvalue, abs=1e-9)


def test_equal_differences_have_no_width_and_no_division_by_zero() -> None:
    same = paired_t([0.9, 0.8], [0.9, 0.8])
    assert (same.low, same.high, same.p, same.is_clear) == (0, 0, 1, False)
    shifted = paired_t([0.25, 0.5], [0.5, 0.75])
    assert (shifted.low, shifted.high, shifted.p) == (0.25, 0.25, 0)


def test_two_models_are_compared_by_the_exact_mcnemar_test() -> None:
    first = np.array([1] * 50 + [0] * 9 + [1] * 2 + [0] * 39, float)
    second = np.array([1] * 50 + [1] * 9 + [0] * 2 + [0] * 39, float)
    found = mcnemar(first, second)
    wanted = stats.binomtest(9, 11)
    share = wanted.proportion_ci(0.95, "exact")
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-12)
    assert found.low == pytest.approx((2 * share.low - 1) * 0.11, abs=1e-9)
    assert found.high == pytest.approx((2 * share.high - 1) * 0.11, abs=1e-9)
    assert found.mean == pytest.approx(0.07) and over_images(first[None], second[None]) == found
    unchanged = mcnemar(first, first)
    # Rule of three: none of 100 answers changed.
    assert unchanged.mean == 0 and 0.03 < unchanged.high < 0.04 and unchanged.low == -unchanged.high


def test_the_bootstrap_resamples_images_with_the_mean_over_their_runs() -> None:
    chance = np.random.default_rng(1)
    first, second = (chance.random((3, 200)) < share for share in (0.8, 0.9))
    found = over_images(first.astype(float), second.astype(float))
    differences = (second.mean(0) - first.mean(0)).astype(float)
    # The same, image by image, with other random numbers.
    means = differences[chance.integers(0, 200, (20_000, 200))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.003)
    assert found.mean == pytest.approx(differences.mean()) and found.method == "paired bootstrap"
    assert bootstrap(differences) == bootstrap(differences)
    # Six images that improve in one of three runs, of 400: the sign test, as McNemar's would say.
    few = bootstrap(np.array([1 / 3] * 6 + [0.0] * 394))
    assert few.p == pytest.approx(2 / 2**6, abs=0.004) and few.mean == pytest.approx(0.005)


def test_holm_multiplies_each_p_value_by_those_not_yet_decided() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_power_is_that_of_the_noncentral_t_and_of_the_images() -> None:
    # Chances to see a true point, for a spread of 0.5, 0.7 and 1 point.
    for seeds, wanted in ((3, (0.47, 0.30, 0.18)), (5, (0.91, 0.67, 0.40)), (10, (1.0, 0.98, 0.80))):
        found = tuple(chance_to_see(0.01, spread, seeds) for spread in (0.005, 0.007, 0.01))
        assert found == pytest.approx(wanted, abs=0.005)
    planned = power(3, 300, 1, spread=0.01, changed=0.05)
    assert planned.seeds == pytest.approx(0.0248, abs=1e-4)
    assert planned.images == pytest.approx(0.0253, abs=1e-4) and planned.undecided_below == planned.images
    assert power(3, 300, 5, 0.01, 0.05).images > planned.images  # more comparisons decide less
    assert power(1, 300, 1, 0.01, 0.05).undecided_below is None
    assert seeds_needed(0.01, 0.007) == 5 and seeds_needed(0.0001, 0.01) is None


def test_chance_alone_is_seldom_called_a_difference() -> None:
    """Runs of one setting, compared as two: both intervals exclude zero in at most 5 % of 100 comparisons."""
    chance, found = np.random.default_rng(2), 0
    for _ in range(100):
        hard = chance.normal(1.5, 2, 100)
        right = [
            (hard + chance.normal(0, 0.3, (3, 1)) + chance.logistic(size=(3, 100)) > 0).astype(float)
            for _ in range(2)
        ]
        seeds = paired_t(right[0].mean(1), right[1].mean(1))
        found += seeds.is_clear and over_images(*right).is_clear
    assert found <= 5
