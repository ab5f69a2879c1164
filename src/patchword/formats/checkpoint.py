"""Find the model's state dict among everything a file holds."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchword.containers.stored import Entry, Stored
from patchword.errors import CheckpointError, plural

Shape = tuple[int, ...]
# The suffix of `wrapper` for a part that the user selected.
PART = ": selected by --below"


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something in the file other than the weights that are used: an optimiser, another network, a counter."""

    what: str
    tensors: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """name: for messages. wrapper: where in the file the tensors were found and why; "" at the top level.
    beside: other content of the file (epoch, args…). removed: skipped tensors by reason.
    notes: decisions made on the way. prefix: of the part of the file whose tensors these are, for messages.
    """

    name: str
    stored: Stored
    tensors: Mapping[str, Entry]
    wrapper: str = ""
    left: tuple[Leftover, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def is_part(self) -> bool:
        """Whether the user selected a part of the file (--below); a config next to it then describes the complete file."""
        return self.wrapper.endswith(PART)

    @property
    def path(self) -> Path:
        return self.stored.path

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        return self.stored.configs

    @property
    def config_json(self) -> Mapping[str, Any]:
        """The `config.json` next to the file, {} if there is none."""
        return self.configs.get("config.json", {})

    @property
    def args(self) -> Mapping[str, Any]:
        """The training script's arguments, if the file has them."""
        args = self.beside.get("args", {})
        return args if isinstance(args, Mapping) else {}

    def has(self, *names: str) -> bool:
        return all(name in self.tensors for name in names)

    def shape(self, name: str) -> Shape:
        """Raises: CheckpointError if the file lacks a tensor that its layout needs."""
        if name not in self.tensors:
            raise CheckpointError(
                f"{self.name}: its tensor {self.prefix + name!r} is missing",
                "use the complete file: the model needs this tensor",
            )
        return self.tensors[name].shape

    def shape_of(self, name: str, axes: int) -> Shape:
        """The shape, checked for its number of axes. Raises: CheckpointError."""
        shape = self.shape(name)
        if len(shape) != axes or not all(shape):
            raise CheckpointError(
                f"{self.name}: {self.prefix}{name} has shape {list(shape)}, but {axes} axes were expected",
                "if the model was modified, use the program that wrote it",
            )
        return shape

    def under(self, prefix: str) -> list[str]:
        return [name for name in self.tensors if name.startswith(prefix)]

    def depth(self, pattern: str) -> int:
        """The number of layers; `pattern` has {} for the layer number, e.g. "blocks.{}.norm1.weight".

        Raises: CheckpointError if a number is missing.
        """
        before, after = pattern.split("{}")
        number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
        found = sorted(int(match[1]) for name in self.tensors if (match := number.fullmatch(name)))
        if found != list(range(len(found))):
            missing = next(i for i in range(len(found) + 1) if i not in found)
            raise CheckpointError(
                f"{self.name}: it has {plural(len(found), 'block')} up to number {found[-1]}, but number {missing} is missing",
                "use the complete file",
            )
        return len(found)


def square(count: int) -> int | None:
    """The side of a square of that many patches; None if it is not a square."""
    side = math.isqrt(max(count, 0))
    return side if side and side * side == count else None


# Keys to search, in order, and the reason for each. Sources: the loaders of timm, torchvision, DINO, DINOv2,
# I-JEPA, BEiT, open_clip (formats of their training files).
_WRAPPERS: tuple[tuple[str, str], ...] = (
    ("state_dict_ema", "its EMA weights, which timm uses too"),
    ("target_encoder", "the target encoder, which I-JEPA's authors use"),
    ("teacher", "the teacher, which the authors of DINO use"),
    ("model_ema", "its EMA weights, which timm uses too"),
    ("state_dict", ""),
    ("model", ""),
    ("module", ""),
    ("student", "the student, the only network in the file"),
    ("encoder", "the context encoder, the only one in the file"),
)
# DistributedDataParallel, torch.compile and transformers' wrapper of timm models prefix every name with these.
_PREFIXES = ("module.", "_orig_mod.", "timm_model.")


def unwrap(stored: Stored) -> Checkpoint:
    """Remove wrappers and prefixes. Raises: CheckpointError if the file has no tensors."""
    tree, name = stored.tree, str(stored.path)
    taken, wrapper = "", ""
    for key, why in _WRAPPERS:
        inner = tree.get(key)
        if key == "model_ema" and "model" in tree:
            # Both scripts save both: DeiT's evaluates the model, torchvision's (its average has a counter) the average.
            if not (isinstance(inner, Mapping) and "n_averaged" in inner):
                continue
            why = "its EMA weights, which torchvision's script evaluates"
        if isinstance(inner, Mapping) and flat_tensors(inner):
            tree, taken, wrapper = inner, key, f"{key}: {why}" if why else key
            break
    tensors: Mapping[str, Entry] = flat_tensors(tree)
    if not tensors:
        raise CheckpointError(
            f"{name}: it has no tensors{_what_else(stored.tree)}", "give the file that holds the weights"
        )
    tensors = without_prefix(tensors)
    beside = {k: v for k, v in stored.tree.items() if taken and k != taken}
    left = [Leftover(what=k, tensors=len(flat_tensors(v))) for k, v in beside.items()]
    tensors, part, rest = _encoder_of(tensors)
    wrapper, left = part or wrapper, [*left, *rest]
    teacher = {n.removeprefix("teacher."): e for n, e in tensors.items() if n.startswith("teacher.")}
    if teacher:  # a complete DINOv2 training file has both networks under `model`
        left.append(Leftover(what="student", tensors=len(tensors) - len(teacher)))
        tensors, wrapper = (
            dict(without_prefix(teacher)),
            "teacher: the teacher, which the authors of DINO use",
        )
    kept, dropped = _backbone_of(tensors, wrapper)
    return Checkpoint(
        name=name, stored=stored, tensors=kept, wrapper=wrapper, left=(*left, *dropped), beside=beside
    )


MAE_PYTORCH = "the encoder, which MAE-pytorch's fine-tuning reads"
# A tensor of self-supervised training, the encoder's prefix next to it, its own head, what the encoder is, and the rest.
_ENCODERS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "momentum_encoder.cls_token",
        "base_encoder.",
        "head.",
        "MoCo's encoder, which its linear probe reads",
        "MoCo's momentum encoder, projector and predictor",
    ),
    (
        "encoder_to_decoder.weight",
        "encoder.",
        "",
        MAE_PYTORCH,
        "the decoder",
    ),
)


