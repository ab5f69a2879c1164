"""Sections about how training went: calibration, training score, confused pairs, stages, groups, floor.

Each is empty if the files of the run do not record it.
"""

from typing import Any

from markupsafe import Markup

from patchword.metrics.calibration import FEWEST_IMAGES
from patchword.reports.run_files import RunFiles

WAITS_FOR_DATA = 0.10
# Of the stages of an epoch record: key, name, where the work is done.
STAGES = (
    ("read_s", "read files"),
    ("decode_s", "decode images"),
    ("augment_s", "augment"),
    ("step_s", "model and optimiser"),
)
BOX, PAD = 240, 34


def calibration(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The calibration with its reliability diagram; None if it was not measured."""
    found: dict[str, Any] | None = (evaluation or {}).get("calibration")
    if not found or not found.get("bins"):
        return None
    confidence = sum(b["images"] * b["confidence"] for b in found["bins"]) / found["images"]
    accuracy = sum(b["images"] * b["accuracy"] for b in found["bins"]) / found["images"]
    return found | {
        "picture": reliability(found["bins"], found.get("bins_after") or []),
        "mean_confidence": confidence,
        "mean_accuracy": accuracy,
        "few": found["images"] < FEWEST_IMAGES,
    }


def reliability(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Markup:
    """Accuracy by confidence as SVG: on the diagonal, predictions are as often right as they say."""

    def place(x: float, y: float) -> str:
        return f"{PAD + x * BOX:.1f},{8 + (1 - y) * BOX:.1f}"

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = PAD + tick * BOX, 8 + (1 - tick) * BOX
        parts.append(f'<line class="grid" x1="{PAD}" x2="{PAD + BOX}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{PAD - 5}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.0f}</text>')
        parts.append(f'<text x="{x:.1f}" y="{BOX + 24}" text-anchor="middle">{100 * tick:.0f}</text>')
    parts.append(
        f'<polyline class="line rate dashes" points="{place(0, 0)} {place(1, 1)}"/>'
        f'<text class="axis" x="{PAD + BOX / 2}" y="{BOX + 40}" text-anchor="middle">confidence, %</text>'
    )
    for bins, style, name in ((before, "val", "as predicted"), (after, "top5", "with temperature")):
        if not bins:
            continue
        spots = [place(b["confidence"], b["accuracy"]) for b in bins]
        parts.append(f'<polyline class="line {style}" points="{" ".join(spots)}"/>')
        for b, spot in zip(bins, spots, strict=True):
            left, top = spot.split(",")
            title = (
                f"{name}: confidence {100 * b['confidence']:.1f} %, accuracy {100 * b['accuracy']:.1f} % "
                f"of {b['images']} images"
            )
            parts.append(
                f'<circle class="line {style} mark" cx="{left}" cy="{top}" r="2.6"><title>{title}</title></circle>'
            )
    label = "Reliability diagram: share of correct predictions by confidence"
    # Only numbers and names from this function.
    return Markup(
        f'<svg class="chart reliability" viewBox="0 0 {PAD + BOX + 14} {BOX + 44}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def training_gap(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The score on clean training images beside the held-out one, and one sentence on their gap."""
    training: dict[str, Any] | None = (evaluation or {}).get("training")
    if not training or not evaluation or evaluation.get("top1") is None:
        return None
    gap = training["top1"] - evaluation["top1"]
    shared = training["top1_interval"][0] <= evaluation["top1_interval"][1]
    points = f"{100 * gap:.1f} points"
    if shared and gap > 0.05:
        sentence = f"The gap of {points} lies within the intervals of the two scores: too few images to call it over-fitting."
    elif gap > 0.05:
        sentence = (
            f"The gap of {points} is over-fitting: the model knows its training images better than new ones."
        )
    elif training["top1"] < 0.9 and gap <= 0.05:
        sentence = (
            "Both scores are close and below 90 %: the model under-fits, or the classes cannot be told apart better "
            "in these images."
        )
    else:
        sentence = "Both scores are close: there is no sign of over-fitting."
    return training | {"gap": gap, "sentence": sentence}


def stages(run: RunFiles) -> dict[str, Any] | None:
    """Seconds of each stage over all epochs, the share waited, and advice if that is above 10 %."""
    rows: list[dict[str, Any]] = [
        {"key": key, "name": name, "seconds": sum(float(e.get(key) or 0) for e in run.epochs)}
        for key, name in STAGES
        if any(_is_number(e.get(key)) for e in run.epochs)
    ]
    waits = [e["data_wait"] for e in run.epochs if _is_number(e.get("data_wait"))]
    if not rows or not any(r["seconds"] for r in rows):
        return None
    largest = max(r["seconds"] for r in rows)
    share = sum(waits) / len(waits) if waits else 0.0
    return {
        "rows": [r | {"share": r["seconds"] / largest} for r in rows],
        "wait": share,
        "advice": waiting_advice({r["key"]: r["seconds"] for r in rows}) if share > WAITS_FOR_DATA else "",
    }


def waiting_advice(seconds: dict[str, float]) -> str:
    """The one change that would shorten the wait most, from the seconds that reading and decoding took."""
    read, decode = seconds.get("read_s", 0.0), seconds.get("decode_s", 0.0)
    if read > decode:
        return "Reading files took longer than decoding them: use --cache disk, on a fast local disk."
    if decode:
        return "Decoding took longer than reading: use --cache disk, which keeps decoded images for the next epochs."
    return "Use --cache disk, which keeps decoded images for the next epochs."


def groups(run: RunFiles) -> dict[str, Any] | None:
    """The table of parameter groups, from data.json or the metrics log."""
    found = run.data.get("groups") or next(
        (r["groups"] for r in (*run.epochs, *run.steps) if r.get("groups")), None
    )
    if not found:
        return None
    total = sum(g.get("count") or 0 for g in found)
    trained = sum(g.get("count") or 0 for g in found if g.get("trainable"))
    rows = [
        g
        | {
            "rate": _range(g.get("rates") or [g.get("lr")]),
            "decay": _range(g.get("decays") or [g.get("weight_decay")]),
        }
        for g in found
    ]
    return {"rows": rows, "total": total, "trained": trained}


def _range(values: list[Any]) -> str:
    """ "1e-05 to 3e-05", or one number if both ends are equal."""
    shown = [f"{value:.3g}" for value in values if _is_number(value)]
    return " to ".join(dict.fromkeys(shown)) or "–"


def is_probe(run: RunFiles) -> bool:
    """Whether the run is a head fitted to features (`--tune head`), so that it has no epochs to draw."""
    tune = run.config.get("tune")
    return isinstance(tune, dict) and tune.get("kind") == "head" and bool(run.data.get("floor"))


def floor(run: RunFiles, evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The probe on frozen features, and whether training beat it."""
    found: dict[str, Any] | None = run.data.get("floor") or next(
        (e["floor"] for e in run.epochs if e.get("floor")), None
    )
    if not found or not _is_number(found.get("top1")):
        return None
    top1 = (evaluation or {}).get("top1")
    if not _is_number(top1):
        return found | {"sentence": ""}
    if is_probe(run):
        return found | {"sentence": "It is the result: only the head was tuned, without steps."}
    interval = (evaluation or {}).get("top1_interval") or [top1, top1]
    difference = f"{abs(top1 - found['top1']) * 100:.1f} points"
    if top1 <= found["top1"]:
        if top1 == found["top1"]:
            sentence = "Training did not beat it: the scores are equal."
        else:
            sentence = f"Training did not beat it: its score is {difference} lower."
    elif interval[0] <= found["top1"]:
        sentence = f"Training scores {difference} higher, but the floor lies in its 95 % interval."
    else:
        sentence = f"Training beat it by {difference}."
    return found | {"sentence": sentence}


def pairs(evaluation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The most confused pairs of classes with their counts and surest mistakes."""
    return list((evaluation or {}).get("pairs") or [])


def thresholds(evaluation: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One row per class of a multi-label model, largest gain of its threshold over 0.5 first."""
    rows = [
        t | {"gain": t["f1_held_out"] - t["f1_default"]}
        if _is_number(t.get("f1_held_out")) and _is_number(t.get("f1_default"))
        else t | {"gain": None}
        for t in (evaluation or {}).get("thresholds") or []
    ]
    return sorted(rows, key=lambda r: -(r["gain"] if r["gain"] is not None else -2.0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
