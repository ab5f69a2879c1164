"""A model as it is now into one file: what was trained by hand, or changed in memory."""

import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.native import check_suffix, fill, write_model
from patchword.checkpoints.report import LoadReport
from patchword.checkpoints.source import origin_of_loaded, refuse_partial
from patchword.errors import CheckpointError, OutputError
from patchword.model.config import ViTConfig
from patchword.model.vit import ViT


def save_model(vit: ViT, card: ModelCard, report: LoadReport, path: Path) -> None:
    """See `Model.save`: a model as it is now, the card that it came with and the report of its loading."""
    check_suffix(path)
    if path.exists():
        raise OutputError(f"{path} exists", "choose another name; nothing is overwritten")
    refuse_partial(report)
    tensors = {k: v.detach().cpu().contiguous() for k, v in vit.state_dict().items()}
    _check(tensors, card.config, path)
    card = origin_of_loaded(card, report)
    # Scores were those of the weights that were loaded; whether these are still the same nobody knows.
    where = replace(
        card.provenance,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        patchword=metadata.version("patchword"),
        metrics={},
        facts={**card.provenance.facts, "saved": "from memory"},
    )
    write_model(path, tensors, replace(card, provenance=where))


def _check(tensors: dict[str, torch.Tensor], config: ViTConfig, path: Path) -> None:
    """Raises: CheckpointError where the tensors are not those of the config, or hold what is no number."""
    with torch.device("meta"):
        described = ViT(config)
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
