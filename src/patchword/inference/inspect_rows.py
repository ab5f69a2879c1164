"""Rows about a file: how it is stored, the architecture, facts and preprocessing, for people."""

import math
from pathlib import Path
from typing import Any, Protocol

from patchword.errors import plural
from patchword.formats.report import LoadReport
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.kinds import NoStem
from patchword.model.shapes import decoder_shapes
from patchword.settings import to_plain
from patchword.weights.card import ModelCard, Provenance

Row = tuple[str, ...]
_NAMES_SHOWN = 4


class InspectedFile(Protocol):
    """What is known of any file."""

    @property
    def report(self) -> LoadReport: ...
    @property
    def container(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def dtypes(self) -> dict[str, int]: ...


def file_rows(found: InspectedFile, where: Provenance) -> list[Row]:
    """How the file is stored and recognised, and where it comes from."""
    report = found.report
    kinds = ", ".join(f"{count} x {dtype}" for dtype, count in sorted(found.dtypes.items()))
    rows: list[Row] = [("format", f"{found.container}, {size_text(found.bytes)}"), ("tensors", kinds)]
    if report.evidence:
        rows.append(("detected by", report.evidence))
    if report.why:
        rows.append(("chosen", report.why))
    shown = {
        "source": where.source,
        "licence": where.licence,
        "trained on": where.data,
        "training images": f"{where.num_trained_on:,} recorded" if where.trained_on else "",
        "written": where.created,
    }
    return rows + [(name, value) for name, value in shown.items() if value and value != str(report.path)]


def fact_rows(report: LoadReport) -> list[Row]:
    """Each fact with its source."""
    shown = [f for f in report.facts if f.name != "preprocess"]
    return [(fact.name, plain_text(fact.value), fact.source) for fact in shown]


def preprocess_rows(p: Preprocess, report: LoadReport) -> list[Row]:
    """How an image becomes the model's input."""
    source = next((f.source for f in report.facts if f.name == "preprocess"), "the file's card")
    rule = type(p.resize).__name__.lower()
    detail = ", ".join(f"{k} {plain_text(v)}" for k, v in to_plain(p.resize).items() if k != "kind")
    rows = [
        ("size", f"{p.image_size[0]} x {p.image_size[1]}, {plural(p.in_channels, 'channel')}", source),
        ("resize", f"{rule} ({detail}), {p.resample.interpolation}" if detail else rule, ""),
        ("mean", plain_text(p.mean), ""),
        ("std", plain_text(p.std), ""),
    ]
    return [row if row[2] else row[:2] for row in rows]


def shape_rows(config: ViTConfig) -> list[Row]:
    """The architecture in a few lines: what distinguishes one ViT from another."""
    from patchword.model.cost import cost

    price, head = cost(config), config.head
    rows, columns = config.grid_size
    extra = [f"{config.tokens.num_extra} more"] if config.tokens.num_extra else []
    parts = [
        f"dim {config.dim}",
        f"depth {config.depth}",
        plural(config.attention.num_heads, "head"),
        f"MLP {config.mlp_dim}",
    ]
    output = plural(head.num_classes, "class", "classes") if head.num_classes else "no classifier"
    if head.projection:
        output += f", projected to {head.projection}"
    return [
        ("shape", ", ".join(parts)),
        ("patches", f"{_patch_text(config)}, grid {rows} x {columns}"),
        ("tokens", " + ".join([str(rows * columns), *extra])),
        ("positions", config.positions.kind),
        ("MLP", f"{'gated ' if config.mlp.gated else ''}{config.mlp.activation}"),
        ("norm", f"{config.norm.kind}, eps {config.norm.eps:g}"),
        ("output", f"{head.pool.kind} pooling; {output}"),
        ("parameters", f"{price.parameters:,}"),
    ]


def decoder_rows(card: ModelCard) -> list[Row]:
    """The decoder of a masked autoencoder, and what it was trained to predict."""
    decoder = card.decoder
    assert decoder is not None
    parts = [
        f"dim {decoder.dim}",
        f"depth {decoder.depth}",
        plural(decoder.num_heads, "head"),
        f"MLP {decoder.hidden or 4 * decoder.dim}",
    ]
    count = sum(math.prod(shape) for shape in decoder_shapes(decoder, card.config).values())
    targets = "pixels, normalised in each patch" if decoder.norm_targets else "pixels"
    return [
        ("shape", ", ".join(parts)),
        ("positions", decoder.positions),
        ("predicts", targets),
        ("mask ratio", f"{decoder.mask_ratio:g}"),
        ("parameters", f"{count:,}"),
    ]


def _patch_text(config: ViTConfig) -> str:
    pixels = f"{config.patch_span[0]} x {config.patch_span[1]} pixels"
    if isinstance(config.patch.stem, NoStem):
        return pixels
    height, width = config.patch.size
    return f"{pixels}, as {height} x {width} features of a ResNet"


def size_text(count: int) -> str:
    """ "1.21 GB", "343 MB", "21 kB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def plain_value(value: Any) -> Any:
    """A fact's value in JSON form."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, tuple | list):
        return [plain_value(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return to_plain(value)


def plain_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return ", ".join(plain_text(part) for part in value)
    return str(plain_value(value))


def some(names: tuple[str, ...]) -> str:
    """The first few of them."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown}, …" if len(names) > _NAMES_SHOWN else shown
