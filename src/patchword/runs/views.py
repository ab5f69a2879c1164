"""Draw what training would see."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.check import CheckReport
from patchword.data.dataset import Dataset
from patchword.errors import DataError, SettingsError
from patchword.runs.prepare import TrainRequest, read_weights

if TYPE_CHECKING:
    from patchword.training.choose import Chosen
    from patchword.training.overlay import Overlay


def write_training_views(report: CheckReport, overlay: "Overlay", path: Path) -> "Chosen":
    """Draw sixteen training views, as `train` with these settings would make them, into a PNG; return the settings.

    Raises: as `prepare`; OutputError.
    """
    from patchword.reports.views import check_picture, write_views
    from patchword.training.choose import choose
    from patchword.training.preview import draw_views
    from patchword.training.recipes.facts import data_facts

    check_picture(path)
    if report.fatal:
        raise DataError(report.fatal[0].message, report.fatal[0].fix)
    dataset = report.dataset
    start = read_weights(TrainRequest(data=dataset.path, overlay=overlay), overlay.get("run.weights") or "")
    facts = data_facts(report).begun_from(start)
    chosen = choose(dataset, facts, overlay)
    settings = chosen.settings
    views = draw_views(dataset, settings)
    (height, width), (rows, columns) = settings.view_size, settings.run.stored_size
    first = (
        ""
        if settings.preprocess.in_channels in (1, 3)
        else f"; the first of {settings.preprocess.in_channels} channels"
    )
    title = (
        f"{len(views)} training views of {os.path.basename(os.path.normpath(dataset.path))}, recipe {settings.run.recipe}",
        f"left: the stored image, {columns} x {rows} pixels; right: a training view, {width} x {height}{first}; below: the target",
    )
    write_views(views, title, path)
    return chosen


def refuse_other_pictures(dataset: Dataset, *, augment: bool, draw: bool) -> None:
    """Raises: SettingsError for a picture that these data do not give."""
    has_boxes = dataset.task_kind == "boxes"
    if augment and has_boxes:
        raise SettingsError(
            f"--augment draws training views of images with classes, but {dataset.path} has boxes",
            "remove it, or draw the boxes with --draw",
        )
    if draw and not has_boxes:
        raise SettingsError(
            f"--draw draws boxes, but {dataset.path} has none",
            "remove it, or draw training views with --augment",
        )
