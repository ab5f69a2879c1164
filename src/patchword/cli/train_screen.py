"""What training prints: its choices, a live display on a terminal, occasional lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from patchword.cli.console import line, make_console
from patchword.errors import plural
from patchword.training.progress import Lines, clock, epoch_line, shown_loss

if TYPE_CHECKING:
    from patchword.data.check import CheckReport
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.evaluate import Evaluation
    from patchword.inference.evaluate_pixels import PixelEvaluation
    from patchword.inference.evaluate_targets import TargetEvaluation
    from patchword.runs.finish import Run
    from patchword.runs.folds import FoldedRun
    from patchword.runs.prepare import Prepared
    from patchword.training.progress import Pace
    from patchword.training.weights import Start

_console = make_console(stderr=True)
# Classes of objects listed after a run.
MOST_CLASSES = 12


@contextmanager
def screen() -> Iterator["Terminal | Lines"]:
    """Progress on standard error: a live display on a terminal, lines elsewhere."""
    shown: Terminal | Lines = Terminal() if sys.stderr.isatty() else Lines()
    try:
        yield shown
    finally:
        shown.close()


class Terminal:
    """A live display of four lines: bar, times, speed, scores."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
        )
        self._task = self._bar.add_task("reading images", total=1)
        self._facts = Text()
        self._live = Live(self._table(), console=_console, refresh_per_second=4, transient=True)
        self._live.start()

    def _table(self) -> Table:
        table = Table.grid()
        table.add_row(self._bar)
        table.add_row(self._facts)
        return table

    def message(self, text: str) -> None:
        self._live.console.print(line(text))

    def reading(self, done: int, total: int) -> None:
        self._bar.update(self._task, description="reading images", completed=done, total=total)

    def pace(self, pace: "Pace") -> None:
        steps = pace.epochs * pace.steps_per_epoch
        done = (pace.epoch - 1) * pace.steps_per_epoch + pace.step
        self._bar.update(
            self._task, description=f"epoch {pace.epoch}/{pace.epochs}", completed=done, total=steps
        )
        facts = (
            f"{clock(pace.seconds_left)} left, {clock(pace.epoch_seconds_left)} of this epoch; "
            f"{clock(pace.seconds)} so far\n"
            f"{pace.images_per_s:.0f} images/s, {100 * pace.data_wait:.0f} % waiting for images, "
            f"{pace.peak_memory_mib:.0f} MiB peak\n"
            f"loss {shown_loss(pace.loss)}, learning rate {pace.lr:.2g}"
        )
        self._facts = Text(facts)
        self._live.update(self._table())

    def epoch(self, record: dict[str, Any]) -> None:
        # Print at most about twenty epochs, so that they do not scroll everything else away.
        every = max(record["epochs"] // 20, 1)
        if record["epoch"] % every == 0 or record["epoch"] == record["epochs"]:
            self.message(epoch_line(record))

    def close(self) -> None:
        self._live.stop()


def show_problems(report: "CheckReport") -> None:
    """Print how the data were read, if that may surprise, and their problems."""
    for reading in report.dataset.readings:
        _console.print(line(f"data: {reading}"))
    for problem in report.problems:
        _console.print(line(f"{problem.severity}: {problem.message}"))
        if problem.fix and problem.severity != "note":
            _console.print(line(f"  fix: {problem.fix}"))


def show_choices(prepared: "Prepared") -> None:
    """Print what will be trained and the source of each choice; every value is in config.toml."""
    from patchword.model.cost import cost
    from patchword.settings import source_of

    settings, sources = prepared.chosen.settings, prepared.chosen.sources
    _console.print(line(f"training {prepared.report.dataset.path} into {prepared.out}"))
    if prepared.start is not None:
        _console.print(line(f"  starts from {_origin(prepared.start)}"))
    for choice in prepared.chosen.choices:
        _console.print(line(f"  {choice.what}: {choice.why}"))
    price = cost(settings.model)
    _console.print(line(f"  {price.parameters:,} parameters, {price.flops / 1e9:.3g} GFLOPs per image"))
    shown = {
        "schedule.epochs": settings.schedule.epochs,
        "run.batch_size": settings.run.batch_size,
        "optim.method": settings.optim.method,
        "optim.lr": settings.optim.lr,
        "run.seed": settings.run.seed,
    }
    values = (f"{path} {value} ({source_of(path, sources)})" for path, value in shown.items())
    _console.print(line("  " + ", ".join(values) + "; all in config.toml"))


def _origin(start: "Start") -> str:
    """The weights in one line: name, resolved source, start of the hash, licence."""
    facts = start.facts()
    source = f" ({facts['source']})" if facts["source"] not in ("", start.name) else ""
    licence = facts["licence"] or "not specified in the file"
    return f"{start.name}{source}, sha256 {facts['sha256'][:12]}…, licence {licence}"


def _result(evaluation: "Evaluation | TargetEvaluation | PixelEvaluation | BoxEvaluation") -> str:
    from patchword.inference.evaluate import Evaluation

    if not isinstance(evaluation, Evaluation):
        return evaluation.headline
    low, high = evaluation.top1_interval
    over = f" {evaluation.coverage}" if evaluation.coverage else ""
    return f"{evaluation.headline}{over} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _lines(evaluation: "Evaluation | TargetEvaluation | PixelEvaluation | BoxEvaluation") -> list[str]:
    """What is said below the headline."""
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.evaluate_pixels import PixelEvaluation

    if isinstance(evaluation, BoxEvaluation):
        return _box_lines(evaluation)
    return evaluation.lines if isinstance(evaluation, PixelEvaluation) else []


def _box_lines(evaluation: "BoxEvaluation") -> list[str]:
    """Other overlaps, the classes by AP, lowest first, and the most costly kind of error."""
    scores = evaluation.scores
    if scores.ap is None:
        return []

    def share(value: float | None) -> str:
        return f"{100 * (value or 0.0):.1f} %"

    classes = sorted((one for one in scores.classes if one.ap is not None), key=lambda one: one.ap or 0.0)
    lines = [f"AP50 {share(scores.ap50)}, AP75 {share(scores.ap75)}"]
    lines += [
        f"{one.name}: AP {share(one.ap)}, AP50 {share(one.ap50)} ({plural(one.truths, 'box', 'boxes')})"
        for one in classes[:MOST_CLASSES]
    ]
    if len(classes) > MOST_CLASSES:
        lines.append(f"and {len(classes) - MOST_CLASSES} classes with a higher AP, in the report")
    costly = max(scores.errors, key=lambda error: error.dap or 0.0, default=None)
    if costly is not None and costly.dap:
        lines.append(f"most costly errors: {costly.name} ({100 * costly.dap:.1f} points of AP50)")
    return lines


def show_result(run: "Run") -> None:
    from patchword.runs.folds import FoldedRun

    if isinstance(run, FoldedRun):
        _show_folds(run)
        return
    evaluation = run.evaluation
    _console.print(
        line(
            f"{_result(evaluation)} on {evaluation.scored} of {evaluation.images} images of {evaluation.split}, "
            "EMA weights of the last epoch"
        )
    )
    for text in _lines(evaluation):
        _console.print(line(f"  {text}"))
    if (training := getattr(evaluation, "training", None)) is not None:
        sample = "" if training.scored == training.of else f" of {training.of:,}"
        _console.print(
            line(
                f"top-1 {100 * training.top1:.1f} % on {training.scored:,}{sample} training images, without augmentation"
            )
        )
    for name, reason in run.skipped[:5]:
        _console.print(line(f"skipped in training: {name}: {reason}"))
    if len(run.skipped) > 5:
        _console.print(
            line(f"skipped in training: {plural(len(run.skipped), 'image')} in total, see log.txt")
        )
    _console.print(line(f"report: {run.folder / 'report.html'}"))
    if evaluation.notice:  # last, because it qualifies everything above
        _console.print(line(f"warning: {evaluation.notice}"))


def _show_folds(run: "FoldedRun") -> None:
    """The summary of a run of folds; its folds have a line each above."""
    from patchword.inference.evaluate import Evaluation

    evaluation, (low, high) = run.evaluation, run.mean_interval
    assert isinstance(evaluation, Evaluation)  # folds take one class per image
    shares = f"{100 * run.mean_top1:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    _console.print(line(f"mean of {len(run.scores)} folds: top-1 {shares}"))
    low, high = evaluation.top1_interval
    over = f" {evaluation.coverage}" if evaluation.coverage else ""
    shares = f"{100 * evaluation.top1:.1f} %{over} (95 % interval {100 * low:.1f} to {100 * high:.1f})"
    _console.print(line(f"out of fold: top-1 {shares} on {plural(evaluation.scored, 'image')}"))
    if run.left_out:
        why = "because the initial weights or the teacher were trained on them"
        _console.print(line(f"not predicted: {plural(run.left_out, 'image')}, {why}"))
    for name, reason in run.skipped[:5]:
        _console.print(line(f"not scored: {name}: {reason}"))
    if len(run.skipped) > 5:
        _console.print(line(f"not scored: {plural(len(run.skipped), 'image')} in total, see folds.json"))
    _console.print(line(f"predictions: {run.folder / 'out-of-fold.csv'}"))
    _console.print(line(f"report: {run.folder / 'report.html'}"))
    if evaluation.notice:
        _console.print(line(f"warning: {evaluation.notice}"))
