"""Verdicts: decided only if other seeds and other images would agree, and what would decide the rest."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from patchword.runs.comparing.equal_time import words
from patchword.runs.comparing.measure import MEASURES, Given
from patchword.runs.comparing.result import compare_scored as compare_by
from patchword.runs.comparing.result import measured_power, planned_power, power_words
from patchword.runs.comparing.verdict import RunScore, Scored

IMAGES = 400
TOP1 = MEASURES["single"]


def _scored(name: str, counts: list[int], broken: int | None = None) -> Scored:
    """A setting whose run with seed i has the first counts[i] images right."""
    runs = tuple(
        RunScore(seed=i, folder="", score=count / IMAGES, seconds=1.0, broken="nan" * (i == broken))
        for i, count in enumerate(counts)
    )
    given = {i: _given(np.arange(IMAGES) < c) for i, c in enumerate(counts) if i != broken}
    return Scored(name=name, runs=runs, given=given, parameters=1, flops=1.0)


def _given(right: np.ndarray) -> Given:
    values = tuple(right.astype(float)[:, None])
    return Given(
        keys=tuple(map(str, range(len(right)))), truth=tuple(map(np.ones_like, values)), values=values
    )


def compare_scored(scored: list[Scored], baseline: str) -> Any:
    return compare_by(scored, baseline, TOP1)


@pytest.mark.parametrize(
    ("counts", "kind", "words"),
    [
        ([380, 382, 381], "better", "clearly better than base, by 20.2 points"),
        ([220, 222, 221], "worse", "clearly worse than base, by 19.7"),
        ([300, 302, 298], "equal", "nothing changed"),
        ([301, 302, 297], "undecided", "cannot be told apart from base; up to"),
        ([301, 303, 299], "undecided", "better on these 400 images with any seed"),
        ([330, 380, 310], "undecided", "too few seeds to say: run"),
    ],
)
def test_a_difference_needs_other_seeds_and_other_images(counts: list[int], kind: str, words: str) -> None:
    arms, (contrast,), pairs, images = compare_scored(
        [_scored("base", [300, 302, 298]), _scored("other", counts)], "base"
    )
    assert (contrast.kind, images, pairs) == (kind, IMAGES, ())
    assert words in contrast.verdict
    assert arms[1].mean == pytest.approx(np.mean(counts) / IMAGES)


def test_many_comparisons_decide_less_than_one() -> None:
    base, other = _scored("base", [300, 303, 298]), _scored("other", [320, 330, 317])
    assert compare_scored([base, other], "base")[1][0].kind == "better"
    more = [_scored(f"same{i}", [301, 303 - i, 299]) for i in range(5)]
    contrasts = compare_scored([base, other, *more], "base")[1]
    assert (
        contrasts[0].kind == "undecided" and "after the correction for 6 comparisons" in contrasts[0].verdict
    )


def test_a_diverged_run_leaves_its_setting_without_verdict_and_the_others_with_theirs() -> None:
    scored = [_scored("a", [300, 302]), _scored("b", [390, 0], broken=1), _scored("c", [380, 382])]
    _, (lost, kept), pairs, _ = compare_scored(scored, "a")
    assert lost.kind == "diverged" and "b diverged in 1 of 2 runs (seed 1)" in lost.verdict
    assert kept.kind == "better" and len(pairs) == 3


def test_images_that_a_run_did_not_score_count_for_none() -> None:
    one, two = _scored("a", [300, 302]), _scored("b", [380, 382])
    two.given[0] = two.given[0].of(two.given[0].keys[1:])  # type: ignore[index]
    arms, _, _, images = compare_scored([one, two], "a")
    assert images == IMAGES - 1 and arms[0].runs[0].score == 299 / 399


def test_unpaired_seeds_are_compared_by_welch_and_one_run_by_mcnemar() -> None:
    _, (welch,), _, _ = compare_scored([_scored("a", [300, 302]), _scored("b", [380, 382, 384])], "a")
    assert welch.seeds is not None and welch.seeds.method.startswith("Welch")
    _, (single,), _, _ = compare_scored([_scored("a", [300]), _scored("b", [380])], "a")
    assert single.seeds is None and single.kind == "one run" and "use more seeds" in single.verdict
    assert "this model is better than that of a" in single.verdict


def test_the_power_says_what_will_stay_undecided() -> None:
    planned = planned_power(5, 360, 6, TOP1)
    assert (
        "with 5 seeds and 360 images, differences below about 3.0 points will stay undecided"
        in power_words(planned, assumed=True)
    )
    assert "5 comparisons" in power_words(planned, assumed=True)
    assert "with 1 seed nothing can be said" in power_words(planned_power(1, 360, 2, TOP1), assumed=True)
    _, contrasts, _, images = compare_scored([_scored("a", [300, 302]), _scored("b", [380, 383])], "a")
    measured = measured_power(contrasts, 2, images)
    assert measured is not None and contrasts[0].seeds is not None
    _, same, _, _ = compare_scored([_scored("a", [300, 302]), _scored("b", [300, 302])], "a")
    assert measured_power(same, 2, images) is not None  # nothing changed, which is no division by zero
    half = (contrasts[0].seeds.high - contrasts[0].seeds.low) / 2
    assert measured.seeds == pytest.approx(half)


def test_scores_at_equal_time_are_the_last_until_the_fastest_had_finished() -> None:
    fast, slow = _scored("fast", [300, 302]), _scored("slow", [320, 322])
    fast = replace(fast, curve=((1.0, 0.5, 0.6), (2.0, 1.0, 0.75)))
    slow = replace(slow, curve=((1.0, 0.9, 0.7), (2.0, 1.8, 0.8)))
    slow = replace(slow, runs=tuple(replace(run, seconds=1.8) for run in slow.runs))
    arms = compare_scored([fast, slow], "fast")[0]
    one, two = (arm.at_equal_time for arm in arms)
    assert (one.score, two.score, two.epoch, two.epochs) == (0.75, 0.7, 1, 2)
    text = words({"fast": one, "slow": two}, "fast", "0:01")
    assert "fast 75.0 %, slow 70.0 % after 1 of 2 epochs" in text
    # Equal times need no second line, and a setting that has no score yet is named.
    assert compare_scored([fast, _scored("same", [320, 322])], "fast")[0][1].at_equal_time is None
    assert "slow not scored yet" in words({"fast": one, "slow": None}, "fast", "0:01")
