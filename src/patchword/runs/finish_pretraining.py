"""The result of a pre-training run: its last scores, a gallery of reconstructions, the report."""

import base64
import io
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.dataset import Dataset
from patchword.errors import UserError, plural
from patchword.inference.evaluate_pixels import PixelEvaluation, verdict

# Images of the gallery.
SHOWN = 6

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
        pictures=_gallery(folder, dataset),
    )


def _gallery(folder: Path, dataset: Dataset) -> list[dict[str, str]]:
    """Reconstructions of some held-out images, always the same under the same masks, by the weights of the last epoch."""
    from patchword.data.loader import Named
    from patchword.explaining.drawing.reconstruction import reconstruction_sheet
    from patchword.explaining.reconstruction import reconstruct_each
    from patchword.inference.failures import Failures
    from patchword.inference.load_mae import load_mae
    from patchword.reports.sheet import draw_sheet
    from patchword.training.runfolder import LAST

    split = dataset.evaluation
    rows = sorted({round(i * (len(split) - 1) / max(SHOWN - 1, 1)) for i in range(SHOWN)})
    loaded = load_mae(folder / LAST)
    named = [Named(name=split.names[row], source=partial(split.source, row)) for row in rows]
    found = list(
        reconstruct_each(
            loaded.mae, loaded.card.preprocess, named, max_pixels=split.max_pixels, failures=Failures()
        )
    )
    if not found:
        return []
    sheet = draw_sheet(reconstruction_sheet(found, folder.name, 0))
    picture = io.BytesIO()
    # Photographs in 256 colours would show bands; a JPEG of this quality does not.
    sheet.convert("RGB").save(picture, "JPEG", quality=88)
    data = f"data:image/jpeg;base64,{base64.b64encode(picture.getvalue()).decode()}"
    text = f"Reconstructions of {plural(len(found), 'held-out image')} with the weights of the last epoch"
    return [{"data": data, "text": text}]
