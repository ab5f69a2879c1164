"""Select the curves of a run, with their titles and keys."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from patchword.reports import plots
from patchword.reports.plots import Chart, Line, Point
from patchword.reports.run_files import RunFiles


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawn chart with its caption and key: (style class, name) of each line."""

    title: str
    picture: Markup
    key: tuple[tuple[str, str], ...]


def charts(run: RunFiles) -> list[Figure]:
    """Loss, scores and learning rate, each only if the run recorded it."""
    return [f for f in (_loss(run), _top1(run), _ap(run), _knn(run), _learning_rate(run)) if f.picture]


def best_epoch(run: RunFiles) -> dict[str, Any] | None:
    """The first epoch with the highest validation top-1, or None if it was never measured."""
    return _highest(run, "val_top1")


def _highest(run: RunFiles, name: str) -> dict[str, Any] | None:
    measured = [e for e in run.epochs if _is_number(e.get(name))]
    return max(measured, key=lambda e: (e[name], -e["epoch"])) if measured else None


def _loss(run: RunFiles) -> Figure:
    lines = [
        Line(name="training loss, each step", points=_by_step(run, "loss"), style="line faint"),
        Line(name="training loss", points=_by_epoch(run, "train_loss"), style="line train", marks=True),
        Line(name="validation loss", points=_by_epoch(run, "val_loss"), style="line val", marks=True),
        Line(name="held-out images", points=_by_epoch(run, "val_pixels"), style="line val", marks=True),
        Line(name="nearest visible patch", points=_by_epoch(run, "val_nearest"), style="line floor"),
        Line(name="bilinear interpolation", points=_by_epoch(run, "val_bilinear"), style="line top5"),
        Line(name="each patch's own mean", points=_by_epoch(run, "val_patch_mean"), style="line rate"),
    ]
    return _figure("loss", "Loss", lines, _short, from_zero=True)


def _top1(run: RunFiles) -> Figure:
    lines = [
        Line(name="validation top-1", points=_by_epoch(run, "val_top1"), style="line val", marks=True),
        Line(name="validation top-5", points=_by_epoch(run, "val_top5"), style="line top5", marks=True),
    ]
    floor, last = _floor(run), max((float(e["epoch"]) for e in run.epochs), default=0.0)
    if floor is not None and any(line.points for line in lines):
        points = [(0.0, floor), (last, floor)]
        lines.append(Line(name="floor: probe on frozen features", points=points, style="line floor"))
    best = best_epoch(run)
    ring = (float(best["epoch"]), float(best["val_top1"])) if best else None
    return _figure("top1", "Accuracy", lines, _percent, ring=ring, y_most=1.0)


def _ap(run: RunFiles) -> Figure:
    """Of boxes; the ring is the best epoch."""
    lines = [
        Line(name="validation AP", points=_by_epoch(run, "val_ap"), style="line val", marks=True),
        Line(name="validation AP50", points=_by_epoch(run, "val_ap50"), style="line top5", marks=True),
    ]
    best = _highest(run, "val_ap")
    ring = (float(best["epoch"]), float(best["val_ap"])) if best else None
    return _figure("ap", "Average precision", lines, _percent, ring=ring, y_most=1.0)


def _knn(run: RunFiles) -> Figure:
    """The k-NN accuracy on watched images, and that of the weights before training."""
    lines = [
        Line(name="k-NN on watched images", points=_by_epoch(run, "val_knn"), style="line val", marks=True)
    ]
    start = run.data.get("start_knn")
    if start is not None and _is_number(start) and lines[0].points:
        last = max(float(e["epoch"]) for e in run.epochs)
        points = [(0.0, float(start)), (last, float(start))]
        lines.append(Line(name="before training", points=points, style="line floor"))
    return _figure("knn", "k-NN accuracy", lines, _percent, y_most=1.0)


def _floor(run: RunFiles) -> float | None:
    """Top-1 of the probe that ran before training."""
    found = run.data.get("floor") or next((e["floor"] for e in run.epochs if e.get("floor")), None) or {}
    return float(found["top1"]) if _is_number(found.get("top1")) else None


def _learning_rate(run: RunFiles) -> Figure:
    points = _by_step(run, "lr") or _by_epoch(run, "lr")
    return _figure(
        "rate",
        "Learning rate",
        [Line(name="learning rate", points=points, style="line rate")],
        _short,
        from_zero=True,
    )


def _figure(slug: str, title: str, lines: list[Line], show: Any, **more: Any) -> Figure:
    drawn = [line for line in lines if plots.finite(line.points)]
    ends = "; ".join(
        f"{line.name} from {show(points[0][1])} to {show(points[-1][1])}"
        for line in drawn
        for points in [plots.finite(line.points)]
    )
    chart = Chart(
        title=f"{title} by epoch", description=f"{ends}.", lines=drawn, show=show, slug=slug, **more
    )
    return Figure(title=title, picture=plots.svg(chart), key=tuple((s.style, s.name) for s in drawn))


def _by_epoch(run: RunFiles, name: str) -> list[Point]:
    return [(float(e["epoch"]), float(e[name])) for e in run.epochs if _is_number(e.get(name))]


def _by_step(run: RunFiles, name: str) -> list[Point]:
    """Points for each step, on the epoch axis: epoch 1 ends at x = 1."""
    # A run that was cut off in its first epoch has no complete one.
    ends = [e for e in run.epochs if _is_number(e.get("step")) and e["step"] > 0 and e["epoch"] > 0]
    if not ends:
        return []
    per_epoch = ends[-1]["step"] / ends[-1]["epoch"]
    return [
        (s["step"] / per_epoch, float(s[name]))
        for s in run.steps
        if _is_number(s.get("step")) and _is_number(s.get(name))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value * 100:.3g}\u00a0%"
