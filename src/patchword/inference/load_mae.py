"""Load a masked autoencoder: encoder and decoder of one file."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchword import machine
from patchword.errors import CheckpointError
from patchword.formats.facts import Options
from patchword.formats.report import LoadReport, stamps_of
from patchword.hub.find import Found, find_weights
from patchword.inference.load import drawn, in_float32, read_native, refuse_too_large
from patchword.model.shapes import DECODER
from patchword.weights.card import ModelCard
from patchword.weights.native import fill, is_native, read_card

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from patchword.model.mae import MAE

# MAE's authors publish encoders under mae/pretrain, and the same sizes with a decoder here (their repository, issue 3).
_WITH_DECODER = "https://dl.fbaipublicfiles.com/mae/visualize"


class LoadedMAE(NamedTuple):
    """card: preprocessing and origin. report: how the file was read."""

    mae: "MAE"
    card: ModelCard
    report: LoadReport


def load_mae(
    path: str | Path,
    *,
    device: "str | torch.device | None" = None,
    options: Options | None = None,
    offline: bool = False,
) -> LoadedMAE:
    """Load encoder and decoder of a run folder, weights file, hub name or published release, as `load` finds them.

    Raises: CheckpointError as `load`, if the file has no decoder, or if no file states a fact about it.
    """
    found = find_weights(path, offline=offline)
    read = _native if is_native(found.path) else _foreign
    card, tensors, report = read(found, options or Options())
    refuse_too_large(card, str(found.path))
    tensors, report = in_float32(tensors, report)
    return LoadedMAE(mae_of(card, tensors, report).to(machine.find_device(device)), card, report)


def has_decoder(path: str | Path, *, options: Options | None = None, offline: bool = False) -> bool:
    """Whether a file holds a masked autoencoder's decoder, readable or not. No tensor is read. Raises: CheckpointError as `load`."""
    found = find_weights(path, offline=offline)
    if is_native(found.path):
        return read_card(found.path).decoder is not None
    from patchword.formats.read import open_foreign

    opened = open_foreign(found.path, options or Options(), found.source)
    return opened.description.decoder_fault is not None or opened.card.decoder is not None


def mae_of(card: ModelCard, tensors: "Mapping[str, Tensor]", report: LoadReport) -> "MAE":
    """A masked autoencoder in evaluation mode from the tensors of a file. Raises: CheckpointError."""
    import torch

    from patchword.model.mae import MAE
    from patchword.model.vit import ViT

    assert card.decoder is not None
    with torch.device("meta"):
        mae = MAE(ViT(card.config), card.decoder)
    whole = {**tensors, **(drawn(card, report.new) if report.new else {})}
    named = {name if name.startswith(DECODER) else f"vit.{name}": t for name, t in whole.items()}
    fill(mae, named, str(report.path))
    return mae.eval()


def _native(found: Found, options: Options) -> "tuple[ModelCard, dict[str, Tensor], LoadReport]":
    if read_card(found.path).decoder is None:
        raise CheckpointError(
            f"{found.path}: it holds an encoder without a decoder",
            "give the weights of a pre-training run, such as its last.safetensors",
        )
    return read_native(found, options)


def _foreign(found: Found, options: Options) -> "tuple[ModelCard, dict[str, Tensor], LoadReport]":
    # Imported late: patchword's own files do not need it, and it imports every layout.
    from patchword.formats.read import open_foreign, read_tensors

    opened = open_foreign(found.path, options, found.source)
    if opened.description.decoder_fault is not None:
        raise opened.description.decoder_fault
    if opened.card.decoder is None:
        raise CheckpointError(
            f"{found.path}: it holds an encoder without a decoder ({opened.layout.title})",
            file_with_decoder(opened.card.provenance.source),
        )
    machine.start_sampling()
    report = replace(opened.report, stamps=stamps_of(opened.checkpoint.stored.files))
    return opened.card, read_tensors(opened), report


def file_with_decoder(source: str) -> str:
    """Which file to use instead of a published encoder. source: its name, as in its provenance."""
    size = re.search(r"(base|large|huge)", source) if re.search(r"\bmae|[._-]mae", source) else None
    if size is None:
        return "give a file with a decoder, such as hf://facebook/vit-mae-base"
    file = f"mae_visualize_vit_{size[1]}.pth"
    return (
        f"use {file}, published at {_WITH_DECODER}/{file}, or hf://facebook/vit-mae-{size[1]}; "
        "both have a decoder"
    )