def _encoder_of(tensors: Mapping[str, Entry]) -> tuple[Mapping[str, Entry], str, list[Leftover]]:
    """The encoder in a file of self-supervised training, where it was, and the rest; any other file unchanged."""
    for sign, prefix, head, what, rest in _ENCODERS:
        if sign in tensors:
            inside = {n.removeprefix(prefix): e for n, e in tensors.items() if n.startswith(prefix)}
            kept = {n: e for n, e in inside.items() if not head or not n.startswith(head)}
            left = Leftover(what=rest, tensors=len(tensors) - len(kept))
            return kept, f"{prefix.rstrip('.')}: {what}", [left]
    return tensors, "", []


# A linear head from a separate file gets this name among the backbone's tensors.
LINEAR_HEAD = "linear_head"


def with_linear_head(checkpoint: Checkpoint, head: Stored) -> Checkpoint:
    """Add the linear head of another file as `linear_head.weight` and `.bias` (DINO, DINOv2, DINOv3).

    Raises: CheckpointError if that file is not exactly one linear layer.
    """
    inside = unwrap(head)
    found = {name.rpartition(".")[2]: entry for name, entry in inside.tensors.items()}
    shapes = {name: entry.shape for name, entry in found.items()}
    if len(inside.tensors) != len(found) or set(found) - {"bias"} != {"weight"} or len(shapes["weight"]) != 2:
        shown = ", ".join(list(inside.tensors)[:4])
        raise CheckpointError(
            f"{inside.name}: a linear head has one weight and its bias, but this file has {shown}",
            "pass --head the linear head file that belongs to the backbone",
        )
    tensors = dict(checkpoint.tensors) | {f"{LINEAR_HEAD}.{part}": entry for part, entry in found.items()}
    return replace(checkpoint, tensors=tensors)


