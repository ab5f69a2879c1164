"""Convert a detector between formats and verify it with one image through both."""

from pathlib import Path

import torch
from torch import Tensor

from patchword.errors import CheckpointError, near_text
from patchword.formats.detection.build import DetectorModel
from patchword.formats.detection.layout import DetectorOptions, with_detector_facts
from patchword.formats.detection.read import LAYOUTS
from patchword.formats.detection.write import WrittenDetector
from patchword.formats.facts import Options
from patchword.formats.write import refuse_taken, remove
from patchword.inference.conversion import MAX_DIFFERENCE, NATIVE, Conversion
from patchword.inference.detector import Detector, load_detector

# Pixels per side of the compared image; a detector takes images of any size.
_SIDE = 224


def detector_formats() -> list[tuple[str, str]]:
    """Names and titles of the formats that detectors are written in, besides our own."""
    return [(layout.name, layout.title) for layout in LAYOUTS]


def convert_detector(
    source: str | Path, to: str, out: Path, *, options: Options, offline: bool = False
) -> Conversion:
    """Write the detector `source` in the format `to` at `out`, read it back, and compare the outputs.

    Raises: CheckpointError for an unknown format, one that cannot hold the detector, or if the outputs differ; OutputError.
    """
    names = [name for name, _ in detector_formats()]
    if to != NATIVE and to not in names:
        raise CheckpointError(
            f"no detector format is called {to!r}{near_text(to, [*names, NATIVE])}",
            f"use one of: {', '.join([*names, NATIVE])}",
        )
    detector = load_detector(source, device="cpu", options=with_detector_facts(options), offline=offline)
    refuse_taken(out)
    written: WrittenDetector | None = None
    try:
        if to == NATIVE:
            detector.save(out)
        else:
            written = detector.write(out, to)
        told = {} if written is None else dict(written.told)
        again = load_detector(out, device="cpu", options=DetectorOptions(**told))
        difference = _difference(detector, again)
        if difference > MAX_DIFFERENCE:
            raise CheckpointError(
                f"{out}: the outputs for one image differ by {difference:.2g} after conversion; {MAX_DIFFERENCE:g} is allowed",
                "report this: the layout's rules are wrong for this model; nothing was written",
            )
    except BaseException:
        remove(out)
        raise
    lost = written is not None and [c.name for c in again.classes] != [c.name for c in detector.classes]
    renumbered = [c.id for c in again.classes] != [c.id for c in detector.classes]
    return Conversion(
        path=out,
        layout=NATIVE if written is None else written.reopened.layout.title,
        files=(out,) if written is None else written.files,
        difference=difference,
        compared=f"scores and boxes for one image of {_SIDE} x {_SIDE} pixels",
        told=told,
        prepared=() if written is None else written.prepared,
        dropped=tuple((d.reason, len(d.names)) for d in detector.report.dropped),
        notes=(
            *detector.report.notes,
            *(["this format cannot store the class names"] if lost else []),
            *(["this format numbers the classes from 0, not as the training data do"] if renumbered else []),
        ),
    )


def _difference(before: Detector, after: Detector) -> float:
    """The largest difference between both outputs for a noise image from a fixed seed, relative to the largest output."""
    channels = before.preprocess.in_channels
    image = torch.randn((1, channels, _SIDE, _SIDE), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, second = _outputs(before.model, image), _outputs(after.model, image)
    if first.shape != second.shape:
        return float("inf")
    return float((second - first).abs().max() / first.abs().max().clamp(min=1e-30))


def _outputs(model: DetectorModel, image: Tensor) -> Tensor:
    found = model(image)
    return torch.cat((found.logits[-1], found.boxes[-1]), -1)
