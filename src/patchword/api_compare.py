"""`pw.compare`: the same training with several values of a setting, or finished runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import UserError
from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.python_parameters import Sides, progress_of, train_request
from patchword.python_words import in_python
from patchword.runs.comparing.compare import compare as train_and_compare
from patchword.runs.comparing.compare import resume as go_on
from patchword.runs.comparing.finished import compare_runs
from patchword.runs.comparing.plan import CompareRequest, Plan
from patchword.runs.comparing.result import Comparison, planned_power, power_words
from patchword.runs.comparing.vary import factor

if TYPE_CHECKING:
    from patchword.training.progress import Progress


@in_python
def compare(
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    vary: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 5,
    baseline: str | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights: str | Path | None = None,
    teacher: str | Path | None = None,
    model: str | None = None,
    image_size: Sides = None,
    patch_size: Sides = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    tune: str | None = None,
    cache: str | None = None,
    find_lr: bool | None = None,
    max_time: float | None = None,
    patience: int | None = None,
    balance: Literal["none", "loss", "sample", "logits"] | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    val: str | Path | None = None,
    threads: int | None = None,
    device: str | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    target_column: str | None = None,
    labels: str | None = None,
    class_level: int | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    ignore_unknown_classes: bool = False,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    annotations: str | None = None,
    box_format: str | None = None,
    options: Options | None = None,
    offline: bool = False,
    progress: "Progress | bool" = True,
) -> Comparison:
    """Train with each value of `vary` and `seeds` seeds, and compare; or compare the finished runs in the list `data`.

    vary: setting → values, e.g. {"positions.kind": ["none", "learned"]}; several settings give all combinations. The name is the end of a
    setting's name, or a parameter of `train`. baseline: the value that the others are compared with; None is the first. jobs: runs at
    once; None decides by free cores and memory. resume: the folder of a comparison that was stopped. The other parameters are those of
    `train`, and hold for every run. With a list of run folders, only baseline and out apply.
    The result has `arms`, `contrasts` with both intervals and a verdict, and `words`.
    Raises: PatchwordError, as `train`; DataError for runs that were evaluated on different images.
    """
    return _compared(dict(locals()), progress_of(progress))


def _compared(asked: Mapping[str, Any], shown: "Progress") -> Comparison:
    """What the parameters of `compare` ask for. Raises: as `compare`."""
    data, vary, folder = asked["data"], asked["vary"], asked["resume"]
    if folder is not None:
        _refuse(asked, ("data", "resume", "progress"), "resume, which keeps the settings of the comparison")
        return go_on(folder, data=None if data is None else str(data), progress=shown)
    if data is not None and not isinstance(data, str | Path):
        _refuse(asked, ("data", "baseline", "out", "progress"), "a list of finished runs")
        return compare_runs(data, baseline=asked["baseline"], out=asked["out"], progress=shown)
    if data is None or not vary:
        raise UserError(
            "there is nothing to compare",
            'give data and vary={"positions.kind": ["none", "learned"]}, or a list of finished runs',
        )
    request = CompareRequest(
        base=train_request(asked),
        factors=tuple(factor(name, list(values)) for name, values in vary.items()),
        num_seeds=asked["seeds"],
        jobs=asked["jobs"],
        baseline=asked["baseline"],
    )

    def show(plan: Plan, _: object) -> None:
        power = power_words(
            planned_power(len(plan.seeds), plan.images, len(plan.arms), plan.measure), assumed=True
        )
        shown.message(f"{plan.num_runs} runs in {plan.base.out}, {plan.jobs} at once; power: {power}")

    return train_and_compare(request, shown, show)


def _refuse(asked: Mapping[str, Any], free: tuple[str, ...], what: str) -> None:
    """Raises: UserError for parameters that would be ignored."""
    import inspect

    defaults = {p.name: p.default for p in inspect.signature(compare).parameters.values()}
    others = [name for name, value in asked.items() if name not in free and value != defaults[name]]
    if others:
        raise UserError(f"{', '.join(others)} cannot be combined with {what}", f"remove {', '.join(others)}")
