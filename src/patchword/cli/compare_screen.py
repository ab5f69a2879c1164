"""What `patchword compare` prints: the plan with its power before the first run, and the table at the end."""

from typing import TYPE_CHECKING

import click
from rich.table import Table

from patchword.cli.console import line, make_console, percent
from patchword.errors import plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from rich.console import Console

    from patchword.metrics.differences import Difference
    from patchword.runs.comparing.plan import Plan
    from patchword.runs.comparing.result import ArmResult, Comparison, Contrast
    from patchword.runs.prepare import Prepared

_NAME_WIDTH = 20


def show_plan(plan: "Plan", prepared: "dict[str, Prepared] | None" = None) -> None:
    """How many runs, what is left out and why, and which differences they can decide, on standard error."""
    from patchword.cli.train_screen import show_problems
    from patchword.runs.comparing.result import planned_power, power_words

    console = make_console(stderr=True)
    if prepared:
        show_problems(next(iter(prepared.values())).report)
    settings, seeds = plural(len(plan.arms), "setting"), plural(len(plan.seeds), "seed")
    console.print(line(f"comparing {', '.join(plan.factors)} on {plan.base.data} in {plan.base.out}"))
    console.print(
        line(f"  {settings} x {seeds} = {plural(plan.num_runs, 'run')}; compared with {plan.baseline}")
    )
    for name, reason in plan.left_out:
        console.print(line(f"  left out: {name}: {reason}"))
    each = f", {plural(plan.threads, 'thread')} each" if plan.threads else ""
    console.print(line(f"  {plural(plan.jobs, 'run')} at once{each}: {plan.why_jobs}"))
    for note in plan.notes:
        console.print(line(f"  note: {note}"))
    found = planned_power(len(plan.seeds), plan.images, len(plan.arms), plan.measure)
    _print_power(console, power_words(found, assumed=True))


def show_comparison(found: "Comparison", *, as_json: bool) -> None:
    """The table on standard output, verdicts below it; or the result as JSON."""
    if as_json:
        click.echo(to_json(found.to_dict(), indent=1))
        return
    console = make_console()
    console.print(_table(found))
    console.print()
    for contrast in found.contrasts:
        console.print(line(f"{contrast.name}: {contrast.verdict}"))
    console.print()
    for words in found.words:
        console.print(line(words))
    _print_power(console, found.power)
    if found.equal_time:
        console.print(line(found.equal_time))
    for note in found.notes:
        console.print(line(f"note: {note}"))
    if found.folder is not None:
        make_console(stderr=True).print(line(f"report: {found.folder / 'report.html'}"))
        click.echo(str(found.folder))


def _print_power(console: "Console", text: str) -> None:
    head, bracket, detail = text.partition(" (")
    console.print(line(f"power: {head}"))
    if bracket:
        console.print(line(f"  {detail.rstrip(')')}"))


def _table(found: "Comparison") -> Table:
    """At most 80 columns: the mean over seeds, the difference from the baseline in points, and both its intervals."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("setting", max_width=_NAME_WIDTH, overflow="ellipsis", no_wrap=True)
    for title in (found.measure, "points", "over seeds", "over images", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    contrasts = {contrast.name: contrast for contrast in found.contrasts}
    for arm in found.arms:
        table.add_row(line(_cut(arm.name)), *map(line, _cells(arm, contrasts.get(arm.name))))
    return table


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"


def _cells(arm: "ArmResult", contrast: "Contrast | None") -> tuple[str, ...]:
    from patchword.training.progress import clock

    mean = "–" if arm.mean != arm.mean else percent(arm.mean)
    seconds = "–" if arm.seconds != arm.seconds else clock(arm.seconds)
    if contrast is None:
        return mean, "baseline", "", "", seconds
    images = contrast.images
    difference = "–" if images is None else f"{100 * images.mean:+.1f}"
    return mean, difference, _span(contrast.seeds), _span(images), seconds


def _span(found: "Difference | None") -> str:
    return "–" if found is None else f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
