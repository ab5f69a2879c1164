"""A model as it is now into one file: what was trained by hand, or changed in memory."""

import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from patchword.checkpoints.native import check_suffix, fill, write_model
from patchword.checkpoints.source import origin_of_loaded, refuse_partial
from patchword.errors import CheckpointError, OutputError
from patchword.model.vit import ViT

if TYPE_CHECKING:
    from patchword.inference.model import Model


def save_model(model: "Model", path: Path) -> None:
    """See `Model.save`."""
    check_suffix(path)
    if path.exists():
        raise OutputError(f"{path} exists", "choose another name; nothing is overwritten")
    refuse_partial(model.report)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.vit.state_dict().items()}
    _check(tensors, model, path)
    card = origin_of_loaded(model.card, model.report)
    # Scores were those of the weights that were loaded; whether these are still the same nobody knows.
    where = replace(
        card.provenance,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        patchword=metadata.version("patchword"),
        metrics={},
        facts={**card.provenance.facts, "saved": "from memory"},
    )
    write_model(path, tensors, replace(card, provenance=where))


def _check(tensors: dict[str, torch.Tensor], model: "Model", path: Path) -> None:
    """Raises: CheckpointError where the tensors are not those of the config, or hold what is no number."""
    with torch.device("meta"):
        described = ViT(model.config)
    try:
        fill(described, tensors, str(path))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error.message} (its parts were changed in memory, its config was not)",
            "build the model with `pw.adapt` or a ViTConfig of its own, and load that",
        ) from error
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path}: {broken[0]} holds numbers that are none (NaN or infinite), nothing is written",
            "save weights from before training broke",
        )
