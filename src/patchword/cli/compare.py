"""`patchword compare`: train with several values of a setting and several seeds, or compare finished runs."""

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from patchword.cli.options import box_options
from patchword.cli.train_options import file_options, setting_options, train_request
from patchword.errors import UserError

if TYPE_CHECKING:
    from patchword.runs.comparing.result import Comparison
    from patchword.training.progress import Progress

# What applies to finished runs, and to a comparison that goes on.
_WITH_RUNS = frozenset(("arguments", "out", "as_json", "baseline"))
_WITH_RESUME = frozenset(("arguments", "resume", "as_json"))
_DEFAULT_SEEDS = 5


@click.command()
@click.argument("arguments", nargs=-1, metavar="DATA | RUN RUN…")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=A,B",
    help="Setting to vary and its values; repeat it for all combinations.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    metavar="N",
    help=f"Train each setting with N seeds, from --seed on. [default: {_DEFAULT_SEEDS}]",
)
@click.option(
    "--baseline", metavar="VALUE", help="Value that the others are compared with. [default: the first]"
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Train N runs at once. [default: by free cores and memory; 1 on a GPU]",
)
@click.option("--out", metavar="FOLDER", help="Folder to create for all runs and the report.")
@click.option("--resume", metavar="FOLDER", help="Go on with a comparison that was stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its power; train nothing.")
@setting_options
@file_options
@box_options
def compare(
    arguments: tuple[str, ...],
    vary: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Compare values of a setting by training with each, or compare finished runs.

    \b
    patchword compare flowers/ --vary positions.kind=none,learned,rope2d
    patchword compare flowers/ --vary norm=layer,rms --vary lr=1e-3,3e-3 --seeds 3
    patchword compare runs/a runs/b
    patchword compare --resume runs/flowers-comparison

    NAME is the end of a setting's name (`train --dry-run` lists them), the name of an option (lr,
    recipe, weights) or one of norm, pool, patch and positions. Every setting is trained with the same
    seeds. A difference is called clear only if it holds for other seeds and for other images, after a
    correction for the number of comparisons.

    Every run is a run folder of `patchword train` in the comparison's folder, which also has report.html.
    Exits with 3 if a run diverged.
    """
    from patchword import machine
    from patchword.cli.compare_screen import show_comparison
    from patchword.cli.train_screen import screen
    from patchword.errors import PartialFailure

    machine.start_sampling()
    _refuse_mixtures(arguments, vary, given)
    with screen() as progress:
        if given["resume"] is not None:
            found = _resumed(arguments, given["resume"], progress)
        elif vary:
            asked = _compared(arguments, vary, overrides, given, progress)
            if asked is None:
                return
            found = asked
        else:
            found = _of_runs(arguments, given, progress)
    show_comparison(found, as_json=as_json)
    lost = [f"{arm.name} (seed {run.seed})" for arm in found.arms for run in arm.broken]
    if lost:
        raise PartialFailure(
            f"{len(lost)} of {sum(len(arm.runs) for arm in found.arms)} runs diverged: {', '.join(lost)}",
            "see their log.txt; a lower --lr often helps",
        )


def _compared(
    arguments: tuple[str, ...],
    vary: tuple[str, ...],
    overrides: tuple[str, ...],
    given: dict[str, Any],
    progress: "Progress",
) -> "Comparison | None":
    """Train and compare; None with --dry-run."""
    from patchword.cli.compare_screen import show_plan
    from patchword.runs.comparing.compare import compare
    from patchword.runs.comparing.plan import CompareRequest, make_plan
    from patchword.runs.comparing.vary import parse_vary

    if len(arguments) > 1:
        raise UserError(
            f"--vary trains on one DATA, but {len(arguments)} are given: {', '.join(arguments[:4])}",
            "give one, or remove --vary to compare finished runs",
        )
    base = train_request(
        arguments[0] if arguments else None, given["out"], overrides, given | {"dry_run": False}
    )
    request = CompareRequest(
        base=base,
        factors=tuple(map(parse_vary, vary)),
        num_seeds=given["seeds"] or _DEFAULT_SEEDS,
        jobs=given["jobs"],
        baseline=given["baseline"],
    )
    if given["dry_run"]:
        plan, prepared = make_plan(request, progress)
        show_plan(plan, prepared)
        click.echo("nothing was trained or written (--dry-run)", err=True)
        return None
    return compare(request, progress, show_plan)


def _resumed(arguments: tuple[str, ...], folder: str, progress: "Progress") -> "Comparison":
    from patchword.cli.compare_screen import show_plan
    from patchword.runs.comparing.compare import resume

    if len(arguments) > 1:
        raise UserError("--resume takes at most one DATA, its images' new location", "remove the others")
    return resume(folder, data=arguments[0] if arguments else None, progress=progress, show=show_plan)


def _of_runs(arguments: tuple[str, ...], given: dict[str, Any], progress: "Progress") -> "Comparison":
    from patchword.runs.comparing.finished import compare_runs

    return compare_runs(arguments, baseline=given["baseline"], out=given["out"], progress=progress)


def _refuse_mixtures(arguments: tuple[str, ...], vary: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raises: UserError for options that the command would ignore, and without anything to compare."""
    ctx = click.get_current_context()
    asked = {
        option.name: option.opts[0]
        for option in ctx.command.params
        if option.name is not None and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }
    if given["resume"] is not None:
        others = [flag for name, flag in asked.items() if name not in _WITH_RESUME]
        why = "cannot be combined with --resume, which keeps the settings of the comparison"
    elif not vary:
        if not arguments:
            raise UserError(
                "there is nothing to compare",
                "give DATA with --vary NAME=A,B, or finished runs: `patchword compare runs/a runs/b`",
            )
        others = [flag for name, flag in asked.items() if name not in _WITH_RUNS]
        why = "only applies with --vary: finished runs keep their settings"
    else:
        return
    if others:
        raise UserError(
            f"{', '.join(others)} {why}",
            f"remove {', '.join(others)}" + ("" if given["resume"] else ", or add --vary NAME=A,B"),
        )
