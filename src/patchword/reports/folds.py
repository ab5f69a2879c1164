"""The page of a run of folds: the mean over folds, the score out of fold, the classes, links to the folds' reports."""

from pathlib import Path
from typing import Any

from patchword.reports import sections
from patchword.reports.html import (
    LARGEST_MATRIX,
    MAX_FAILURES,
    MAX_PAIRS,
    TINY_PX,
    filled,
    with_safe_thumbnail,
    write_page,
)
from patchword.reports.run_files import RunFiles, read_run
from patchword.training.runfolder import REPORT


def write_folds_report(folder: Path, scores: dict[str, Any]) -> Path:
    """Write report.html into the folder of all folds. scores: as in its folds.json. Raises: OutputError."""
    path = folder / REPORT
    write_page(path, filled("folds.html.j2", page(folder, scores)))
    return path


def page(folder: Path, scores: dict[str, Any]) -> dict[str, Any]:
    """All values that the template uses. Each number comes from folds.json."""
    evaluation = sections.with_ranks(scores["out_of_fold"])
    # The table of classes reads a run's data; training images differ from fold to fold, so there are none here.
    run = RunFiles(
        folder=folder,
        settings=(),
        config={},
        data={"path": scores["path"]},
        epochs=(),
        steps=(),
        evaluation=evaluation,
        log="",
        card=None,
    )
    rows = [{**row, "trained": None} for row in sections.per_class(run, evaluation)]
    sizes = read_run(folder / scores["scores"][0]["folder"]).data.get("sizes") or {}
    return {
        "folder": folder.as_posix(),
        "title": sections.data_name(run),
        "folds": scores["scores"],
        "mean": scores["mean_top1"],
        "mean_interval": scores["mean_top1_interval"],
        "spread": (
            min(s["top1"] for s in scores["scores"]),
            max(s["top1"] for s in scores["scores"]),
        ),
        "left_out": scores["left_out"],
        "evaluation": evaluation,
        "per_class": rows,
        "classes": scores["classes"],
        "matrix": sections.matrix(evaluation, LARGEST_MATRIX),
        "pairs": sections.confused_pairs(evaluation, MAX_PAIRS),
        "confused": [],
        "mistakes": [with_safe_thumbnail(m) for m in evaluation.get("mistakes", [])],
        "tiny": max(sizes.get("max") or [TINY_PX + 1]) <= TINY_PX,
        "most_failures": MAX_FAILURES,
        "scores_file": "folds.json",
    }
