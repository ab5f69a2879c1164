"""Start from a detector that patchword trained: backbone, maps and decoder, and the rows of classes with the same names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from patchword.errors import CheckpointError, SettingsError, plural
from patchword.formats.facts import Options
from patchword.formats.report import LoadReport
from patchword.formats.source import Source, with_origin
from patchword.hub.find import Found
from patchword.model.cost import cost
from patchword.model.vitdet.config import VitDetConfig
from patchword.training.tasks.detectors import TrainedVitDet
from patchword.weights.card import ModelCard, broken_notes
from patchword.weights.detector_card import DetectorCard
from patchword.weights.native import read_detector

_BACKBONE = "vit."
# Layers with one row for each class.
_CLASSES = ("cell_class.", "classes.")


@dataclass(frozen=True, kw_only=True)
class KnownDetector:
    """What follows the backbone. classes: names, in the order of the head. tensors: all but those of the backbone."""

    config: VitDetConfig
    classes: tuple[str, ...]
    tensors: Mapping[str, Tensor]


def read_known(found: Found, options: Options) -> tuple[Source, LoadReport, KnownDetector]:
    """The backbone of a native detector as the source of a start, and the rest. Raises: CheckpointError."""
    card, tensors = read_detector(found.path)
    given = [
        field.name
        for field in fields(options)
        if getattr(options, field.name) != getattr(Options(), field.name)
    ]
    if given:
        raise CheckpointError(
            f"{found.path}: {', '.join(given)} cannot be set for a detector in our own format, which states it",
            "remove the option",
        )
    if not isinstance(card.config, VitDetConfig):
        raise CheckpointError(
            f"{found.path}: {card.config.kind} cannot be trained further yet",
            "give DETR, the weights of a ViT, or of a detector that `patchword train` wrote",
        )
    config = card.config
    backbone = {n.removeprefix(_BACKBONE): t for n, t in tensors.items() if n.startswith(_BACKBONE)}
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(_BACKBONE)}
    report = LoadReport(
        path=found.path,
        why=found.why,
        tensors=len(tensors),
        parameters=cost(config.vit).parameters + sum(tensor.numel() for tensor in rest.values()),
        notes=broken_notes(card.provenance),
    )
    source = Source(card=with_origin(_of_backbone(card, config), [found.path]), tensors=backbone)
    classes = tuple(one.name for one in card.classes)
    return source, report, KnownDetector(config=config, classes=classes, tensors=rest)


def _of_backbone(card: DetectorCard, config: VitDetConfig) -> ModelCard:
    return ModelCard(config=config.vit, preprocess=card.preprocess, provenance=card.provenance)


@torch.no_grad()
def take_over(module: TrainedVitDet, known: KnownDetector, classes: Sequence[str]) -> str:
    """Copy the maps and the decoder into `module`, and the rows of the classes that both have; says which.

    classes: names, in the order of the new head. Raises: SettingsError if the detector has another shape.
    """
    own = module.state_dict()
    rows = [(i, known.classes.index(name)) for i, name in enumerate(classes) if name in known.classes]
    for name, tensor in known.tensors.items():
        if name.startswith(_CLASSES):
            for new, old in rows:
                own[name][new] = tensor[old]
        elif name in own and own[name].shape == tensor.shape:
            own[name].copy_(tensor)
        else:
            raise SettingsError(
                f"the settings of task.detector do not fit the weights: {name} has the shape {list(tensor.shape)} there",
                "remove the settings of task.detector, or train from the weights of a ViT",
            )
    kept = ", ".join(classes[new] for new, _ in rows)
    return f"classes: {len(rows)} of {plural(len(classes), 'class', 'classes')} kept from the weights" + (
        f" ({kept})" if kept else ""
    )
