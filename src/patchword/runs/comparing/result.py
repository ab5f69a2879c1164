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
    normal_quantile,
    paired_t,
    power,
    t_quantile,
    welch_t,
)
from patchword.runs.comparing import equal_time
from patchword.runs.comparing.equal_time import EqualTime, equal_times
from patchword.runs.comparing.measure import Doubles, Measure
from patchword.runs.comparing.verdict import Kind, RunScore, Scored, judged, points
from patchword.settings import to_plain
from patchword.training.progress import clock

# Of more settings, the differences of all pairs are too many to read, or to decide.
MOST_FOR_PAIRS = 12


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One setting: its runs, their mean and its 95 % interval by t (None for one run), and what it costs.

    curve: (epoch, seconds of training, validation score), means over the runs that recorded them. seconds: of training, mean
    over runs. at_equal_time: None where it says nothing.
    """

    name: str
    runs: tuple[RunScore, ...]
    mean: float
    interval: tuple[float, float] | None
    parameters: int
    flops: float
    seconds: float
    curve: tuple[tuple[float, float, float], ...] = ()
    at_equal_time: EqualTime | None = None

    @property
    def broken(self) -> tuple[RunScore, ...]:
        return tuple(run for run in self.runs if run.broken)

    @property
    def finished(self) -> tuple[RunScore, ...]:
        return tuple(run for run in self.runs if not run.broken)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """`name` minus `baseline`. seeds: None for a single run each. changed: share of answers that differ.

    changed: None where it cannot be counted. p: the larger p-value of both intervals, so that a decision needs both; corrected: by
    Holm for the comparisons made.
    """

    baseline: str
    name: str
    seeds: Difference | None
    images: Difference | None
    changed: float | None
    p: float
    corrected: float
    kind: Kind
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Settings compared on the same images. contrasts: each with the baseline; pairs: every two of them, corrected for their number.

    measure: the name of the score. images: scored by every run; of: in the split. planned: what was expected to be decidable before the first run; measured: with the
    spread and the changed answers that were found. left_out: combinations that cannot work.
    """

    path: str
    measure: str
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
    def equal_time(self) -> str:
        """One sentence on the scores at equal time; "" if all settings take as long."""
        known = [arm for arm in self.arms if arm.at_equal_time is not None]
        if not known:
            return ""
        fastest = min((arm for arm in self.arms if not math.isnan(arm.seconds)), key=lambda arm: arm.seconds)
        found = {arm.name: arm.at_equal_time for arm in self.arms if arm.finished}
        return equal_time.words(found, fastest.name, clock(fastest.seconds))

    @property
    def undecided(self) -> float | None:
        """Smaller differences cannot be decided, as a share; None if nothing was measured or could be assumed."""
        found = self.measured or self.planned
        return found.images if found.undecided_below is None else found.undecided_below

    def to_dict(self) -> dict[str, Any]:
        """As in comparison.json and `--json`."""
        plain: dict[str, Any] = _without_nan(to_plain(self))
        plain["folder"] = None if self.folder is None else str(self.folder)
        plain["undecided"] = self.undecided
        plain["power"] = self.power
        plain["equal_time"] = self.equal_time
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


def planned_power(num_seeds: int, num_images: int, num_arms: int, measure: Measure) -> Power:
    """What a comparison of so many settings can decide, before anything is trained."""
    spread, changed = measure.assumed or (None, None)
    return power(num_seeds, num_images, num_arms - 1, spread, changed)


def power_words(found: Power, *, assumed: bool) -> str:
    """The power in one sentence, and in brackets where it comes from."""
    images, seeds = plural(found.num_images, "image"), plural(found.num_seeds, "seed")
    many = plural(found.comparisons, "comparison")
    if found.widths is None:
        known = (
            ""
            if found.images is None
            else f": on {images}, differences below about {points(found.images)} will stay undecided"
        )
        return f"with 1 seed nothing can be said about a setting, only about two models{known}"
    if found.undecided_below is None:
        return (
            f"with {seeds}, differences below about {found.widths:.1f} times their standard deviation over seeds will stay "
            f"undecided ({many}; that deviation, and what {images} leave open, are measured at the end)"
        )
    spread = points(found.spread or 0)
    changed = (
        ""
        if found.changed is None
        else f", {100 * found.changed:.{0 if assumed else 1}f} % of answers change"
    )
    tense, word = ("will stay", "assumed") if assumed else ("stay", "measured")
    return (
        f"with {seeds} and {images}, differences below about {points(found.undecided_below)} "
        f"{tense} undecided ({points(found.seeds or 0)} by the seeds, {100 * (found.images or 0):.1f} by the images; {word}: "
        f"differences spread by {spread}{changed}; {many})"
    )


def compare_scored(
    scored: Sequence[Scored], baseline: str, measure: Measure
) -> tuple[tuple[ArmResult, ...], tuple[Contrast, ...], tuple[Contrast, ...], int]:
    """The settings, each compared with the baseline, every pair, and the number of images that all runs scored."""
    keys = _common(scored)
    scored = [_rescored(one, keys, measure) for one in scored]
    arms = _at_equal_time([_arm(one) for one in scored])
    sides = {one.name: _Side.of(one, measure) for one in scored}
    others = [name for name in sides if name != baseline]
    contrasts = _contrasts([(sides[baseline], sides[name]) for name in others], measure, len(keys))
    every = list(itertools.combinations(sides.values(), 2)) if 2 < len(scored) <= MOST_FOR_PAIRS else []
    return arms, contrasts, _contrasts(every, measure, len(keys)), len(keys)


