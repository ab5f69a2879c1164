"""A file of a detector as the start of a training, in any format that is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from torch import Tensor

from patchword.containers.stored import open_stored
from patchword.errors import CheckpointError, UnknownLayout, plural
from patchword.formats.checkpoint import Checkpoint, unwrap
from patchword.formats.detection.build import on_meta, parameters_of
from patchword.formats.detection.layout import with_detector_facts
from patchword.formats.detection.read import (
    open_detector,
    read_detector_tensors,
    recognised_detector,
    without_masks,
)
from patchword.formats.facts import Options, flag_of
from patchword.formats.own import cut
from patchword.formats.report import LoadReport
from patchword.formats.source import origin_of
from patchword.hub.find import Found
from patchword.weights.card import broken_notes
from patchword.weights.detector_card import DetectorCard
from patchword.weights.native import is_native, is_native_detector, read_detector


@dataclass(frozen=True, kw_only=True)
class DetectorFile:
    """card: with the origin of the file. tensors: by our names."""

    card: DetectorCard
    tensors: Mapping[str, Tensor]
    report: LoadReport


def read_detector_file(found: Found, options: Options) -> DetectorFile | None:
    """None if the file is no detector. Raises: CheckpointError if it is one that cannot be read."""
    if is_native(found.path):
        return _read_own(found, options) if is_native_detector(found.path) else None
    checkpoint = foreign_checkpoint(found, options)
    if checkpoint is None:
        return None
    try:
        recognised_detector(checkpoint)
    except UnknownLayout:
        return None
    opened = open_detector(found.path, with_detector_facts(options), found.source)
    return DetectorFile(
        card=replace(
            opened.card, provenance=origin_of(opened.card.provenance, opened.checkpoint.stored.files)
        ),
        tensors=read_detector_tensors(opened),
        report=replace(opened.report, why=found.why),
    )


def foreign_checkpoint(found: Found, options: Options) -> Checkpoint | None:
    """The tensors of a file that is not our own; None if they cannot be read, which reading the file as a ViT explains."""
    try:
        return without_masks(cut(unwrap(open_stored(found.path)), options.below, options.drop))
    except CheckpointError:
        return None


def _read_own(found: Found, options: Options) -> DetectorFile:
    card, tensors = read_detector(found.path)
    for option in (field.name for field in fields(options)):
        if getattr(options, option) != getattr(Options(), option, None):
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
    return DetectorFile(card=card, tensors=tensors, report=report)


def kept_classes(known: Sequence[str], classes: Sequence[str]) -> list[tuple[int, int]]:
    """(new, old) rows of the classes that both have. known: of the file, "" for a class that it does not name."""
    return [(new, known.index(name)) for new, name in enumerate(classes) if name and name in known]


def said_of_classes(known: Sequence[str], classes: Sequence[str]) -> str:
    """Which classes of the data keep their row, in words."""
    kept = {new for new, _ in kept_classes(known, classes)}
    said = f"class head: {len(kept)} of {plural(len(classes), 'class', 'classes')} kept from the weights"
    for what, chosen in (("", kept), ("new: ", set(range(len(classes))) - kept)):
        names = [name for number, name in enumerate(classes) if number in chosen]
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        said += f"; {what}{shown}" if what and names else f" ({shown})" if names else ""
    if known and not any(known):
        said += "; the file does not name its classes (--class-names FILE does)"
    return said
