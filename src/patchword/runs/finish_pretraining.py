"""The result of a pre-training run: its last scores, a gallery of reconstructions, the report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.dataset import Dataset
from patchword.errors import UserError
from patchword.inference.evaluate_pixels import PixelEvaluation, verdict

if TYPE_CHECKING:
    from patchword.training.config import TrainSettings


def pixel_evaluation(folder: Path, settings: "TrainSettings", dataset: Dataset) -> PixelEvaluation:
    """The scores that the last epoch recorded: evaluation images and masks are the same in every epoch.

    Raises: UserError if the run recorded none.
    """
    from patchword.training.runfolder import METRICS, RunFolder
    from patchword.training.start_score import START_KNN
    from patchword.training.tasks.mae import PIXELS
    from patchword.training.tasks.settings import MAESettings
    from patchword.training.tasks.watch import KNN
    from patchword.training.train import read_run

    assert isinstance(settings.task, MAESettings)
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    last = next((r for r in reversed(records) if PIXELS in r), None)
    if last is None:
        raise UserError(f"{folder} has no scores", "start a new run")
    baselines = {
        name: last[f"val_{name}"] for name in ("patch_mean", "nearest", "bilinear") if f"val_{name}" in last
    }
    _, facts = read_run(RunFolder(folder))
    split = dataset.evaluation
    return PixelEvaluation(
        data=dataset.path,
        split=split.name,
        images=len(split),
        scored=int(last.get("val_images", len(split))),
        pixels=last[PIXELS],
        baselines=baselines,
        mask_ratio=settings.task.decoder.mask_ratio,
        norm_targets=settings.task.decoder.norm_targets,
        knn=last.get(KNN),
        start_knn=facts.get(START_KNN),
        notice=verdict(last[PIXELS], baselines),
    )
