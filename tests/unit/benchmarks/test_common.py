"""Benchmarks are fair: equal turns, in changing order, ratios formed inside a round."""

import sys
from pathlib import Path

import pytest

# A package of this name (pyarrow 17 ships one) would hide the folder: its scripts import each other so too.
sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from common import interleave, machine_facts, ratio_interval


@pytest.mark.slow
def test_every_system_runs_once_a_round_and_no_order_is_favoured() -> None:
    calls: list[str] = []
    systems = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = interleave(systems, rounds=12, warm_up=1)
    assert {len(s) for s in seconds.values()} == {12}
    rounds = [tuple(calls[i : i + 2]) for i in range(2, len(calls), 2)]
    assert len(rounds) == 12 and all(set(r) == {"a", "b"} for r in rounds)
    assert 3 <= sum(r == ("a", "b") for r in rounds) <= 9


def test_the_ratio_is_formed_inside_its_round_so_drift_cancels() -> None:
    drift = [1.0 + i for i in range(30)]
    median, low, high = ratio_interval(drift, [1.1 * d for d in drift])
    assert median == pytest.approx(1.1) and low == pytest.approx(1.1) and high == pytest.approx(1.1)


def test_the_interval_holds_the_median_and_widens_with_noise() -> None:
    median, low, high = ratio_interval([1.0] * 9, [0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 3.0])
    assert low < median == 1.1 < high


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError):
        ratio_interval([1.0], [1.0, 2.0])


def test_a_result_says_which_machine_and_versions() -> None:
    facts = machine_facts()
    assert {"processor", "cores", "versions", "commit"} <= set(facts) and "torch" in facts["versions"]
