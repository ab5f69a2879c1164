"""A detector as users hold it, and how to load one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchword import machine
from patchword.checkpoints.detection.layout import DetectionClass, DetectorCard, DetectorOptions
from patchword.checkpoints.detection.write import WrittenDetector, detector_layout, write_detector
from patchword.checkpoints.find import find_weights
from patchword.checkpoints.native import is_native
from patchword.checkpoints.report import LoadReport
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
    """Load DETR or YOLOS from a file or folder of its authors or of transformers, a hub name or a published release.

    device: None uses a GPU if available. options: facts that no file states. offline: use cached files only.
    Raises: CheckpointError that states what the file is, or how it contradicts itself.
    """
    found = find_weights(path, offline=offline, detector=True)
    if is_native(found.path):
        raise CheckpointError(
            f"{found.path}: a patchword file without boxes",
            "give a detector's file; load(PATH) reads this one",
        )
    from patchword.checkpoints.detection.build import filled
    from patchword.checkpoints.detection.read import open_detector, read_detector_tensors
    from patchword.inference.load import in_float32

    machine.start_sampling()
    opened = open_detector(found.path, options, found.source)
    tensors, report = in_float32(read_detector_tensors(opened), opened.report)
    model = filled(opened.card.config, tensors, str(found.path)).to(machine.find_device(device))
    return Detector(model, opened.card, report)
