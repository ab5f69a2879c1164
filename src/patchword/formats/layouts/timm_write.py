"""Convert a ViTConfig to one of timm's classes with all of its arguments.

config.json can hold numbers and strings but not classes, and timm drops a null. Anything else (eps,
a gated MLP's class, the order of norms) must come from the named architecture, whose values
cannot always be overridden. `_base` finds a suitable one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.layouts.timm_arguments import Args, arguments, lacks
from patchword.formats.layouts.timm_facts import table
from patchword.model.config import ViTConfig
from patchword.model.kinds import RelativeBias, RelativeMLP, Rope2d, RopeMixed

# Tried in this order if the model does not come from a timm file, then all others of the class.
_PREFERRED = (
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_giant_patch14_dinov2",
    "aimv2_large_patch14_224",
    "vit_base_patch16_rpn_224",
    "deit_base_distilled_patch16_224",
    "eva_giant_patch14_224",
    "vit_base_patch16_dinov3",
    "eva02_base_patch14_224",
    "vit_pe_core_base_patch16_224",
    "beit_base_patch16_224",
    "vit_relpos_base_patch16_224",
    "naflexvit_base_patch16_map",
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """architecture and args: arguments of `timm.create_model`. spelling: how that class names its tensors."""

    architecture: str
    kind: str
    args: Mapping[str, Any]
    spelling: Mapping[str, Any]


def target(config: ViTConfig, spelling: Mapping[str, Any]) -> Target:
    """Choose the class and its arguments. spelling: of the file that was read, {} for the usual one.

    Raises: CheckpointError for what no class of timm can represent.
    """
    failure: CheckpointError | None = None
    for kind in _kinds(config, spelling):
        for gate in _gates(config, spelling):
            try:
                return _as_kind(kind, config, {**spelling, "gate": gate})
            except CheckpointError as error:
                failure = failure or error
    assert failure is not None
    raise failure


def _refusal(what: str, kind: str) -> CheckpointError:
    return CheckpointError(
        f"timm ({kind}) does not support {what}", "choose another format, or keep the patchword file"
    )


def _as_kind(kind: str, config: ViTConfig, spelling: Mapping[str, Any]) -> Target:
    if (what := lacks(kind, config, spelling["gate"])) is not None:
        raise _refusal(what, kind)
    args = arguments(kind, config, spelling)
    architecture, passed = _base(kind, args, spelling.get("architecture", ""))
    relative = {"Beit": ("", "rel_pos_bias."), "VisionTransformerRelPos": ("rel_pos.", "shared_rel_pos.")}
    shared = bool(getattr(config.inner_positions, "shared", False))
    spelled = {
        "architecture": architecture,
        "kind": kind,
        "naflex": kind == "NaFlexVit",
        "patches": spelling.get("patches", "kernel") if kind == "NaFlexVit" else "kernel",
        "scale": "gamma" if kind in ("Eva", "Beit") else "ls",
        "split": kind == "Eva" and bool(spelling.get("split", False)),
        "gate": spelling["gate"],
        "relative": relative[kind][shared] if kind in relative else "",
    }
    return Target(architecture=architecture, kind=kind, args=passed, spelling=spelled)


def _kinds(config: ViTConfig, spelling: Mapping[str, Any]) -> list[str]:
    """Classes to try, starting with the one that was read."""
    usual: list[str] = []
    match config.inner_positions:
        case Rope2d() | RopeMixed():
            usual = ["Eva"]
        case RelativeBias():
            usual = ["Beit", "VisionTransformerRelPos"]
        case RelativeMLP():
            usual = ["VisionTransformerRelPos"]
        case _ if config.tokens.distillation_token:
            usual = ["VisionTransformerDistilled"]
        case _:
            usual = ["VisionTransformer", "Eva"]
    if spelling.get("naflex"):
        usual = ["NaFlexVit"]
    read_from = spelling.get("kind", "")
    return [read_from, *(kind for kind in usual if kind != read_from)] if read_from else usual


def _gates(config: ViTConfig, spelling: Mapping[str, Any]) -> Iterable[str]:
    if spelling.get("gate"):
        return (spelling["gate"],)
    if not config.mlp.gated:
        return ("packed",)
    return ("apart", "packed") if config.mlp.inner_norm else ("packed", "apart")


# The architecture that brings the rest ------------------------------------------------------


def _base(kind: str, wanted: Args, read_from: str) -> tuple[str, Args]:
    """An architecture of this class that defines what JSON cannot express, and the arguments to add."""
    entries = table()["architectures"]
    names = [read_from, *_PREFERRED, *entries]
    for name in names:
        entry = entries.get(name)
        if entry is not None and entry["class"] == kind and _suits(entry["args"], wanted):
            passed = {key: value for key, value in wanted.items() if value is not None and not _marked(value)}
            return name, passed
    brought = [key for key, value in wanted.items() if value is None or _marked(value)]
    parts = ", ".join(f"{key} {wanted[key]}" for key in brought if wanted[key] is not None) or "these parts"
    raise _refusal(f"{parts} together (no architecture has this combination)", kind)


def _suits(args: Mapping[str, Any], wanted: Args) -> bool:
    """Whether the architecture defines the values that JSON cannot express."""
    for key, value in wanted.items():
        if value is None and args.get(key) is not None:
            return False
        if _marked(value) and args.get(key) != value:
            return False
    return True


def _marked(value: Any) -> bool:
    """Whether a value is a timm class, or a partial of one, as written in the table."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and first.startswith("@")
