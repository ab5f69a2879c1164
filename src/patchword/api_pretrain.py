"""`pw.pretrain`: learn from images without labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.data.request import OpenRequest
from patchword.errors import UserError
from patchword.formats.facts import Options
from patchword.images.limits import MAX_PIXELS
from patchword.python_parameters import (
    Sides,
    overlay_of,
    progress_of,
    refuse_with_resume,
    show_start,
    sides,
)
from patchword.python_words import in_python
from patchword.runs import resume_folder, run
from patchword.runs.finish import Run
from patchword.runs.prepare import TrainRequest, prepare

if TYPE_CHECKING:
    from patchword.training.progress import Progress


@in_python
def pretrain(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    weights: str | Path | None = None,
    model: str | None = None,
    image_size: Sides = None,
    patch_size: Sides = None,
    mask_ratio: float | None = None,
    decoder_dim: int | None = None,
    decoder_depth: int | None = None,
    decoder_heads: int | None = None,
    norm_targets: bool | None = None,
    watch: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    find_lr: bool | None = None,
    max_time: float | None = None,
    seed: int | None = None,
    split_seed: int | None = None,
    cache: str | None = None,
    threads: int | None = None,
    device: str | None = None,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    image_column: str | None = None,
    split_column: str | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    options: Options | None = None,
    offline: bool = False,
    progress: "Progress | bool" = True,
) -> Run:
    """Pre-train a masked autoencoder on images without labels, like `patchword pretrain`.

    data: any folder, zip or table of images. weights: continue from these, as `load` accepts them. mask_ratio: share of hidden
    patches. norm_targets: predict patches standardised one by one, or pixels. watch: labelled images, whose k-NN accuracy
    decides which weights are the best. The others are as in `train`. `run.model` is the encoder, ready to embed; `train` with
    `weights=run.folder` fine-tunes it.
    Raises: PatchwordError; TrainingBroken, Interrupted.
    """
    asked = dict(locals())
    shown = progress_of(progress)
    if resume is not None:
        refuse_with_resume(pretrain, asked)
        return resume_folder(resume, data=None if data is None else str(data), progress=shown)
    if data is None:
        raise UserError("data is missing", "give a folder, .zip or table of images")
    prepared = prepare(_request(asked), shown)
    show_start(prepared, shown)
    return run(prepared, shown)


def _request(asked: Mapping[str, Any]) -> TrainRequest:
    from patchword.training.overlay import PATHS, PRETRAINING

    given = {name: asked[name] for name in (*PATHS, *PRETRAINING) if name in asked}
    for name in ("image_size", "patch_size"):
        given[name] = sides(given[name], name)
    for name in ("weights", "watch"):
        given[name] = None if given[name] is None else str(given[name])
    opening = OpenRequest(
        without_labels=True,
        image_column=asked["image_column"],
        split_column=asked["split_column"],
        max_pixels=asked["max_pixels"],
    )
    return TrainRequest(
        data=str(asked["data"]),
        overlay=overlay_of(asked["config"], given, asked["settings"]),
        out=None if asked["out"] is None else str(asked["out"]),
        opening=opening,
        options=asked["options"] or Options(),
        offline=asked["offline"],
    )