def _common(scored: Sequence[Scored]) -> list[str]:
    """The images that every finished run scored, in the order of the first."""
    runs = [given for one in scored for given in one.given.values()]
    if not runs:
        return []
    shared = set(runs[0].keys).intersection(*(given.keys for given in runs[1:]))
    return [key for key in runs[0].keys if key in shared]


def _rescored(one: Scored, keys: Sequence[str], measure: Measure) -> Scored:
    """Answers and scores of the common images."""
    if not keys:
        return one
    given = {seed: found.of(keys) for seed, found in one.given.items()}
    runs = tuple(
        run if run.broken else replace(run, score=measure.score(given[run.seed])) for run in one.runs
    )
    return replace(one, runs=runs, given=given)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """A setting, and what its answers are compared by, which is computed once. prepared: None if a run diverged."""

    one: Scored
    prepared: Doubles | None

    @classmethod
    def of(cls, one: Scored, measure: Measure) -> "_Side":
        runs = list(one.given.values())
        is_whole = runs and not any(run.broken for run in one.runs) and len(runs[0].keys)
        return cls(one=one, prepared=measure.prepared(runs) if is_whole else None)


def _arm(one: Scored) -> ArmResult:
    scores = [run.score for run in one.runs if not run.broken]
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


def _at_equal_time(arms: Sequence[ArmResult]) -> tuple[ArmResult, ...]:
    """The settings with the score that each had when the fastest had finished, if their times differ."""
    found = equal_times({arm.name: arm.seconds for arm in arms}, {arm.name: arm.curve for arm in arms})
    return tuple(replace(arm, at_equal_time=found.get(arm.name)) for arm in arms)


def _contrasts(
    pairs: Sequence[tuple[_Side, _Side]], measure: Measure, num_images: int
) -> tuple[Contrast, ...]:
    """Each pair as second minus first, p-values corrected for the number of pairs that could be compared."""
    raw = [_differences(first, second, measure) for first, second in pairs]
    valid = [i for i, found in enumerate(raw) if found.images is not None]
    corrected = dict(zip(valid, holm([raw[i].p for i in valid]), strict=True))
    contrasts = []
    for index, (first, second) in enumerate(pairs):
        found, p = raw[index], corrected.get(index, 1.0)
        kind, verdict = judged(first.one, second.one, found.seeds, found.images, p, len(valid), num_images)
        contrasts.append(
            Contrast(
                baseline=first.one.name,
                name=second.one.name,
                seeds=found.seeds,
                images=found.images,
                changed=found.changed,
                p=found.p,
                corrected=p,
                kind=kind,
                verdict=verdict,
            )
        )
    return tuple(contrasts)


@dataclass(frozen=True, kw_only=True)
class _Differences:
    """Over seeds, over images, the share of changed answers, and the larger p-value; None if a run of either diverged."""

    seeds: Difference | None = None
    images: Difference | None = None
    changed: float | None = None
    p: float = 1.0


def _differences(first: _Side, second: _Side, measure: Measure) -> _Differences:
    if first.prepared is None or second.prepared is None:
        return _Differences()
    scores = [{run.seed: run.score for run in side.one.runs} for side in (first, second)]
    shared = [seed for seed in scores[0] if seed in scores[1]]
    is_paired = len(shared) == len(scores[0]) == len(scores[1])
    a, b = ([found[seed] for seed in (shared if is_paired else found)] for found in scores)
    seeds = None
    if min(len(a), len(b)) > 1:
        seeds = paired_t(a, b) if is_paired else welch_t(a, b)
    given = [list(side.one.given.values()) for side in (first, second)]
    mean = float(np.mean(b)) - float(np.mean(a))
    images = measure.over_images(first.prepared, second.prepared, mean, len(given[0][0].keys))
    pairs = _couples(first.one, second.one, paired=is_paired)
    changed = [measure.changed(given[0][i], given[1][j]) for i, j in pairs]
    counted = [share for share in changed if share is not None]
    return _Differences(
        seeds=seeds,
        images=images,
        changed=float(np.mean(counted)) if counted else None,
        p=max(images.p, 0.0 if seeds is None else seeds.p),
    )


def _couples(first: Scored, second: Scored, *, paired: bool) -> list[tuple[int, int]]:
    """The places of the runs whose answers are compared: the same seed, or all with all."""
    places = [list(one.given) for one in (first, second)]
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
    counted = [c.changed for c in contrasts if c.images is not None and c.changed is not None]
    changed = float(np.mean(counted)) if counted else None
    at_once = power(num_seeds, num_images, len(found), spread, changed)
    # The planned width is that of one run each; the mean over seeds is steadier. Corrected for the number of comparisons alike.
    images = float(np.mean(halves[1])) * normal_quantile(len(found)) / normal_quantile(1)
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
