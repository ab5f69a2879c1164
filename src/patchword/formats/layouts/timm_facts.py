"""Metadata of a timm file: the architecture, its arguments and its data config.

timm's files specify an architecture, which defines heads, activation, eps and rotary positions.
`timm_architectures.json` holds the definition of each architecture of timm 1.0.31 (generated, and compared
with the installed timm, by tests/peers). Order: config.json, the training file's metadata, the file name.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from patchword.errors import CheckpointError, near_text
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.refused import Refused
from patchword.formats.naming import by_tensors

CONFIG = "config.json"
Size = tuple[int, int]
# As timm published Google's weights in 2020: jx_vit_base_p16_224-80ecf9dd.pth.
_JX = re.compile(r"jx_(vit_\w+?)(?:-[0-9a-f]{8})?")
# The argument that counts them, of the classes that may have some.
_REGISTERS = {"VisionTransformer": "reg_tokens", "NaFlexVit": "reg_tokens", "Eva": "num_reg_tokens"}
_WEIGHT_ENDINGS = (".safetensors", ".pth.tar", ".tar", ".pth", ".pt", ".bin")


@cache
def table() -> Mapping[str, Any]:
    """ "architectures": name → class, args, data, tags; "data": what `data` leaves out; "renamed": old name → name and tag;
    "others": module → timm architectures that are not supported."""
    text = files("patchword.formats.layouts").joinpath("timm_architectures.json").read_text("utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


@dataclass(frozen=True, kw_only=True)
class TimmArchitecture:
    """The metadata of a timm file.

    architecture: timm's name, "" if unknown. kind: timm's class, "" if the name is not in the table.
    evidence: where the name was found. declared: constructor arguments given with the weights.
    args: those that the architecture defines. data: contents of `pretrained_cfg`.
    """

    name: str
    architecture: str = ""
    kind: str = ""
    evidence: str = ""
    certain: bool = True
    declared: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_architecture(self) -> str:
        """The source of facts that the architecture defines."""
        return f"timm's {self.architecture}"

    def argument(self, *names: str) -> tuple[Any, str]:
        """The first of these arguments that is specified, and its source; (None, "") if none is."""
        for args, source in ((self.declared, self.evidence), (self.args, self.of_architecture)):
            for name in names:
                if args.get(name) is not None:
                    return args[name], source
        return None, ""

    def integer(self, name: str) -> tuple[int | None, str]:
        """Raises: CheckpointError if the value is not an integer above 0."""
        return self._typed(name, "an integer above 0", lambda value: type(value) is int and value > 0)

    def number(self, name: str) -> tuple[float | None, str]:
        value, source = self._typed(name, "a number", lambda value: type(value) in (int, float))
        return (None if value is None else float(value)), source

    def flag(self, name: str) -> bool:
        return bool(self._typed(name, "true or false", lambda value: type(value) is bool)[0])

    def text(self, name: str) -> tuple[str | None, str]:
        return self._typed(name, "a string", lambda value: isinstance(value, str))

    def _typed(self, name: str, wanted: str, fits: Callable[[Any], bool]) -> tuple[Any, str]:
        value, source = self.argument(name)
        if value is not None and not fits(value):
            raise self.wrong(name, value, wanted)
        return value, source

    def size(self, *names: str) -> tuple[Size | None, str]:
        """(rows, columns); a single number is used for both."""
        value, source = self.argument(*names)
        return (None if value is None else self.as_size(names[0], value)), source

    def as_size(self, name: str, value: Any) -> Size:
        pair = (value, value) if isinstance(value, int) else value
        whole = isinstance(pair, list | tuple) and all(type(side) is int and side > 0 for side in pair)
        if not whole or len(pair) != 2:
            raise self.wrong(name, value, "one or two integers above 0")
        return int(pair[0]), int(pair[1])

    def input_size(self) -> Size | None:
        """(h, w) of the images for which the weights were trained, from `pretrained_cfg`."""
        given = self.data.get("input_size")
        if given is None:
            return None
        if not isinstance(given, list | tuple) or len(given) != 3:
            raise self.wrong("input_size", given, "[channels, height, width]")
        return self.as_size("input_size", given[1:])

    def wrong(self, name: str, value: Any, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: {name} is {value!r} in {self.evidence}, but it must be {wanted}",
            "download the publisher's file again",
        )

    # Tensors that it must have, from the constructors of timm 1.0.31: without one, the file is incomplete. Of an unknown
    # architecture only the tensors count.

    @property
    def adds_positions(self) -> bool:
        """Whether a position table is added to the patches."""
        match self.kind:
            case "VisionTransformerDistilled":
                return True
            case "VisionTransformer" | "NaFlexVit":
                if "pos_embed" in self.declared and not self.declared["pos_embed"]:
                    return False
                return self.argument("pos_embed")[0] in (None, "learn", "learned")
            case "Eva" | "Beit":
                return self.argument("use_abs_pos_emb")[0] is not False
        return False

    @property
    def has_class_token(self) -> bool:
        if self.kind in ("Beit", "VisionTransformerDistilled"):
            return True
        if self.kind in ("VisionTransformer", "Eva"):
            return self.argument("class_token")[0] is not False
        return self.flag("class_token")

    @property
    def num_registers(self) -> int:
        name = _REGISTERS.get(self.kind)
        return (self.integer(name)[0] or 0) if name and self.argument(name)[0] else 0

    @property
    def has_last_norm(self) -> bool:
        plain = self.kind in ("VisionTransformer", "NaFlexVit")
        return plain and self.argument("final_norm")[0] is not False

    @property
    def relative_tables(self) -> tuple[str, ...]:
        """The first tensor of each kind of relative positions in the model."""
        if self.kind != "Beit":
            return ()
        found = {
            "rel_pos_bias.relative_position_bias_table": self.flag("use_shared_rel_pos_bias"),
            "blocks.0.attn.relative_position_bias_table": self.flag("use_rel_pos_bias"),
        }
        return tuple(name for name, has in found.items() if has)


def known(checkpoint: Checkpoint) -> TimmArchitecture | None:
    """The timm metadata of a checkpoint; None if there is none."""
    if "architecture" in checkpoint.config_json:
        return _of_config(checkpoint)
    arch = checkpoint.beside.get("arch")
    if isinstance(arch, str) and is_known(arch.partition(".")[0]):
        return _of_training_file(checkpoint, arch)
    name, tag = _named(checkpoint)
    if is_known(name):
        return of_name(checkpoint.name, name, "the file name", tag)
    return None


def is_known(architecture: str) -> bool:
    return architecture in table()["architectures"] or architecture in table()["renamed"]


def named_architecture(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """The specified architecture and its source, whether or not timm has it."""
    stated = checkpoint.config_json.get("architecture")
    if isinstance(stated, str):
        return stated.partition(".")[0], CONFIG
    arch = checkpoint.beside.get("arch")
    if isinstance(arch, str):
        return arch.partition(".")[0], "the training file's arch"
    if not checkpoint.path.name.endswith(_WEIGHT_ENDINGS):
        return None
    return _named(checkpoint)[0], "the file name"


def of_name(
    file: str, architecture: str, evidence: str, tag: str = "", declared: Mapping[str, Any] | None = None
) -> TimmArchitecture:
    """The metadata that a name alone implies. The model may be modified, so sizes are not compared with the tensors."""
    found = TimmArchitecture(name=file, evidence=evidence, certain=False, declared=declared or {})
    return _with_architecture(found, architecture, tag)


def _of_config(checkpoint: Checkpoint) -> TimmArchitecture:
    config, name = checkpoint.config_json, checkpoint.name
    found = TimmArchitecture(name=name, evidence=CONFIG)
    architecture = config["architecture"]
    if not isinstance(architecture, str):
        raise found.wrong("architecture", architecture, "a string")
    declared, data = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    for key, value in (("model_args", declared), ("pretrained_cfg", data)):
        if not isinstance(value, Mapping):
            raise found.wrong(key, value, "an object")
    # Files of timm before 0.9 have the data config at the top level.
    above = {key: config[key] for key in table()["data"] if key in config}
    pool = {"global_pool": config["global_pool"]} if "global_pool" in config else {}
    arch, _, tag = architecture.partition(".")
    found = TimmArchitecture(
        name=name, evidence=CONFIG, declared={**pool, **declared}, data={**above, **data}
    )
    return _with_architecture(found, arch, tag)


def _of_training_file(checkpoint: Checkpoint, arch: str) -> TimmArchitecture:
    args = checkpoint.args
    extra = args.get("model_kwargs")
    declared = dict(extra) if isinstance(extra, Mapping) else {}
    for theirs, ours in (("gp", "global_pool"), ("img_size", "img_size")):
        if args.get(theirs):
            declared.setdefault(ours, args[theirs])
    # "" and None mean unspecified; "random" picks a filter per image, only in training.
    data = {key: args[key] for key in table()["data"] if args.get(key) and args[key] != "random"}
    name, _, tag = arch.partition(".")
    found = TimmArchitecture(
        name=checkpoint.name, evidence="the training file's arch", certain=False, declared=declared, data=data
    )
    return _with_architecture(found, name, tag)


def _with_architecture(found: TimmArchitecture, architecture: str, tag: str) -> TimmArchitecture:
    if architecture in table()["renamed"]:
        architecture, _, tag = table()["renamed"][architecture].partition(".")
    entry = table()["architectures"].get(architecture)
    if entry is None:
        return replace(found, architecture=architecture)
    data = {**table()["data"], **entry["tags"].get(tag, entry["data"]), **found.data}
    return replace(found, architecture=architecture, kind=entry["class"], args=entry["args"], data=data)


def _named(checkpoint: Checkpoint) -> tuple[str, str]:
    """The architecture and tag in `vit_base_patch16_224.augreg_in21k.safetensors`."""
    name = checkpoint.path.name
    for ending in _WEIGHT_ENDINGS:
        if name.endswith(ending):
            name = name.removesuffix(ending)
            break
    if (old := _JX.fullmatch(name)) is not None:
        name = re.sub(r"_p(?=\d)", "_patch", old[1])
    architecture, _, tag = name.partition(".")
    return architecture, tag


# Architectures that are not supported ----------------------------------------------------------


def refuse_timm(checkpoint: Checkpoint) -> None:
    """Refuse by name, because the tensors can look like a plain ViT's.

    Raises: Refused for a timm architecture that patchword does not support, or for an unknown one.
    """
    found = named_architecture(checkpoint)
    if found is None:
        return
    name, evidence = found
    known = table()["architectures"]
    if name in known or name in table()["renamed"]:
        return
    module = next((module for module, names in table()["others"].items() if name in names), None)
    if module is not None and (evidence != "the file name" or by_tensors(checkpoint) is None):
        raise Refused(
            f"{checkpoint.name}: {evidence} specifies timm's {name} (timm/models/{module}.py), which patchword does not support",
            "load it with timm",
        )
    if evidence == "config.json":
        raise Refused(
            f"{checkpoint.name}: config.json specifies the architecture {name!r}, which {table()['source']} does not have"
            f"{near_text(name, known)}",
            "if it matches one of timm's ViTs, put that architecture's name into config.json; "
            "otherwise load it with the program that wrote it",
        )
