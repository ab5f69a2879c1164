"""Section about detected boxes: scores, curves, kinds of errors and the worst images.

Everything comes from `DetectionScores.to_dict`, under `detection` in `evaluation.json` of the task `detect`. If an image of `worst`
also has a `thumbnail` (an embedded image, as of mistakes), it is shown.
"""

from typing import Any

from markupsafe import Markup

from patchword.reports import plots
from patchword.reports.plots import Chart, Line

# Classes with a curve of their own, lowest AP first.
MOST_CURVES = 12
MEANINGS = {
    "class": "on an object, but named as another class",
    "place": "on an object of its class, but overlapping it by less than half",
    "both": "near an object of another class",
    "duplicate": "on an object that was already found",
    "background": "on no object",
    "missed": "an object without a detection, not even one of the wrong class or place",
}
_STYLES = ("line val", "line top5")


def section(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the template needs; None if no detections were scored."""
    scores: dict[str, Any] | None = (evaluation or {}).get("detection")
    if not scores or not evaluation:
        return None
    classes = sorted(scores["classes"], key=lambda c: (c["ap"] is None, c["ap"] or 0.0, c["name"]))
    return scores | {
        "split": evaluation.get("split"),
        "scored": evaluation.get("scored", scores["images"]),
        "of": evaluation.get("images", scores["images"]),
        "unreadable": evaluation.get("unreadable") or [],
        "classes": classes,
        "errors": _errors(scores["errors"]),
        "picture": _mean_curves(scores["curves"]),
        "key": _key(scores["curves"]),
        "class_curves": [
            {"name": c["name"], "ap50": c["ap50"], "picture": _class_curve(i, c)}
            for i, c in enumerate([c for c in classes if c["precision"]][:MOST_CURVES])
        ],
        "with_curve": sum(1 for c in classes if c["precision"]),
        "notes": _notes(scores),
    }


def _errors(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kinds of errors, the one that costs most first; `bar` is relative to it."""
    rows = sorted(errors, key=lambda e: -(e["dap"] or 0.0))
    largest = max((e["dap"] or 0.0 for e in rows), default=0.0)
    return [
        e
        | {"meaning": MEANINGS[e["name"]], "bar": max(e["dap"] or 0.0, 0.0) / largest if largest > 0 else 0.0}
        for e in rows
    ]


def _notes(scores: dict[str, Any]) -> list[str]:
    """What a reader must know to compare the scores with others."""
    notes = []
    usual, limit = scores["coco_detections"], scores["max_detections"]
    if limit != usual and scores["most_truths"] > usual:
        notes.append(
            f"Up to {limit} detections of each image and class count, because an image has {scores['most_truths']} boxes "
            f"of a class. COCO counts {usual}."
        )
    elif limit != usual:
        notes.append(f"Up to {limit} detections of each image and class count. COCO counts {usual}.")
    if scores["dropped"]:
        notes.append(
            f"{scores['dropped']:,} detections beyond the {limit} with the highest scores of their image and class were "
            "dropped."
        )
    if scores["without_area"]:
        notes.append(
            f"{scores['without_area']:,} of the {scores['truths']:,} boxes have no area. No detection can overlap them, "
            "so they count as not found."
        )
    if scores["ignored"]:
        notes.append(
            f"{scores['ignored']:,} crowds and difficult boxes need not be found; a detection of one is neither right nor "
            "wrong."
        )
    return notes


def _mean_curves(curves: list[dict[str, Any]]) -> Markup:
    lines = [
        Line(name=_name(curve), points=_points(curve["precision"]), style=style)
        for curve, style in zip(curves, _STYLES, strict=False)
    ]
    return _chart("precision", "Precision by recall", lines)


def _class_curve(number: int, score: dict[str, Any]) -> Markup:
    line = Line(name="precision", points=_points(score["precision"]), style=_STYLES[0])
    return _chart(f"precision-{number}", f"Precision by recall of {score['name']}", [line])


def _chart(slug: str, title: str, lines: list[Line]) -> Markup:
    ends = [
        f"{line.name}: {_percent(line.points[0][1])} at the lowest recall, above 0 up to a recall of "
        f"{max((x for x, y in line.points if y > 0), default=0):.0f} %"
        for line in lines
    ]
    return plots.svg(
        Chart(
            title=title,
            description="; ".join(ends) + ".",
            lines=lines,
            show=_percent,
            y_most=1.0,
            y_reach=1.0,
            from_zero=True,
            slug=slug,
            x_name="recall, %",
        )
    )


def _key(curves: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(style, _name(curve)) for curve, style in zip(curves, _STYLES, strict=False)]


def _name(curve: dict[str, Any]) -> str:
    return f"overlap of at least {curve['overlap']:.2f}"


def _points(precision: list[float]) -> list[tuple[float, float]]:
    """Recall in percent, and precision."""
    return [(100 * i / (len(precision) - 1), p) for i, p in enumerate(precision)]


def _percent(value: float) -> str:
    return f"{value * 100:.3g}\u00a0%"
