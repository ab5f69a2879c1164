"""What to try next: rules that are silent unless the numbers of the run support them.

A rule is a pure function from `Facts` to a piece of advice with its evidence, or None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from patchword.reports.run_files import RunFiles
from patchword.reports.watching import WAITS_FOR_DATA

OVERFIT_GAP = 0.10
LOW = 0.90
# Validation top-1 gained over the last fifth of the epochs that counts as still rising.
STILL_RISING = 0.01
RARE_RATIO, RARE_RECALL_GAP = 5, 0.15
SURE, SURE_AGAINST = 0.95, 0.01
SMALL_PX = 96


@dataclass(frozen=True, kw_only=True)
class Advice:
    """what: an imperative with options that exist. evidence: the numbers it follows from."""

    what: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules see. Every entry may be missing, and a rule that needs it is then silent.

    training, held_out: evaluations on clean training images and on the held-out ones. curve: validation top-1 by epoch.
    data_wait: mean share of the time. classes: dicts of name, images (held out), recall and trained (images).
    mistakes: as in evaluation.json. weights: whether training started from some. balanced: whether --balance was used.
    size: (h, w) of the images of the model. source_size: median (h, w) of the files.
    """

    training: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    curve: tuple[float, ...] = ()
    data_wait: float | None = None
    cached: bool = False
    classes: tuple[dict[str, Any], ...] = ()
    mistakes: tuple[dict[str, Any], ...] = ()
    weights: bool = False
    balanced: bool = False
    size: tuple[int, int] | None = None
    source_size: tuple[int, int] | None = None


def advice(facts: Facts) -> list[Advice]:
    """All advice that the numbers support, most important first."""
    return [found for rule in RULES if (found := rule(facts)) is not None]


def facts_of(run: RunFiles, evaluation: dict[str, Any] | None, classes: list[dict[str, Any]]) -> Facts:
    """The facts of a run. classes: the rows of `sections.per_class`."""
    waits = [e["data_wait"] for e in run.epochs if _is_number(e.get("data_wait"))]
    settings = {s.path.rsplit(".", 1)[-1]: s.value.strip('"') for s in run.settings}
    image = ((run.config.get("model") or {}).get("image") or {}).get("size")
    median = (run.data.get("sizes") or {}).get("median")
    return Facts(
        training=(evaluation or {}).get("training"),
        held_out=evaluation,
        curve=tuple(e["val_top1"] for e in run.epochs if _is_number(e.get("val_top1"))),
        data_wait=sum(waits) / len(waits) if waits else None,
        cached=settings.get("cache", "") == "disk",
        classes=tuple(classes),
        mistakes=tuple((evaluation or {}).get("mistakes") or ()),
        weights=bool(run.data.get("begun_from")) or bool(settings.get("weights")),
        balanced=settings.get("balance", "none") not in ("", "none"),
        size=tuple(image) if image else None,
        source_size=tuple(median) if median else None,
    )


def overfitting(facts: Facts) -> Advice | None:
    scores = _both(facts)
    if scores is None or facts.training is None or facts.held_out is None:
        return None
    train, held = scores
    # The intervals must be apart: with few images a gap may be chance.
    apart = facts.training["top1_interval"][0] > facts.held_out["top1_interval"][1]
    if train - held < OVERFIT_GAP or not apart:
        return None
    evidence = f"top-1 is {_percent(train)} on training images and {_percent(held)} on held-out ones"
    if facts.weights:
        return Advice(
            what="Add images, or train less of the model: --tune head or --tune lora.", evidence=evidence
        )
    return Advice(what="Add images, or start from published weights with --weights.", evidence=evidence)


