"""`load` a Model from a run folder or a weights file."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchword import machine
from patchword.errors import NotEnoughMemory, plural
from patchword.formats.decoder import encoder_report
from patchword.formats.facts import Options
from patchword.formats.own_options import with_options
from patchword.formats.report import LoadReport, stamps_of
from patchword.hub.find import Found, find_weights
from patchword.model.resample_rules import resampled
from patchword.weights.card import ModelCard, broken_notes, decoders_of, encoder_only
from patchword.weights.native import fill, is_native, read_card, read_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from patchword.inference.model import Model


def load(
    path: str | Path,
    *,
    device: "str | torch.device | None" = None,
    options: Options | None = None,
    offline: bool = False,
) -> "Model":
    """Load the model of a run folder (its last EMA weights), of a weights file or folder in any layout, of a hub name
    (hf://org/name[@revision]) or of a published release.

    device: None uses a GPU if available. options: facts that no file states. offline: use cached
    files only and open no socket. Weights are mapped from disk into a model built without
    weights, so nothing is initialised randomly first or held in memory twice.
    Raises: CheckpointError that states what the file is, or how it contradicts itself.
    """
    found = find_weights(path, offline=offline)
    if is_native(found.path):
        card, tensors, report = read_native(found, options or Options())
        refuse_too_large(card, str(found.path))
        return _model(card, tensors, encoder_report(report, decoders_of(card, tensors)), device)
    # Imported late: patchword's own files do not need it, and it imports every layout.
    from patchword.formats.read import open_foreign, read_tensors

    # Report a wrong file before the seconds that importing torch takes.
    opened = open_foreign(found.path, options, found.source)
    machine.start_sampling()
    refuse_too_large(opened.card, str(found.path))
    report = replace(opened.report, stamps=stamps_of(opened.checkpoint.stored.files))
    report = encoder_report(report, opened.plan.of_decoder)
    return _model(opened.card, read_tensors(opened, decoder=False), report, device)


def read_native(found: Found, options: Options) -> "tuple[ModelCard, dict[str, Tensor], LoadReport]":
    """Read a file that patchword wrote, with its decoder if it has one. Raises: CheckpointError, SettingsError."""
    # Report a wrong file or option before the seconds that importing torch takes.
    with_options(read_card(found.path), options, str(found.path))
    machine.start_sampling()
    stamps = stamps_of([found.path])
    card, tensors = read_model(found.path)
    card, facts = with_options(card, options, str(found.path))
    from patchword.model.cost import cost

    notes = broken_notes(card.provenance)
    report = LoadReport(
        path=found.path,
        why=f"{found.path.name}, the last weights of a run that diverged"
        if found.why and notes
        else found.why,
        facts=facts,
        tensors=len(tensors),
        parameters=cost(card.config).parameters,
        resampled=resampled(card.config, card.preprocess.common_size),
        notes=notes,
        stamps=stamps,
    )
    return card, tensors, report


def refuse_too_large(card: ModelCard, name: str) -> None:
    """Raises: NotEnoughMemory, before a tensor is read, if not even one image fits."""
    from patchword.model.memory import inference_bytes

    needed, left = inference_bytes(card.config, card.config.image.size, 1), machine.most_memory_left_bytes()
    if needed > left:
        height, width = card.config.image.size
        raise NotEnoughMemory(
            f"{name}: not enough memory: one image of {width}x{height} pixels needs at least "
            f"{needed / 2**30:,.1f} GiB, and this process can get {left / 2**30:,.1f} GiB",
            "use a smaller image size or model",
        )


def _model(
    card: ModelCard, tensors: "dict[str, Tensor]", report: LoadReport, device: "str | torch.device | None"
) -> "Model":
    """Build a ViT without weights and assign the tensors as its weights; those of a decoder are left out."""
    import torch

    from patchword.inference.model import Model
    from patchword.model.vit import ViT

    card, tensors = encoder_only(card, tensors)
    tensors, report = in_float32(tensors, report)
    with torch.device("meta"):
        vit = ViT(card.config)
    if report.new:
        tensors = tensors | drawn(card, report.new)
    fill(vit, tensors, str(report.path))
    return Model(vit, card, report).to(machine.find_device(device))


def in_float32(tensors: "dict[str, Tensor]", report: LoadReport) -> "tuple[dict[str, Tensor], LoadReport]":
    """The tensors in float32, and the report with a note if they were in another type."""
    import torch

    narrow = [k for k, t in tensors.items() if t.is_floating_point() and t.dtype != torch.float32]
    if narrow:
        note = f"converted {plural(len(narrow), 'tensor')} from {tensors[narrow[0]].dtype} to float32"
        report = replace(report, notes=(*report.notes, note))
        tensors = tensors | {k: tensors[k].float() for k in narrow}
    return tensors, report


def model_of(card: ModelCard, tensors: "dict[str, Tensor]", *, path: Path) -> "Model":
    """A Model from tensors in memory, on the CPU. path: its name in messages."""
    from patchword.model.cost import cost

    report = LoadReport(path=path, tensors=len(tensors), parameters=cost(card.config).parameters)
    return _model(card, tensors, report, "cpu")


def drawn(card: ModelCard, names: tuple[str, ...]) -> "dict[str, Tensor]":
    """Random weights for missing tensors, from a fixed seed, so that a file always loads the same."""
    import torch

    from patchword.model.vit import ViT

    whole = ViT(card.config, torch.Generator().manual_seed(0)).state_dict()
    return {name: whole[name] for name in names}
