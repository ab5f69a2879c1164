"""Start from DETR: all of it, but the rows of classes that the data lack; or from the weights of its trunk, a ResNet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.formats.detection.resnet import is_resnet, read_resnet
from patchword.formats.facts import Options
from patchword.formats.report import LoadReport
from patchword.formats.source import origin_of
from patchword.hub.find import Found
from patchword.images.preprocess import ValueRange
from patchword.model.detr.config import TrunkConfig
from patchword.training.detector_file import (
    DetectorFile,
    foreign_checkpoint,
    kept_classes,
    said_of_classes,
)
from patchword.training.recipes.facts import DataFacts
from patchword.training.tasks.detectors import TrainedDetr
from patchword.weights.card import Provenance
from patchword.weights.detector_card import DetectionClass, DetectorCard
from patchword.weights.native import is_native

# Of the outputs, one row for each class and one for "no object".
_CLASSES = "class_head."
_TRUNK = "trunk."


@dataclass(frozen=True, kw_only=True)
class DetrStart:
    """Initial weights of DETR. name: as the user specified them; report: of reading them.

    holds: the card of DETR, or the config of a trunk. tensors: by our names.
    """

    name: str
    holds: DetectorCard | TrunkConfig
    tensors: Mapping[str, Tensor]
    report: LoadReport
    provenance: Provenance

    @property
    def is_detector(self) -> bool:
        return isinstance(self.holds, DetectorCard)

    @property
    def classes(self) -> tuple[DetectionClass, ...]:
        """In the order of the head; none for a trunk alone."""
        return self.holds.classes if isinstance(self.holds, DetectorCard) else ()

    @property
    def value_range(self) -> ValueRange | None:
        """The value range with which the weights read deep images."""
        return self.holds.preprocess.reading.value_range if isinstance(self.holds, DetectorCard) else None

    @property
    def for_boxes(self) -> str:
        """What the weights are; they are for data with boxes alone."""
        return "a detector" if self.is_detector else "a ResNet, which is the trunk of DETR"

    @property
    def trained_on(self) -> str:
        return self.provenance.trained_on

    def kept_rows(self, classes: Sequence[str]) -> int:
        """How many rows of the class head are kept for these classes."""
        return len({one.name for one in self.classes} & set(classes))

    def added_to(self, facts: DataFacts) -> DataFacts:
        """Facts with what a recipe needs to know about the weights."""
        return replace(facts, detr=self.holds)

    def facts(self) -> dict[str, str]:
        """Origin of the weights, for the files of the run."""
        where = self.provenance
        return {
            "name": self.name,
            "source": where.source,
            "sha256": where.source_sha256,
            "licence": where.licence,
        }


def start_of_detr(name: str, file: DetectorFile) -> DetrStart:
    """All of a DETR."""
    return DetrStart(
        name=name,
        holds=file.card,
        tensors=file.tensors,
        report=file.report,
        provenance=file.card.provenance,
    )


def read_trunk(name: str, found: Found, options: Options) -> DetrStart | None:
    """A ResNet as the start of a trunk; None if the file is none."""
    checkpoint = None if is_native(found.path) else foreign_checkpoint(found, options)
    if checkpoint is None or not is_resnet(checkpoint):
        return None
    config, tensors, report = read_resnet(checkpoint)
    origin = Provenance(source=found.source or Path(name).name)
    return DetrStart(
        name=name,
        holds=config,
        tensors=tensors,
        report=replace(report, why=found.why),
        provenance=origin_of(origin, checkpoint.stored.files),
    )


@torch.no_grad()
def fill_detr(detr: TrainedDetr, start: DetrStart, classes: Sequence[str]) -> str:
    """Copy the weights into `detr`; a class keeps its row if the file has one of the same name. Says what is kept and what is new.

    classes: names, in the order of the new head. Raises: SettingsError if the settings describe another DETR.
    """
    own = detr.state_dict()
    old = [one.name for one in start.classes]
    rows = kept_classes(old, classes)
    for name, tensor in start.tensors.items():
        if name.startswith(_CLASSES):
            for new, known in rows:
                own[name][new] = tensor[known]
            own[name][-1] = tensor[-1]  # "no object"
        elif name in own and own[name].shape == tensor.shape:
            own[name].copy_(tensor)
        else:
            raise SettingsError(
                f"the settings of task.detector do not fit {start.name}: {name} has the shape {list(tensor.shape)} there",
                "remove the settings of task.detector, or train without --weights",
            )
    if not start.is_detector:
        return "trunk from the weights; encoder, decoder, queries and heads start anew"
    return said_of_classes(old, classes)
