"""Start from a detector on a ViT: its backbone, whatever follows it, and the rows of classes with the same names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.formats.source import Source
from patchword.model.config import ViTConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.yolos_config import YolosConfig
from patchword.training.detector_file import DetectorFile, kept_classes, said_of_classes
from patchword.training.tasks.detectors import TrainedVitDet, TrainedYolos
from patchword.weights.card import ModelCard

# Of each kind: where the backbone is, and the layers with one row for each class.
_BACKBONES = {"vitdet": "vit.", "yolos": "backbone."}
_CLASSES = {"vitdet": ("cell_class.", "classes."), "yolos": ("class_head.layers.2.",)}


@dataclass(frozen=True, kw_only=True)
class KnownDetector:
    """What follows the backbone. classes: names, in the order of the head, "" for a class without one.

    tensors: all but those of the backbone.
    """

    config: VitDetConfig | YolosConfig
    classes: tuple[str, ...]
    tensors: Mapping[str, Tensor]


def split_in_two(file: DetectorFile) -> tuple[Source, KnownDetector]:
    """The backbone of a detector as the source of a start, and the rest."""
    config, card = file.card.config, file.card
    assert isinstance(config, VitDetConfig | YolosConfig)
    prefix = _BACKBONES[config.kind]
    backbone = {n.removeprefix(prefix): t for n, t in file.tensors.items() if n.startswith(prefix)}
    rest = {name: tensor for name, tensor in file.tensors.items() if not name.startswith(prefix)}
    of_backbone = ModelCard(config=_backbone(config), preprocess=card.preprocess, provenance=card.provenance)
    classes = tuple(one.name for one in card.classes)
    return (
        Source(card=of_backbone, tensors=backbone),
        KnownDetector(config=config, classes=classes, tensors=rest),
    )


def _backbone(config: VitDetConfig | YolosConfig) -> ViTConfig:
    return config.vit if isinstance(config, VitDetConfig) else config.backbone


@torch.no_grad()
def take_over(module: TrainedVitDet | TrainedYolos, known: KnownDetector, classes: Sequence[str]) -> str:
    """Copy what follows the backbone into `module`, of layers of classes the rows that both have; says which.

    classes: names, in the order of the new head. Raises: SettingsError if the detector has another shape.
    """
    own = module.state_dict()
    rows = kept_classes(known.classes, classes)
    for name, tensor in known.tensors.items():
        if name.startswith(_CLASSES[known.config.kind]):
            for new, old in rows:
                own[name][new] = tensor[old]
            if isinstance(known.config, YolosConfig):
                own[name][-1] = tensor[-1]  # "no object"
        elif name in own and own[name].shape == tensor.shape:
            own[name].copy_(tensor)
        else:
            raise SettingsError(
                f"the settings of task.detector do not fit the weights: {name} has the shape {list(tensor.shape)} there",
                "remove the settings of task.detector, or train from the weights of a ViT",
            )
    return said_of_classes(known.classes, classes)
