"""Write a detector with the inverted reading rules, then read it back and compare."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.containers.write import write_safetensors, write_torch
from patchword.errors import CheckpointError, OutputError, near_text
from patchword.formats.compare import differences, explicit
from patchword.formats.compare_preprocess import preparations
from patchword.formats.detection.layout import DetectorLayout, DetectorOptions
from patchword.formats.detection.read import LAYOUTS, OpenedDetector, detector_rules, open_detector
from patchword.formats.write import refuse_taken, remove
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectorCard, DetectorConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class WrittenDetector:
    """path: the file, or the folder if there are files beside it. reopened: the result, read back.
    told: options that readers need, because the format has no place for them.
    prepared: steps of the preprocessing that the format states otherwise, as (field, ours, theirs).
    """

    path: Path
    files: tuple[Path, ...]
    reopened: OpenedDetector
    told: Mapping[str, Any]
    prepared: tuple[tuple[str, Any, Any], ...] = ()


def detector_layout(name: str) -> DetectorLayout:
    """Raises: CheckpointError with the nearest name."""
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    names = [layout.name for layout in LAYOUTS]
    raise CheckpointError(
        f"no detector format is called {name!r}{near_text(name, names)}", f"use one of: {', '.join(names)}"
    )


def write_detector(
    card: DetectorCard,
    tensors: "Mapping[str, Tensor]",
    layout: DetectorLayout,
    out: Path,
    spelling: Mapping[str, Any] | None = None,
) -> WrittenDetector:
    """Write a detector to `out`: a file, or a folder if the format has files beside the weights.

    spelling: the variant of the layout; None for the published one.
    Raises: CheckpointError if the format cannot hold it, and OutputError if it cannot be written; then nothing is left.
    """
    layout.refuse(card)
    spelling = layout.spelling(card) if spelling is None else spelling
    beside = layout.beside(card, spelling)
    theirs: dict[str, Tensor] = {}
    there = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for rule in detector_rules(layout, card.config, spelling, there):
        theirs |= zip(rule.theirs, rule.op.write([tensors[name] for name in rule.ours]), strict=True)
    refuse_taken(out)
    path = out / layout.file_name if beside else out
    try:
        files = _write_beside(beside, out)
        if layout.container == "torch":
            write_torch(path, layout.nest(theirs, card))
        else:
            write_safetensors(path, theirs, {"format": "pt"})
        told = _told(card.config)
        reopened = open_detector(out, DetectorOptions(**told))
        _require_same(card, reopened, layout)
        return WrittenDetector(
            path=out,
            files=(path, *files),
            reopened=reopened,
            told=told,
            prepared=tuple(preparations(card.preprocess, reopened.card.preprocess)),
        )
    except BaseException:
        remove(out)
        raise


def _write_beside(beside: Mapping[str, bytes], folder: Path) -> list[Path]:
    try:
        if beside:
            folder.mkdir(parents=True)
        for name, content in beside.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error})", "choose another location"
        ) from error
    return [folder / name for name in beside]


def _told(config: DetectorConfig) -> dict[str, Any]:
    """YOLOS has no place for its attention heads in the authors' format."""
    return {"num_heads": config.backbone.attention.num_heads} if isinstance(config, YolosConfig) else {}


def _explicit(config: DetectorConfig) -> DetectorConfig:
    """One representative of the configs that build the same model."""
    return replace(config, backbone=explicit(config.backbone)) if isinstance(config, YolosConfig) else config


def _require_same(card: DetectorCard, reopened: OpenedDetector, layout: DetectorLayout) -> None:
    changed = differences(_explicit(card.config), _explicit(reopened.card.config))
    if changed:
        name, ours, theirs = changed[0]
        raise CheckpointError(
            f"{layout.title} cannot hold {name} = {ours!r}: its readers use {theirs!r}",
            "choose another format",
        )
