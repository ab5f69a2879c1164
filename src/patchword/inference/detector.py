"""A detector as users hold it, and how to load one."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchword import machine
from patchword.checkpoints.card import broken_notes
from patchword.checkpoints.detection.layout import DetectorOptions
from patchword.checkpoints.detection.write import WrittenDetector, detector_layout, write_detector
from patchword.checkpoints.detector_card import DetectionClass, DetectorCard
from patchword.checkpoints.facts import flag_of
from patchword.checkpoints.find import Found, find_weights
from patchword.checkpoints.native import (
    check_suffix,
    is_native,
    read_detector,
    read_detector_card,
    write_model,
)
from patchword.checkpoints.own_options import check_names
from patchword.checkpoints.report import LoadReport, stamps_of
from patchword.errors import CheckpointError
from patchword.images.preprocess import Preprocess

if TYPE_CHECKING:
    import torch

    from patchword.checkpoints.detection.build import DetectorModel


@dataclass(frozen=True)
class Detector:
    """A detector in evaluation mode, with everything that its file states.

    model: predicts from normalised images. card: config, preprocessing, classes, origin. report: how the file was read.
    """

    model: "DetectorModel"
    card: DetectorCard
    report: LoadReport

    @property
    def classes(self) -> tuple[DetectionClass, ...]:
        """What each output stands for: the category's own number, and its name if the file states one."""
        return self.card.classes

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the model's input; as published, the shorter side has 800 pixels, the longer at most 1333."""
        return self.card.preprocess

    def save(self, path: str | Path) -> None:
        """Write our own file: weights, config, preprocessing, classes. Raises: OutputError."""
        check_suffix(path)
        write_model(path, self.model.state_dict(), self.card)

    def write(self, path: str | Path, to: str) -> WrittenDetector:
        """Write the detector as other programs read it.

        Args:
            path: a file for "detr" and "yolos", a folder for "transformers-detr" and "transformers-yolos".
            to: the format.

        Raises: CheckpointError for an unknown format, or one that cannot hold this detector; OutputError.
        """
        return write_detector(self.card, self.model.state_dict(), detector_layout(to), Path(path))


def load_detector(
    path: str | Path,
    *,
    device: "str | torch.device | None" = None,
    options: DetectorOptions | None = None,
    offline: bool = False,
) -> Detector:
    """Load a detector that patchword trained, or DETR or YOLOS from a file or folder of its authors or of transformers, a hub
    name or a published release.

    device: None uses a GPU if available. options: facts that no file states. offline: use cached files only.
    Raises: CheckpointError that states what the file is, or how it contradicts itself.
    """
    found = find_weights(path, offline=offline, detector=True)
    from patchword.checkpoints.detection.build import filled
    from patchword.inference.load import in_float32

    machine.start_sampling()
    card, stored, read = (_own if is_native(found.path) else _other)(found, options)
    tensors, report = in_float32(stored, read)
    model = filled(card.config, tensors, str(found.path)).to(machine.find_device(device))
    return Detector(model, card, report)


def _own(
    found: Found, options: DetectorOptions | None
) -> "tuple[DetectorCard, dict[str, torch.Tensor], LoadReport]":
    """A file that patchword wrote, which states everything."""
    given = options or DetectorOptions()
    card = read_detector_card(found.path)
    for name in (f.name for f in fields(given) if f.name not in ("classes", "below", "drop")):
        if getattr(given, name) != getattr(DetectorOptions(), name):
            raise CheckpointError(
                f"{found.path}: {flag_of(name)} does not apply to a file in our own format, which states it",
                "remove it",
            )
    if given.below or given.drop:
        raise CheckpointError(
            f"{found.path}: a detector in our own format has no other tensors",
            "remove --below and --drop",
        )
    if given.classes is not None:
        check_names(given.classes, len(card.classes), str(found.path))
        classes = tuple(
            DetectionClass(old.id, name) for old, name in zip(card.classes, given.classes, strict=True)
        )
        card = replace(card, classes=classes)
    _, tensors = read_detector(found.path)
    from patchword.checkpoints.detection.build import on_meta, parameters_of

    report = LoadReport(
        path=found.path,
        why=found.why,
        tensors=len(tensors),
        parameters=parameters_of(on_meta(card.config)),
        notes=broken_notes(card.provenance),
        stamps=stamps_of([found.path]),
    )
    return card, tensors, report


def _other(
    found: Found, options: DetectorOptions | None
) -> "tuple[DetectorCard, dict[str, torch.Tensor], LoadReport]":
    """A file in another format."""
    from patchword.checkpoints.detection.read import open_detector, read_detector_tensors

    opened = open_detector(found.path, options, found.source)
    return opened.card, read_detector_tensors(opened), opened.report
