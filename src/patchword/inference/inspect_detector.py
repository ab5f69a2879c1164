"""Describe a detector's file for people, without reading a tensor."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchword.containers.header import read_header
from patchword.errors import plural
from patchword.formats.detection.build import on_meta, parameters_of
from patchword.formats.detection.layout import with_detector_facts
from patchword.formats.detection.read import open_detector
from patchword.formats.facts import Options
from patchword.formats.report import LoadReport
from patchword.hub.find import find_weights
from patchword.inference.detections import name_of
from patchword.inference.detector import own_card
from patchword.inference.inspect_rows import (
    Row,
    fact_rows,
    file_rows,
    plain_value,
    preprocess_rows,
    shape_rows,
    some,
)
from patchword.model.detr.config import DetrConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.settings import to_plain
from patchword.weights.card import broken_notes
from patchword.weights.detector_card import DetectorCard, DetectorConfig
from patchword.weights.native import is_native


@dataclass(frozen=True, kw_only=True)
class InspectedDetector:
    """A described file. container: its storage format; dtypes: the number of tensors of each."""

    card: DetectorCard
    report: LoadReport
    container: str
    bytes: int
    dtypes: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"InspectedDetector({self.report})"

    @property
    def title(self) -> str:
        return f"{self.report.path}: {self.report.layout}, a detector"

    def sections(self) -> list[tuple[str, list[Row]]]:
        """Headings and rows to print; the third cell is the source of a fact."""
        backbone = None if isinstance(self.card.config, DetrConfig) else _backbone(self.card.config)
        return [
            ("File", file_rows(self, self.card.provenance)),
            ("Detector", _detector_rows(self.card.config, self.report.parameters)),
            ("Backbone", [] if backbone is None else shape_rows(backbone)),
            ("Facts and their sources", fact_rows(self.report)),
            ("Preprocessing", preprocess_rows(self.card.preprocess, self.report)),
            ("Classes", self._classes()),
            ("Loading", self._loading()),
        ]

    def _classes(self) -> list[Row]:
        classes = self.card.classes
        shown = some(tuple(f"{one.id} {one.name}".rstrip() for one in classes))
        unnamed = sum(not one.name for one in classes)
        rows: list[Row] = [("number and name", f"{len(classes)}: {shown}")]
        if unnamed:
            rows.append(("without a name", f"{unnamed}; --class-names gives them"))
        return rows

    def _loading(self) -> list[Row]:
        report = self.report
        rows: list[Row] = [("filled", f"100 %, {plural(report.tensors, 'tensor')} matched")]
        rows += [("dropped", f"{len(d.names)}: {d.reason} ({some(d.names)})") for d in report.dropped]
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
            "detector": {"kind": self.card.config.kind, **to_plain(self.card.config)},
            "preprocess": to_plain(self.card.preprocess),
            "classes": [{"id": one.id, "name": name_of(one)} for one in self.card.classes],
            "provenance": to_plain(self.card.provenance)
            | {"trained_on": self.card.provenance.num_trained_on},
            "facts": [
                {"name": f.name, "value": plain_value(f.value), "source": f.source} for f in report.facts
            ],
            "parameters": report.parameters,
            "tensors_matched": report.tensors,
            "dropped": [{"reason": d.reason, "tensors": list(d.names)} for d in report.dropped],
            "notes": list(report.notes),
        }


def inspected_detector(model: str | Path, options: Options, *, offline: bool = False) -> InspectedDetector:
    """Describe a detector's file. Raises: CheckpointError that states what the file is instead."""
    facts = with_detector_facts(options)
    found = find_weights(model, offline=offline, detector=True)
    if is_native(found.path):
        card = own_card(found.path, facts)
        header = read_header(found.path)
        report = LoadReport(
            path=found.path,
            why=found.why,
            evidence="its card",
            tensors=len(header.tensors),
            parameters=parameters_of(on_meta(card.config)),
            notes=broken_notes(card.provenance),
        )
        dtypes = Counter(entry.dtype for entry in header.tensors.values())
        return InspectedDetector(
            card=card,
            report=report,
            container="safetensors",
            bytes=found.path.stat().st_size,
            dtypes=dict(dtypes),
        )
    opened = open_detector(found.path, facts, found.source)
    stored = opened.checkpoint.stored
    several = f" in {len(stored.files)} files" if len(stored.files) > 1 else ""
    return InspectedDetector(
        card=opened.card,
        report=opened.report,
        container=stored.container + several,
        bytes=sum(file.stat().st_size for file in stored.files),
        dtypes=dict(Counter(entry.dtype for entry in opened.checkpoint.tensors.values())),
    )


def _backbone(config: DetectorConfig) -> Any:
    return config.vit if isinstance(config, VitDetConfig) else getattr(config, "backbone", None)


def _detector_rows(config: DetectorConfig, parameters: int) -> list[Row]:
    """What distinguishes one detector from another."""
    names = {"detr": "DETR", "yolos": "YOLOS", "vitdet": "detector on a plain ViT"}
    rows: list[Row] = [("kind", names[config.kind])]
    if isinstance(config, DetrConfig):
        trunk, depths = config.trunk, (config.encoder_depth, config.decoder_depth)
        layers = 3 * sum(trunk.units) + 2
        rows += [
            ("trunk", f"ResNet-{layers}{', last stage dilated (DC5)' if trunk.dilation else ''}"),
            ("shape", f"dim {config.dim}, {depths[0]} encoder and {depths[1]} decoder layers, {plural(config.num_heads, 'head')}"),
            ("positions", config.positions),
        ]  # fmt: skip
    if isinstance(config, VitDetConfig):
        scales = ", ".join(f"{scale:g}" for scale in config.scales)
        rows += [
            ("shape", f"dim {config.width}, {plural(config.num_layers, 'layer')}, {plural(config.num_heads, 'head')}"),
            ("maps", f"{scales} cells for each patch and side"),
        ]  # fmt: skip
    rows += [
        ("queries", f"{config.num_queries}"),
        ("output", plural(config.num_classes, "class", "classes")),
        ("parameters", f"{parameters:,}"),
    ]
    return rows
