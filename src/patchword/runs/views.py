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
    from patchword.training.config import TrainSettings
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
    facts = data_facts(report) if start is None else start.added_to(data_facts(report))
    chosen = choose(dataset, facts, overlay)
    settings = chosen.settings
    if dataset.task_kind == "boxes":
        _write_box_views(dataset, settings, path)
        return chosen
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


def _write_box_views(dataset: Dataset, settings: "TrainSettings", path: Path) -> None:
    """Training views with their boxes, two of each image. Raises: OutputError."""
    from patchword.inference.output import whole_file
    from patchword.reports.box_pictures import Annotated, draw_annotated
    from patchword.training.preview import draw_box_views

    views = draw_box_views(dataset, settings)
    images = [
        Annotated(
            name=view.name,
            pixels=view.pixels,
            corners=view.boxes.corners,
            labels=view.boxes.labels,
            dashed=view.boxes.unscored,
        )
        for view in views
    ]
    height, width = settings.view_size
    size = f"{width} x {height} pixels"
    if settings.detr is not None:
        size = f"at most {height} pixels on the shorter side and {width} on the longer"
    title = (
        f"{len(views)} training views of {os.path.basename(os.path.normpath(dataset.path))}, recipe {settings.run.recipe}",
        f"{size}, two views of each image; boxes as training sees them",
    )
    with whole_file(path, text=False) as file:
        draw_annotated(images, dataset.classes, title).save(file, "PNG")


def refuse_other_pictures(dataset: Dataset, *, draw: bool) -> None:
    """Raises: SettingsError for a picture that these data do not give."""
    if draw and dataset.task_kind != "boxes":
        raise SettingsError(
            f"--draw draws boxes, but {dataset.path} has none",
            "remove it, or draw training views with --augment",
        )
