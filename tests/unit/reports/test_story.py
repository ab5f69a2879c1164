"""What the page picks from the files of a run."""

from pathlib import Path

import pytest

from patchword.reports import sections
from patchword.reports.curves import best_epoch
from patchword.reports.run_files import RunFiles, read_run
from support.run_folder import evaluation_of, write_sample

CLASSES = ["cat", "dog", "owl"]


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    write_sample(tmp_path, CLASSES)
    return read_run(tmp_path)


def test_of_equal_epochs_the_first_is_the_best_as_in_training(run: RunFiles) -> None:
    for epoch, top1 in zip(run.epochs, (0.5, 0.75, 0.75), strict=True):
        epoch["val_top1"] = top1
    best = best_epoch(run)
    assert best is not None and best["epoch"] == 2


def test_each_row_of_the_confusion_matrix_is_shared_out_among_its_cells() -> None:
    for row in sections.matrix(evaluation_of(CLASSES, wrong=2), 40):
        assert sum(cell["share"] for cell in row["cells"]) == pytest.approx(1)
        assert sum(cell["count"] for cell in row["cells"]) == row["total"] == 7
