"""What may be said about two settings: a difference is decided only if it holds for other seeds and for other images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from patchword.errors import plural
from patchword.metrics.differences import Difference, seeds_needed, t_quantile
from patchword.runs.comparing.measure import Given

Kind = Literal["better", "worse", "undecided", "equal", "one run", "diverged"]


@dataclass(frozen=True, kw_only=True)
class RunScore:
    """One run. score: over the images that every run of the comparison scored. broken: why it diverged, else ""."""

    seed: int
    folder: str
    score: float
    seconds: float
    broken: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What is known of one setting before it is compared. given: the answers of each finished seed.

    curve: (epoch, seconds of training, validation score), means over the runs that recorded them.
    """

    name: str
    runs: tuple[RunScore, ...]
    given: Mapping[int, Given]
    parameters: int
    flops: float
    curve: tuple[tuple[float, float, float], ...] = ()


def points(share: float) -> str:
    """0.0123 as "1.2 points"."""
    return f"{100 * share:.1f} points"


def judged(
    first: Scored,
    second: Scored,
    seeds: Difference | None,
    images: Difference | None,
    corrected: float,
    comparisons: int,
    num_images: int,
) -> tuple[Kind, str]:
    """The verdict. A difference is decided only if it holds for other seeds and for other images."""
    base = first.name
    if images is None:
        return "diverged", _diverged(first, second)
    if _is_equal(first, second):
        return "equal", f"every run answers exactly as with {base}: nothing changed"
    word = "better" if images.mean > 0 else "worse"
    if seeds is None:
        decided = images.is_clear and corrected < 0.05
        on = (
            f"this model is {word} than that of {base}"
            if decided
            else f"these two models cannot be told apart from {num_images} images"
        )
        return "one run", f"{on}; one run each says nothing about the setting: use more seeds"
    if seeds.is_clear and images.is_clear and corrected < 0.05:
        return (
            "better" if images.mean > 0 else "worse"
        ), f"clearly {word} than {base}, by {points(abs(seeds.mean))}"
    if seeds.is_clear and images.is_clear:
        more = f"but not after the correction for {comparisons} comparisons"
        return "undecided", f"{word} than {base} alone, {more} (p = {corrected:.2f}): compare these two again"
    if images.is_clear:
        return "undecided", f"too few seeds to say: {_more_seeds(seeds, len(second.runs))}"
    if seeds.is_clear:
        enough = num_images * ((images.high - images.low) / 2 / max(abs(images.mean), 1e-9)) ** 2
        return "undecided", (
            f"{word} on these {num_images} images with any seed; whether on others too would need about "
            f"{_rounded(enough)} images"
        )
    most = max(abs(end) for d in (seeds, images) for end in (d.low, d.high))
    return "undecided", f"cannot be told apart from {base}; up to {points(most)} either way remain possible"


def _is_equal(first: Scored, second: Scored) -> bool:
    return list(first.given) == list(second.given) and all(
        first.given[seed].equals(second.given[seed]) for seed in first.given
    )


def _more_seeds(seeds: Difference, num_seeds: int) -> str:
    half = (seeds.high - seeds.low) / 2
    spread = half / t_quantile(max(num_seeds - 1, 1)) * math.sqrt(num_seeds)
    enough = seeds_needed(seeds.mean, spread)
    if enough is None:
        return f"the spread over seeds hides a difference of {points(abs(seeds.mean))}, even with 100 seeds"
    return f"run {max(enough - num_seeds, 1)} more for a difference of {points(abs(seeds.mean))}"


def _diverged(first: Scored, second: Scored) -> str:
    parts = []
    for one in (first, second):
        lost = [str(run.seed) for run in one.runs if run.broken]
        if lost:
            parts.append(
                f"{one.name} diverged in {len(lost)} of {plural(len(one.runs), 'run')} (seed {', '.join(lost)})"
            )
    return "; ".join(parts) + "; not compared" if parts else "no image was scored by every run; not compared"


def _rounded(count: float) -> str:
    """Two significant digits."""
    size = 10 ** max(math.floor(math.log10(max(count, 1))) - 1, 0)
    return f"{math.ceil(count / size) * size:,}"