def more_epochs(facts: Facts) -> Advice | None:
    scores = _both(facts)
    if scores is None or max(scores) >= LOW or len(facts.curve) < 5:
        return None
    span = max(len(facts.curve) // 5, 2)
    before, now = facts.curve[-1 - span], facts.curve[-1]
    if now - before < STILL_RISING or now < max(facts.curve):
        return None
    evidence = (
        f"training and held-out top-1 are both low ({_percent(scores[0])} and {_percent(scores[1])}), and validation "
        f"rose from {_percent(before)} to {_percent(now)} in the last {span} epochs"
    )
    return Advice(what=f"Train longer: --epochs {2 * len(facts.curve)}.", evidence=evidence)


def rare_classes(facts: Facts) -> Advice | None:
    rows = [c for c in facts.classes if c.get("trained") and c.get("images") and _is_number(c.get("recall"))]
    if len(rows) < 2 or facts.balanced:
        return None
    most = max(c["trained"] for c in rows)
    rare = [c for c in rows if c["trained"] * RARE_RATIO <= most]
    others = [c for c in rows if c not in rare]
    # Fewer images than this decide nothing about recall.
    if not rare or sum(c["images"] for c in rare) < 10:
        return None
    low, high = (_recall(rare), _recall(others))
    if high - low < RARE_RECALL_GAP:
        return None
    evidence = (
        f"recall is {_percent(low)} on the {len(rare)} rare classes, such as {min(rare, key=_trained)['name']!r} with "
        f"{min(map(_trained, rare)):,} training images, and {_percent(high)} on the others (up to {most:,} images)"
        if len(rare) > 1
        else f"recall is {_percent(low)} on {rare[0]['name']!r} with {rare[0]['trained']:,} training images, and "
        f"{_percent(high)} on the other classes (up to {most:,} images)"
    )
    return Advice(what="Weigh classes equally: --balance loss or --balance sample.", evidence=evidence)


def label_errors(facts: Facts) -> Advice | None:
    sure = [
        m
        for m in facts.mistakes
        if m.get("probability", 0) >= SURE and m.get("true_probability", 1) <= SURE_AGAINST
    ]
    if len(sure) < 3 or facts.held_out is None or facts.held_out.get("top1", 0) < 0.8:
        return None
    first = sure[0]
    return Advice(
        what="Check the labels of the most confident mistakes, listed below.",
        evidence=f"{len(sure)} held-out images contradict their label with at least {SURE:.0%} probability, such as "
        f"{first['name']!r}: labelled {first['true']!r}, predicted {first['predicted']!r}",
    )


def waiting(facts: Facts) -> Advice | None:
    if facts.data_wait is None or facts.data_wait <= WAITS_FOR_DATA or facts.cached:
        return None
    return Advice(
        what="Keep decoded images: --cache disk.",
        evidence=f"{_percent(facts.data_wait)} of the training time was spent waiting for images",
    )


def larger_images(facts: Facts) -> Advice | None:
    scores = _both(facts)
    if scores is None or scores[1] >= LOW or facts.size is None or facts.source_size is None:
        return None
    if max(facts.size) > SMALL_PX or min(facts.source_size) < 2 * max(facts.size):
        return None
    wanted = 2 * max(facts.size)
    return Advice(
        what=f"Use more of the images' detail: --image-size {wanted}.",
        evidence=f"the model sees {facts.size[1]} x {facts.size[0]} pixels, the files have about "
        f"{facts.source_size[1]} x {facts.source_size[0]}, and held-out top-1 is {_percent(scores[1])}",
    )


RULES: tuple[Callable[[Facts], Advice | None], ...] = (
    overfitting,
    more_epochs,
    rare_classes,
    label_errors,
    larger_images,
    waiting,
)


def _both(facts: Facts) -> tuple[float, float] | None:
    """Top-1 on training and on held-out images."""
    if not facts.training or not facts.held_out or not _is_number(facts.held_out.get("top1")):
        return None
    return facts.training["top1"], facts.held_out["top1"]


def _recall(rows: list[dict[str, Any]]) -> float:
    """The share of correct predictions over all images of these classes."""
    images = sum(c["images"] for c in rows)
    return sum(c["recall"] * c["images"] for c in rows) / images if images else 0.0


def _trained(row: dict[str, Any]) -> int:
    return int(row["trained"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
