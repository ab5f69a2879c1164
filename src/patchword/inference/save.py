"""Save a model as it is in memory, e.g. after training by hand, to one file."""

import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

from patchword.errors import CheckpointError, OutputError
from patchword.formats.report import LoadReport
from patchword.formats.source import origin_of_loaded, refuse_partial
from patchword.model.config import ViTConfig
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import check_suffix, fill, write_model


def save_model(vit: ViT, card: ModelCard, report: LoadReport, path: Path) -> None:
    """See `Model.save`. card, report: as the model was loaded."""
    check_suffix(path)
    if path.exists():
        raise OutputError(
            f"{path} already exists", "choose another name; existing files are never overwritten"
        )
    refuse_partial(report)
    tensors = {k: v.detach().cpu().contiguous() for k, v in vit.state_dict().items()}
    _check(tensors, card.config, path)
    card = origin_of_loaded(card, report)
    # Drop the metrics and the temperature: they belong to the weights as loaded, which may have changed since.
    where = replace(
        card.provenance,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        patchword=metadata.version("patchword"),
        metrics={},
        facts={**card.provenance.facts, "saved": "from memory"},
    )
    write_model(path, tensors, replace(card, provenance=where, temperature=None))


def _check(tensors: dict[str, torch.Tensor], config: ViTConfig, path: Path) -> None:
    """Raises: CheckpointError if tensors do not match the config, or contain NaN or infinite values."""
    with torch.device("meta"):
        described = ViT(config)
    try:
        fill(described, tensors, str(path))
    except CheckpointError as error:
        raise CheckpointError(
            f"{error.message} (the model was changed in memory, but its config was not)",
            "build the model with `pw.adapt` or with its own ViTConfig, and load that",
        ) from error
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path}: {broken[0]} contains NaN or infinite values; nothing was written",
            "save weights from before training diverged",
        )
