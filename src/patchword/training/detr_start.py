"""Start from DETR: all of it, but the rows of classes that the data lack; or from the weights of its trunk, a ResNet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from patchword.containers.stored import open_stored
from patchword.errors import CheckpointError, SettingsError, UnknownLayout, plural
from patchword.formats.checkpoint import Checkpoint, unwrap
from patchword.formats.detection.build import on_meta, parameters_of
from patchword.formats.detection.layout import with_detector_facts
from patchword.formats.detection.read import (
    open_detector,
    read_detector_tensors,
    recognised_detector,
    without_masks,
)
from patchword.formats.detection.resnet import is_resnet, read_resnet
from patchword.formats.facts import Options, flag_of
from patchword.formats.own import cut
from patchword.formats.report import LoadReport
from patchword.formats.source import origin_of
from patchword.hub.find import Found
from patchword.images.preprocess import ValueRange
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.training.recipes.facts import DataFacts
from patchword.training.tasks.detectors import TrainedDetr
from patchword.weights.card import Provenance, broken_notes
from patchword.weights.detector_card import DetectionClass, DetectorCard
from patchword.weights.native import is_native, is_native_detector, read_detector

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


def read_detr(name: str, found: Found, options: Options) -> DetrStart | None:
    """DETR, or a ResNet, as a start; None if the file is neither. Raises: CheckpointError; for another detector too."""
    if is_native(found.path):
        return _read_own(name, found, options) if is_native_detector(found.path) else None
    try:
        checkpoint = without_masks(cut(unwrap(open_stored(found.path)), options.below, options.drop))
    except CheckpointError:
        return None  # read as a ViT, which says what is wrong
    try:
        recognised_detector(checkpoint)
    except UnknownLayout:
        return _read_trunk(name, found, checkpoint) if is_resnet(checkpoint) else None
    opened = open_detector(found.path, with_detector_facts(options), found.source)
    card = replace(opened.card, provenance=origin_of(opened.card.provenance, opened.checkpoint.stored.files))
    return _start(name, card, read_detector_tensors(opened), replace(opened.report, why=found.why))


def _read_own(name: str, found: Found, options: Options) -> DetrStart | None:
    card, tensors = read_detector(found.path)
    if not isinstance(card.config, DetrConfig):
        return None  # on a ViT: `detector_start` reads it
    for option, value in vars(options).items():
        if value != getattr(Options(), option, None):
            raise CheckpointError(
                f"{found.path}: {flag_of(option)} cannot be set for a detector in our own format, which states it",
                "remove the option",
            )
    report = LoadReport(
        path=found.path,
        why=found.why,
        tensors=len(tensors),
        parameters=parameters_of(on_meta(card.config)),
        notes=broken_notes(card.provenance),
    )
    card = replace(card, provenance=origin_of(card.provenance, [found.path]))
    return _start(name, card, tensors, report)


def _start(name: str, card: DetectorCard, tensors: Mapping[str, Tensor], report: LoadReport) -> DetrStart:
    if not isinstance(card.config, DetrConfig):
        raise CheckpointError(
            f"{report.path}: {card.config.kind} cannot be trained further yet",
            "give DETR, the weights of a ViT, or of a detector that `patchword train` wrote",
        )
    return DetrStart(
        name=name,
        holds=card,
        tensors=tensors,
        report=report,
        provenance=card.provenance,
    )


def _read_trunk(name: str, found: Found, checkpoint: Checkpoint) -> DetrStart:
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
    rows = [(new, old.index(name)) for new, name in enumerate(classes) if name in old]
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
    return _said(start, classes, rows)


def _said(start: DetrStart, classes: Sequence[str], rows: Sequence[tuple[int, int]]) -> str:
    if not start.is_detector:
        return "trunk from the weights; encoder, decoder, queries and heads start anew"
    kept = {new for new, _ in rows}
    said = f"class head: {len(rows)} of {plural(len(classes), 'class', 'classes')} kept from the weights"
    for what, chosen in (("", kept), ("new: ", set(range(len(classes))) - kept)):
        names = [name for number, name in enumerate(classes) if number in chosen]
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        said += f"; {what}{shown}" if what and names else f" ({shown})" if names else ""
    if start.classes and not any(one.name for one in start.classes):
        said += "; the file does not name its classes (--class-names FILE does)"
    return said