def flat_tensors(tree: Any, prefix: str = "") -> dict[str, Entry]:
    """The tensors of a state dict and its nested dicts, names joined by dots; none for anything else."""
    if isinstance(tree, Entry):
        return {prefix.rstrip("."): tree}
    if not isinstance(tree, Mapping):
        return {}
    found: dict[str, Entry] = {}
    for key, value in tree.items():
        found |= (
            flat_tensors(value, f"{prefix}{key}.")
            if not isinstance(value, Entry)
            else {f"{prefix}{key}": value}
        )
    return found


def without_prefix(tensors: Mapping[str, Entry]) -> Mapping[str, Entry]:
    # The counter of averaged weights has no prefix and belongs to no tensor.
    tensors = {name: entry for name, entry in tensors.items() if name != "n_averaged"}
    changed = True
    while changed:
        changed = False
        for prefix in _PREFIXES:
            if tensors and all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): entry for name, entry in tensors.items()}
                changed = True
    return tensors


# For DINO, DINOv2 and DINOv3; a teacher may have been saved without the rest of its file.
_TRAINING_HEAD = re.compile(r"(head\.(mlp|last_layer)|(dino|ibot)_head)\..*")


def _backbone_of(
    tensors: Mapping[str, Entry], wrapper: str
) -> tuple[Mapping[str, Entry], Iterable[Leftover]]:
    """A teacher's or student's backbone without its training heads (DINO, DINOv2)."""
    inside = {n.removeprefix("backbone."): e for n, e in tensors.items() if n.startswith("backbone.")}
    heads = {n: e for n, e in tensors.items() if n.startswith(f"{LINEAR_HEAD}.")}
    if heads and "cls_token" in inside and len(heads) + len(inside) == len(tensors):
        return inside | heads, ()  # a classifier of DINOv2's or DINOv3's hub
    others = [n for n in tensors if not n.startswith("backbone.")]
    a_pair = wrapper.startswith(("teacher", "student"))
    if "cls_token" not in inside or not (a_pair or (others and all(map(_TRAINING_HEAD.fullmatch, others)))):
        return tensors, ()
    return inside, [Leftover(what="heads of self-supervised training", tensors=len(others))] if others else []


# What training saves next to the weights, by the first word of the names.
_TRAINING = (
    "optimizer", "optimizers", "optimizer_states", "opt", "lr_scheduler", "lr_schedulers", "scheduler", "scaler",
    "callbacks", "loops", "criterion", "loss",
)  # fmt: skip


def below_one_word(checkpoint: Checkpoint) -> Checkpoint | None:
    """The tensors below a prefix shared by every name: a trainer's "model.", an unpublished wrapper.
    None if there is no such prefix.
    """
    head = {n: e for n, e in checkpoint.tensors.items() if n.startswith(f"{LINEAR_HEAD}.")}  # of its own file
    first = {name: name.partition(".")[0] for name in checkpoint.tensors if name not in head}
    words = {word for word in first.values() if word not in _TRAINING}
    if len(words) != 1 or any(word == name for name, word in first.items()):
        return None
    word = words.pop()
    inside = {n.removeprefix(f"{word}."): e for n, e in checkpoint.tensors.items() if first.get(n) == word}
    others = [
        Leftover(what=w, tensors=list(first.values()).count(w))
        for w in dict.fromkeys(first.values())
        if w != word
    ]
    wrapper = f"{checkpoint.wrapper.partition(':')[0]}.{word}".lstrip(".")
    return replace(
        checkpoint,
        tensors={**without_prefix(inside), **head},
        wrapper=wrapper,
        left=(*checkpoint.left, *others),
    )


def _what_else(tree: Mapping[str, Any]) -> str:
    names = ", ".join(repr(str(key)) for key in list(tree)[:4])
    return f"; it has {names}" if names else ""
