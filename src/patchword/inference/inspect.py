"""Describe a checkpoint for people, without torch and without reading a tensor."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.containers.header import read_header
from patchword.errors import plural
from patchword.formats.detection.layout import without_detector_facts
from patchword.formats.facts import Options
from patchword.formats.own_options import with_options
from patchword.formats.read import Opened, open_foreign
from patchword.formats.report import LoadReport
from patchword.hub.find import Found, find_weights
from patchword.inference.any_model import is_detector
from patchword.inference.inspect_rows import (
    Row,
    decoder_rows,
    fact_rows,
    file_rows,
    plain_value,
    preprocess_rows,
    shape_rows,
    some,
)
from patchword.model.resample_rules import resampled
from patchword.settings import to_plain
from patchword.weights.card import ModelCard
from patchword.weights.native import is_native, read_card

if TYPE_CHECKING:
    from patchword.inference.inspect_detector import InspectedDetector


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A described file. container: its storage format; dtypes: the number of tensors of each."""

    card: ModelCard
    report: LoadReport
    container: str
    bytes: int
    dtypes: dict[str, int] = field(default_factory=dict)
    wrapper: str = ""

    def __repr__(self) -> str:
        return f"Inspected({self.report})"

    @property
    def title(self) -> str:
        return f"{self.report.path}: {self.report.layout}"

    def sections(self) -> list[tuple[str, list[Row]]]:
        """Headings and rows to print; the third cell is the source of a fact."""
        return [
            ("File", file_rows(self, self.card.provenance)),
            ("Model", shape_rows(self.card.config)),
            *([("Decoder", decoder_rows(self.card))] if self.card.decoder else []),
            ("Facts and their sources", fact_rows(self.report)),
            ("Preprocessing", preprocess_rows(self.card.preprocess, self.report)),
            ("Loading", self._loading()),
        ]

    def _loading(self) -> list[Row]:
        report = self.report
        rows: list[Row] = [
            (
                "filled",
                f"{100 * report.filled:.0f} % of the backbone, {plural(report.tensors, 'tensor')} matched",
            )
        ]
        rows += [("dropped", f"{len(d.names)}: {d.reason} ({some(d.names)})") for d in report.dropped]
        rows += [("resamples", text) for text in report.resampled]
        if report.new:
            rows.append(("new", f"{some(report.new)}: in no file, untrained"))
        classes = self.card.classes
        if self.card.config.head.num_classes:
            count = self.card.config.head.num_classes
            rows.append(
                ("classes", f"{count}: {some(classes)}" if classes else f"{count}, no names in the file")
            )
        return rows + [("note", note) for note in report.notes]

    def to_dict(self) -> dict[str, Any]:
        report = self.report
        return {
            "path": str(report.path),
            "layout": report.layout,
            "evidence": report.evidence,
            "container": self.container,
            "bytes": self.bytes,
            "dtypes": self.dtypes,
            "wrapper": self.wrapper,
            "config": to_plain(self.card.config),
            "decoder": self.card.decoder and to_plain(self.card.decoder),
            "preprocess": to_plain(self.card.preprocess),
            "classes": list(self.card.classes),
            # The record itself is long and only for programs.
            "provenance": to_plain(self.card.provenance)
            | {"trained_on": self.card.provenance.num_trained_on},
            "facts": [
                {"name": f.name, "value": plain_value(f.value), "source": f.source} for f in report.facts
            ],
            "parameters": report.parameters,
            "tensors_matched": report.tensors,
            "filled": report.filled,
            "resampled": list(report.resampled),
            "dropped": [{"reason": d.reason, "tensors": list(d.names)} for d in report.dropped],
            "new": list(report.new),
            "notes": list(report.notes),
        }


def inspected(
    model: str | Path, options: Options, *, offline: bool = False
) -> "Inspected | InspectedDetector":
    """Describe a file. Raises: CheckpointError that states what the file is instead."""
    if is_detector(model, offline=offline, below=options.below, drop=options.drop):
        from patchword.inference.inspect_detector import inspected_detector

        return inspected_detector(model, options, offline=offline)
    options = without_detector_facts(options)
    found = find_weights(model, offline=offline)
    if is_native(found.path):
        return _native(found, options)
    return _foreign(open_foreign(found.path, options, found.source))


def _native(found: Found, options: Options) -> Inspected:
    from patchword.model.cost import cost

    card, facts = with_options(read_card(found.path), options, str(found.path))
    header = read_header(found.path)
    dtypes = dict(Counter(entry.dtype for entry in header.tensors.values()))
    report = LoadReport(
        path=found.path,
        why=found.why,
        evidence="its card",
        facts=facts,
        tensors=len(header.tensors),
        parameters=cost(card.config).parameters,
        resampled=resampled(card.config, card.preprocess.common_size),
        new=card.untrained,
    )
    size = found.path.stat().st_size
    return Inspected(card=card, report=report, container="safetensors", bytes=size, dtypes=dtypes)


def _foreign(opened: Opened) -> Inspected:
    stored = opened.checkpoint.stored
    dtypes = dict(Counter(entry.dtype for entry in opened.checkpoint.tensors.values()))
    return Inspected(
        card=opened.card,
        report=opened.report,
        container=stored.container
        if len(stored.files) == 1
        else f"{stored.container} in {len(stored.files)} files",
        bytes=sum(file.stat().st_size for file in stored.files),
        dtypes=dtypes,
        wrapper=opened.checkpoint.wrapper,
    )
