"""The result of a comparison: scores by setting and seed, differences with both intervals, and a verdict in words."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from patchword.errors import plural
from patchword.metrics import t_interval
from patchword.metrics.differences import (
    Difference,
    Power,
    holm,
    over_images,
    paired_t,
    power,
    t_quantile,
    welch_t,
)
from patchword.runs.comparing.verdict import Kind, RunScore, Scored, judged, points
from patchword.settings import to_plain

# Assumed before the first run: the spread over seeds of paired differences of small runs, and the share of answers that two models
# of similar accuracy give differently (both measured on digits and photographs of flowers).
ASSUMED_SPREAD, ASSUMED_CHANGED = 0.007, 0.05
# Of more settings, the differences of all pairs are too many to read, or to decide.
MOST_FOR_PAIRS = 12


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One setting: its runs, their mean and its 95 % interval by t (None for one run), and what it costs.

    curve: (epoch, mean top-1 over the runs that recorded it). seconds: of training, mean over runs.
    """

    name: str
    runs: tuple[RunScore, ...]
    mean: float
    interval: tuple[float, float] | None
    parameters: int
    flops: float
    seconds: float
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def broken(self) -> tuple[RunScore, ...]:
        return tuple(run for run in self.runs if run.broken)

    @property
    def finished(self) -> tuple[RunScore, ...]:
        return tuple(run for run in self.runs if not run.broken)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`name` minus `baseline`. seeds: None for a single run each. changed: share of answers that differ.

    p: the larger p-value of both intervals, so that a decision needs both; corrected: by Holm for the comparisons made.
    """

    baseline: str
    name: str
    seeds: Difference | None
    images: Difference | None
    changed: float
    p: float
    corrected: float
    kind: Kind
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Settings compared on the same images. contrasts: each with the baseline; pairs: every two of them, corrected for their number.

    images: scored by every run; of: in the split. planned: what was expected to be decidable before the first run; measured: with the
    spread and the changed answers that were found. left_out: combinations that cannot work.
    """

    path: str
    folder: Path | None
    factors: tuple[str, ...]
    baseline: str
    arms: tuple[ArmResult, ...]
    contrasts: tuple[Contrast, ...]
    pairs: tuple[Contrast, ...]
    images: int
    of: int
    planned: Power
    measured: Power | None
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = field(default=())

    @property
    def power(self) -> str:
        """What could be decided, with the spread that was measured, else the one assumed before."""
        return power_words(self.measured or self.planned, assumed=self.measured is None)

    @property
    def undecided(self) -> float:
        """Smaller differences cannot be decided, as a share."""
        found = self.measured or self.planned
        return found.images if found.undecided_below is None else found.undecided_below

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json and `--json`."""
        plain: dict[str, Any] = _without_nan(to_plain(self))
        plain["folder"] = None if self.folder is None else str(self.folder)
        plain["undecided"] = self.undecided
        plain["power"] = self.power
        return plain

    def __repr__(self) -> str:
        return (
            f"Comparison({', '.join(arm.name for arm in self.arms)} on {self.path!r}: {' '.join(self.words)})"
        )


def _without_nan(plain: Any) -> Any:
    """None for a number that is none: JSON has no NaN."""
    if isinstance(plain, dict):
        return {key: _without_nan(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_without_nan(value) for value in plain]
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def planned_power(num_seeds: int, num_images: int, num_arms: int) -> Power:
    """What a comparison of so many settings can decide, before anything is trained."""
    return power(num_seeds, num_images, num_arms - 1, ASSUMED_SPREAD, ASSUMED_CHANGED)


def power_words(found: Power, *, assumed: bool) -> str:
    """The power in one sentence, and in brackets where it comes from."""
    images = plural(found.num_images, "image")
    if found.undecided_below is None:
        return (
            f"with 1 seed nothing can be said about a setting, only about two models: on {images}, differences below "
            f"about {points(found.images)} will stay undecided"
        )
    spread, changed = (
        points(found.spread),
        f"{100 * found.changed:.{0 if assumed else 1}f} % of answers change",
    )
    tense, word = ("will stay", "assumed") if assumed else ("stay", "measured")
    return (
        f"with {plural(found.num_seeds, 'seed')} and {images}, differences below about {points(found.undecided_below)} "
        f"{tense} undecided ({points(found.seeds or 0)} by the seeds, {100 * found.images:.1f} by the images; {word}: differences "
        f"spread by {spread}, {changed}; {plural(found.comparisons, 'comparison')})"
    )


def compare_scored(
    scored: Sequence[Scored], baseline: str
) -> tuple[tuple[ArmResult, ...], tuple[Contrast, ...], tuple[Contrast, ...], int]:
    """The settings, each compared with the baseline, every pair, and the number of images that all runs scored."""
    keys = _common(scored)
    scored = [_rescored(one, keys) for one in scored]
    arms = tuple(_arm(one) for one in scored)
    by_name = {one.name: one for one in scored}
    others = [name for name in by_name if name != baseline]
    contrasts = _contrasts([(by_name[baseline], by_name[name]) for name in others], keys)
    every = list(itertools.combinations(scored, 2)) if 2 < len(scored) <= MOST_FOR_PAIRS else []
    return arms, contrasts, _contrasts(every, keys), len(keys)


def _common(scored: Sequence[Scored]) -> list[str]:
    """The images that every finished run scored, in the order of the first."""
    runs = [right for one in scored for right in one.right.values()]
    return [key for key in runs[0] if all(key in right for right in runs)] if runs else []


def _rescored(one: Scored, keys: Sequence[str]) -> Scored:
    """top1 over the common images."""
    runs = tuple(
        run
        if run.broken or not keys
        else replace(run, top1=sum(one.right[run.seed][key] for key in keys) / len(keys))
        for run in one.runs
    )
    return replace(one, runs=runs)


def _arm(one: Scored) -> ArmResult:
    scores = [run.top1 for run in one.runs if not run.broken]
    seconds = [run.seconds for run in one.runs if not run.broken]
    interval = t_interval(scores)[1:] if len(scores) > 1 else None
    return ArmResult(
        name=one.name,
        runs=one.runs,
        mean=float(np.mean(scores)) if scores else math.nan,
        interval=interval,
        parameters=one.parameters,
        flops=one.flops,
        seconds=float(np.mean(seconds)) if seconds else math.nan,
        curve=one.curve,
    )


def _contrasts(pairs: Sequence[tuple[Scored, Scored]], keys: Sequence[str]) -> tuple[Contrast, ...]:
    """Each pair as second minus first, p-values corrected for the number of pairs that could be compared."""
    raw = [_differences(first, second, keys) for first, second in pairs]
    valid = [i for i, found in enumerate(raw) if found[1] is not None]
    corrected = dict(zip(valid, holm([raw[i][3] for i in valid]), strict=True))
    found = []
    for index, (first, second) in enumerate(pairs):
        seeds, images, changed, p = raw[index]
        kind, verdict = judged(first, second, seeds, images, corrected.get(index, 1.0), len(valid), len(keys))
        found.append(
            Contrast(
                baseline=first.name,
                name=second.name,
                seeds=seeds,
                images=images,
                changed=changed,
                p=p,
                corrected=corrected.get(index, 1.0),
                kind=kind,
                verdict=verdict,
            )
        )
    return tuple(found)


def _differences(
    first: Scored, second: Scored, keys: Sequence[str]
) -> tuple[Difference | None, Difference | None, float, float]:
    """Over seeds, over images, the share of changed answers, and the larger p-value; None if a run of either diverged."""
    if any(run.broken for run in (*first.runs, *second.runs)) or not keys:
        return None, None, math.nan, 1.0
    top1 = [{run.seed: run.top1 for run in one.runs} for one in (first, second)]
    shared = [seed for seed in top1[0] if seed in top1[1]]
    is_paired = len(shared) == len(top1[0]) == len(top1[1])
    a, b = ([scores[seed] for seed in (shared if is_paired else scores)] for scores in top1)
    seeds = None
    if min(len(a), len(b)) > 1:
        seeds = paired_t(a, b) if is_paired else welch_t(a, b)
    right = [
        np.array([[one.right[s][key] for key in keys] for s in one.right], float) for one in (first, second)
    ]
    images = over_images(*right)
    both = [(right[0][i], right[1][j]) for i, j in _couples(first, second, paired=is_paired)]
    changed = float(np.mean([x != y for x, y in both]))
    return seeds, images, changed, max(images.p, 0.0 if seeds is None else seeds.p)


def _couples(first: Scored, second: Scored, *, paired: bool) -> list[tuple[int, int]]:
    """The places of the runs whose answers are compared: the same seed, or all with all."""
    places = [list(one.right) for one in (first, second)]
    if paired:
        return [(places[0].index(seed), places[1].index(seed)) for seed in places[0]]
    return list(itertools.product(range(len(places[0])), range(len(places[1]))))


def measured_power(contrasts: Sequence[Contrast], num_seeds: int, num_images: int) -> Power | None:
    """What these comparisons could decide, from the widths of their intervals; None if nothing was compared over paired seeds."""
    found = [(c.seeds, c.images) for c in contrasts if c.seeds is not None and c.images is not None]
    if num_seeds < 2 or not found or any(seeds.method != "paired t" for seeds, _ in found):
        return None
    halves = [[(d.high - d.low) / 2 for d in pair] for pair in zip(*found, strict=True)]
    spread = float(np.sqrt(np.mean(np.square(halves[0])))) * math.sqrt(num_seeds) / t_quantile(num_seeds - 1)
    changed = float(np.mean([c.changed for c in contrasts if c.images is not None]))
    at_once = power(num_seeds, num_images, len(found), spread, changed)
    # The planned width is that of one run each; the mean over seeds is steadier. Corrected for the number of comparisons alike.
    many, single = (power(num_seeds, num_images, count, spread, 1.0).images for count in (len(found), 1))
    images = float(np.mean(halves[1])) * many / single
    return replace(at_once, images=images)


def conclusion(arms: Sequence[ArmResult], contrasts: Sequence[Contrast], baseline: str) -> tuple[str, ...]:
    """The verdicts as sentences: what is decided, what is not, and how many were tried."""
    found = []
    for kind, words in (("better", "Clearly better than"), ("worse", "Clearly worse than")):
        names = [c.name for c in contrasts if c.kind == kind]
        if names:
            found.append(f"{words} {baseline}: {', '.join(names)}.")
    open_ones = [c.name for c in contrasts if c.kind == "undecided"]
    if open_ones:
        found.append(f"Not told apart from {baseline}: {', '.join(open_ones)}.")
    if same := [c.name for c in contrasts if c.kind == "equal"]:
        found.append(f"Same answers as {baseline}: {', '.join(same)}.")
    if single := [c.name for c in contrasts if c.kind == "one run"]:
        found.append(f"One run each, so no verdict on the setting: {', '.join(single)}.")
    if lost := [arm.name for arm in arms if arm.broken]:
        found.append(f"Diverged, so not compared: {', '.join(lost)}.")
    if len(contrasts) > 1:
        found.append(f"{len(contrasts)} comparisons were made; their p-values are corrected for it (Holm).")
    return tuple(found)
