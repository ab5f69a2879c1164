"""A detector as users hold it, and how to load one."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword import machine
from patchword.errors import CheckpointError, SettingsError
from patchword.formats.detection.layout import DetectorOptions
from patchword.formats.detection.write import WrittenDetector, detector_layout, write_detector
from patchword.formats.facts import flag_of
from patchword.formats.own_options import check_names
from patchword.formats.report import LoadReport, stamps_of
from patchword.hub.find import Found, find_weights
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import Preprocess, ValueRange
from patchword.inference.detections import Detections, name_of
from patchword.inference.sources import reading_of
from patchword.inference.tiles import Tiling, make_tiling
from patchword.model.detr.config import DetrConfig
from patchword.model.yolos_config import YolosConfig
from patchword.python_words import as_python, in_python
from patchword.weights.card import Provenance, broken_notes
from patchword.weights.detector_card import DetectionClass, DetectorCard
from patchword.weights.native import (
    check_suffix,
    is_native,
    read_detector,
    read_detector_card,
    write_model,
)

if TYPE_CHECKING:
    import torch

    from patchword.formats.detection.build import DetectorModel
    from patchword.inference.detect import Answer
    from patchword.inference.inputs import Many, Picture


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
    def names(self) -> tuple[str, ...]:
        """The class names in the order of the outputs; "class 17" for a category whose name no file states."""
        return tuple(map(name_of, self.card.classes))

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the model's input; as published, the shorter side has 800 pixels, the longer at most 1333."""
        return self.card.preprocess

    @property
    def provenance(self) -> Provenance:
        return self.card.provenance

    @property
    def device(self) -> "torch.device":
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> "torch.dtype":
        return next(self.model.parameters()).dtype

    @property
    def one_class_each(self) -> bool:
        """Whether the classes of a query and "no object" share one softmax, so that only the best class is an answer."""
        return isinstance(self.card.config, DetrConfig | YolosConfig)

    def outputs(self, images: "torch.Tensor") -> "torch.Tensor":
        """images [b, C, h, w] of one size → [b, Q, classes + 4]: scores from 0 to 1, then each box as shares of the input."""
        import torch

        found = self.model(images)
        return torch.cat((found.scores, found.boxes[-1].float()), -1)

    def default_conf(self) -> tuple[float, str]:
        """The score from which boxes are shown if nothing else is asked for, and why.

        In a run folder, the one with the best F1 on its evaluation images.
        """
        known = best_score_of_run(self.report.path)
        if known is not None:
            return known, f"the best F1 on the evaluation images of {self.report.path.parent}"
        if self.one_class_each:
            return 0.5, "from there, a class is more probable than all others and no object together"
        return 0.3, "a usual choice for scores that are not shared between classes; the file states none"

    @in_python
    def predict(
        self,
        source: "Picture | Many",
        *,
        conf: float | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        split: str | None = None,
        split_seed: int | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_level: int | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Detections | list[Detections]:
        """Find the objects in one image and return its Detections, or in many images and return a list.

        Args:
            source: one image (path, bytes, open file, array, tensor or PIL image), or many: a list, a tuple,
                an iterator, or the path of a folder, zip, table, list file or pattern.
            conf: the lowest score of a box; 0 for all answers. None for `default_conf`.
            tile: cut images in overlapping tiles of so many pixels per side, and merge their answers where tiles overlap.
            overlap: the share of a side that neighbouring tiles have in common, at least; None for 0.2.
            split, split_seed, image_column, label_column, split_column, class_level, value_range: as for `Model.predict`.
        Raises: ImageError if a single image is unreadable (among many, its own Detections hold the error);
            DataError if no source can be read; SettingsError for a number out of range.
        """
        from patchword.inference.inputs import many_of

        reading = reading_of(
            split, split_seed, image_column, label_column, split_column, class_level, max_pixels
        )
        tiling, conf = make_tiling(tile, overlap), self.checked_conf(conf)
        many = many_of(source, reading, self.provenance)
        answers = self.detect_each(
            [source] if many is None else many,
            tiling=tiling,
            value_range=value_range,
            batch_size=batch_size,
            max_pixels=max_pixels,
        )
        if many is not None:
            return [self._detections(answer, conf, value_range) for answer in answers]
        (answer,) = answers
        if answer.error is not None:
            raise answer.error
        return self._detections(answer, conf, value_range)

    @in_python
    def predict_each(
        self,
        sources: "Iterable[Any] | str | os.PathLike[str]",
        *,
        conf: float | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Detections]:
        """Like `predict` for many images, but yields the answer for each while the next are computed, in constant memory."""
        from patchword.inference.inputs import many_of

        reading = reading_of(None, None, None, None, None, None, max_pixels)
        tiling, conf = make_tiling(tile, overlap), self.checked_conf(conf)
        if isinstance(sources, str | os.PathLike):
            sources = many_of(sources, reading, self.provenance) or [sources]
        for answer in self.detect_each(
            sources, tiling=tiling, value_range=value_range, batch_size=batch_size, max_pixels=max_pixels
        ):
            yield self._detections(answer, conf, value_range)

    def checked_conf(self, conf: float | None) -> float:
        """The lowest score of a box. Raises: SettingsError for one that is not from 0 to 1."""
        if conf is None:
            return self.default_conf()[0]
        if not 0 <= conf <= 1:
            raise SettingsError(f"--conf is {conf!r}", "give a score from 0 to 1, such as 0.5")
        return conf

    def detect_each(
        self,
        sources: Iterable[Any],
        *,
        tiling: Tiling | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        count: int | None = None,
    ) -> "Iterator[Answer]":
        """Yield the answers of all scores for every source, in order, unreadable ones too; see `inference/detect.py`."""
        from patchword.inference.detect import detect_each

        return detect_each(
            self,
            sources,
            tiling=tiling,
            value_range=value_range,
            batch_size=batch_size,
            max_pixels=max_pixels,
            count=count,
        )

    def detections(self, answer: "Answer", value_range: ValueRange | None = None) -> Detections:
        """An answer of `detect_each` as users see it, with boxes of all scores."""
        error = answer.error
        whole = Detections(
            name=answer.image.name,
            classes=self.classes,
            error="" if error is None else error.about(answer.image.name),
            source=answer.image.source,
            value_range=value_range or self.preprocess.reading.value_range,
        )
        if answer.found is None:
            return whole
        found = answer.found
        return replace(whole, size=answer.size, boxes=found.boxes, labels=found.labels, scores=found.scores)

    def _detections(self, answer: "Answer", conf: float, value_range: ValueRange | None) -> Detections:
        whole = self.detections(answer, value_range).above(conf)
        return replace(whole, error=as_python(whole.error))

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


def best_score_of_run(weights: Path) -> float | None:
    """The score with the best F1 in the evaluation of the run that these weights are the result of; None outside of a run."""
    try:
        found = json.loads((weights.parent / "evaluation.json").read_text(encoding="utf-8"))
        best = found["detection"]["best"]
        score = best["score"] if Path(found["weights"]).name == weights.name else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Rounded down, so that the box that decided it is still shown.
    return math.floor(100 * score) / 100 if isinstance(score, float) and 0 <= score <= 1 else None


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
    from patchword.formats.detection.build import filled
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
    card = own_card(found.path, options or DetectorOptions())
    _, tensors = read_detector(found.path)
    from patchword.formats.detection.build import on_meta, parameters_of

    report = LoadReport(
        path=found.path,
        why=found.why,
        tensors=len(tensors),
        parameters=parameters_of(on_meta(card.config)),
        notes=broken_notes(card.provenance),
        stamps=stamps_of([found.path]),
    )
    return card, tensors, report


def own_card(path: Path, given: DetectorOptions) -> DetectorCard:
    """The card of our own file, with class names from the options. Raises: CheckpointError for any other option."""
    card = read_detector_card(path)
    for name in (f.name for f in fields(given) if f.name not in ("classes", "below", "drop")):
        if getattr(given, name) != getattr(DetectorOptions(), name):
            raise CheckpointError(
                f"{path}: {flag_of(name)} does not apply to a file in our own format, which states it",
                "remove it",
            )
    if given.below or given.drop:
        raise CheckpointError(
            f"{path}: a detector in our own format has no other tensors",
            "remove --below and --drop",
        )
    if given.classes is not None:
        check_names(given.classes, len(card.classes), str(path))
        classes = tuple(
            DetectionClass(old.id, name) for old, name in zip(card.classes, given.classes, strict=True)
        )
        card = replace(card, classes=classes)
    return card


def _other(
    found: Found, options: DetectorOptions | None
) -> "tuple[DetectorCard, dict[str, torch.Tensor], LoadReport]":
    """A file in another format."""
    from patchword.formats.detection.read import open_detector, read_detector_tensors

    opened = open_detector(found.path, options, found.source)
    return opened.card, read_detector_tensors(opened), opened.report
