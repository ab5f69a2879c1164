"""`pw.plan`: what `pw.train` would do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.python_parameters import Sides, train_request
from patchword.python_words import in_python
from patchword.runs.prepare import prepare

if TYPE_CHECKING:
    from patchword.training.plan import Plan


@in_python
def plan(
    data: str | Path,
    *,
    out: str | Path | None = None,
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
    folds: int | None = None,
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
    annotations: str | Sequence[str] | None = None,
    box_format: str | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    options: Options | None = None,
    offline: bool = False,
) -> "Plan":
    """What `train` with the same parameters would do, like `patchword train --dry-run`; nothing is trained or written.

    `print(plan)` shows it; `plan.toml` holds every setting with its source, `plan.groups` the parameter groups.
    With folds, the plan is that of the first.
    Raises: PatchwordError, as `train`.
    """
    asked = dict(locals())
    from patchword.training.plan import make_plan

    prepared = prepare(train_request(asked, dry_run=True))
    return make_plan(prepared.dataset, prepared.chosen)
