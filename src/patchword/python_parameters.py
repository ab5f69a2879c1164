"""The parameters of the functions of `import patchword as pw`, as the packages below take them."""

import inspect as signatures
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.request import BOX_OPTIONS, FOLDER_OPTIONS, TABLE_OPTIONS, OpenRequest
from patchword.errors import SettingsError, UserError
from patchword.formats.facts import Options
from patchword.runs import run
from patchword.runs.finish import Run
from patchword.runs.folds import extend_without_resume, resume, train_folds
from patchword.runs.prepare import Prepared, TrainRequest, prepare

if TYPE_CHECKING:
    from patchword.training.overlay import Overlay
    from patchword.training.progress import Progress

Sides = int | Sequence[int] | None


def opening_of(asked: Mapping[str, Any]) -> OpenRequest:
    """The parameters of a function that say how data are opened."""
    names = (*TABLE_OPTIONS, *FOLDER_OPTIONS, "labels", "ignore_unknown_classes", "max_pixels")
    only_training = {name: asked[name] for name in ("val", "folds") if name in asked}
    if only_training.get("val") is not None:
        only_training["val"] = str(only_training["val"])
    boxes = {name: asked[name] for name in BOX_OPTIONS if name in asked}
    if not isinstance(boxes.get("annotations"), str | None):
        boxes["annotations"] = tuple(boxes["annotations"])
    return OpenRequest(**{name: asked[name] for name in names}, **only_training, **boxes, boxes=bool(boxes))


def trained(train: Callable[..., Any], asked: Mapping[str, Any]) -> Run:
    """Train or resume as the parameters of `train` say. Raises: as `train`."""
    shown = progress_of(asked["progress"])
    data, val = (None if asked[name] is None else str(asked[name]) for name in ("data", "val"))
    extend = asked["extend"]
    if asked["resume"] is not None:
        refuse_with_resume(train, asked)
        if extend is not None and extend < 1:
            raise UserError(f"extend is {extend}", "give the epochs to add, 1 or more")
        return resume(asked["resume"], data=data, val=val, progress=shown, extend=extend or 0)
    if extend is not None:
        raise extend_without_resume(extend)
    if data is None:
        raise UserError("data is missing", 'give "digits", a folder or .zip of class folders, or a table')
    request = train_request(asked)
    if request.opening.folds is not None:
        return train_folds(request, shown, lambda prepared: show_start(prepared, shown))
    prepared = prepare(request, shown)
    show_start(prepared, shown)
    return run(prepared, shown)


def train_request(asked: Mapping[str, Any], *, dry_run: bool = False) -> TrainRequest:
    """The parameters of `train` as `prepare` takes them."""
    return TrainRequest(
        data=str(asked["data"]),
        overlay=overlay_of(asked["config"], given_settings(asked), asked["settings"]),
        out=None if asked["out"] is None else str(asked["out"]),
        opening=opening_of(asked),
        options=asked["options"] or Options(),
        offline=asked["offline"],
        dry_run=dry_run,
        sanity=asked.get("sanity", False),
    )


def given_settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `train` that correspond to settings."""
    from patchword.training.overlay import PATHS

    given = {name: asked[name] for name in PATHS}
    given["tune"] = tune_of(given["tune"])
    for name in ("image_size", "patch_size"):
        given[name] = sides(given[name], name)
    for name in ("weights", "teacher"):
        given[name] = None if asked[name] is None else str(asked[name])
    return given


def tune_of(text: str | None) -> Any:
    """The setting of `tune`; None leaves the choice to the recipe."""
    from patchword.settings import to_plain
    from patchword.training.tune import parse_tune

    return None if text in (None, "auto") else to_plain(parse_tune(text))


def show_start(prepared: Prepared, shown: "Progress") -> None:
    shown.message(f"training {prepared.dataset.path} into {prepared.out}")
    for reading in prepared.dataset.readings:
        shown.message(f"data: {reading}")
    for problem in prepared.report.problems:
        if problem.severity != "note":
            shown.message(f"{problem.severity}: {problem.message}")


def overlay_of(
    config: str | Path | None, given: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> "Overlay":
    from patchword.training.overlay import PATHS, PRETRAINING, make_overlay

    paths = {**PATHS, **PRETRAINING}
    options = [(paths[name], name, value) for name, value in given.items() if value is not None]
    options += [(path, f"settings[{path!r}]", value) for path, value in (settings or {}).items()]
    return make_overlay(config, options)


def progress_of(asked: "Progress | bool") -> "Progress":
    from patchword.training.progress import Lines, Silent

    if isinstance(asked, bool):
        return Lines() if asked else Silent()
    return asked


def refuse_with_resume(train: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """given: the parameters of `train`. Raises: UserError if `resume` is combined with other settings, which it would ignore."""
    defaults = {p.name: p.default for p in signatures.signature(train).parameters.values()}
    free = ("data", "resume", "extend", "val", "progress")
    others = [n for n, default in defaults.items() if n not in free and given[n] != default]
    if others:
        raise UserError(
            f"{', '.join(others)} cannot be combined with resume, which keeps the run's settings",
            f"remove {', '.join(others)}, or start a new run",
        )


def sides(value: Sides, name: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SettingsError(f"{name} is {value!r}", "give pixels per side, or (rows, columns)")
    return sides[0], sides[1]
