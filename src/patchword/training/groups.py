"""Parameter groups: what is tuned, at which rate, with which weight decay."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from patchword.errors import SettingsError, plural
from patchword.model.attention import Attention
from patchword.model.detr.model import DETR
from patchword.model.lora import adapters, add_lora
from patchword.model.mlp import MLP
from patchword.training.optim_settings import OptimSettings
from patchword.training.tune import Full, Head, Last, LayerDecay, LoRA, Trunk, TuneSettings

# Biases and norms are recognised by their single axis; these have more but are not weights of a linear map.
NOT_DECAYED = ("prefix.", "positions.", "attention_positions.")
# What comes before the first block.
_FIRST = ("patch_embed.", "prefix.", "positions.", "attention_positions.", "entry_norm.")
_HEADS = ("head.", "head_distillation.")
_BLOCK = re.compile(r"blocks\.(\d+)\.|attention_positions\.(?:\w+\.)*?(?:tables|mlps)\.(\d+)(?:\.|$)")
# The backbone of a module that trains it; YOLOS has the name of its files.
_WRAPPED = ("vit.", "backbone.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Parameters of one part of the model with the same rate and decay.

    lr_scale: what the learning rate is multiplied by. count: of numbers. layer: as `layer_of`.
    matrices: the number of linear maps in each parameter that Muon updates; 0 for AdamW's part.
    """

    name: str
    layer: int
    lr_scale: float
    weight_decay: float
    trainable: bool
    parameters: tuple[nn.Parameter, ...]
    matrices: int = 0

    @property
    def count(self) -> int:
        return sum(p.numel() for p in self.parameters)


def layer_of(name: str, depth: int) -> int:
    """0 for patches, prefix tokens and positions; i + 1 for block i; depth + 1 for the final norm, pooling, head and the rest.

    A relative bias or MLP that belongs to one block has that block's layer.
    Source: `get_layer_id_for_vit` of MAE and BEiT.
    """
    name = _unwrapped(name)
    if found := _BLOCK.match(name):
        return min(int(found[1] or found[2]), depth - 1) + 1
    return 0 if name.startswith(_FIRST) else depth + 1


def _unwrapped(name: str) -> str:
    """The name of a parameter in the backbone."""
    return name.partition(".")[2] if name.startswith(_WRAPPED) else name


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and the patch kernel decay; biases, norms, factors, tokens and positions do not."""
    return parameter.ndim >= 2 and not _unwrapped(name).startswith(NOT_DECAYED)


def parameter_groups(
    module: nn.Module,
    optim: OptimSettings,
    tune: TuneSettings | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Group, ...]:
    """Prepare `module` for tuning and return its groups, frozen ones included: each parameter is in exactly one.

    Sets `requires_grad` of the backbone's parameters; LoRA's adapters are added if there are none yet. What lies beside the
    backbone (a decoder, a head) learns unless the task has frozen it (a teacher). Call it before averaged weights are made.

    Args:
        module: a ViT, a module that has one as `vit`, or DETR.
        tune: None leaves `requires_grad` as it is, at one rate.
        generator: source of the adapters' initial weights.

    Raises: SettingsError if there are fewer blocks than asked for, no head, or no layers to adapt.
    """
    if isinstance(module, DETR):
        return detr_groups(module, optim, tune)
    vit = getattr(module, "vit", module)
    depth = len(getattr(vit, "blocks", ()))
    if tune is not None:
        _set_learning(module, vit, depth, tune, generator)
    named = dict(module.named_parameters())
    maps = _matrices_of_blocks(module) if optim.method == "muon" else {}
    found: dict[tuple[int, str, float, float, bool, int], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        beside = vit is not module and not name.startswith(_WRAPPED)
        layer = depth + 1 if beside else layer_of(name, depth)
        scale = tune.decay ** (depth + 1 - layer) if isinstance(tune, LayerDecay) else 1.0
        decayed = parameter.ndim >= 2 if beside else decays(name, parameter)
        decay = optim.weight_decay if decayed else 0.0
        part = _part(name, layer, depth, beside)
        key = (layer, part, scale, decay, parameter.requires_grad, maps.get(name, 0))
        found.setdefault(key, []).append(parameter)
    groups = tuple(
        Group(
            name=part,
            layer=layer,
            lr_scale=scale,
            weight_decay=decay,
            trainable=learns,
            parameters=tuple(parameters),
            matrices=matrices,
        )
        for (layer, part, scale, decay, learns, matrices), parameters in found.items()
    )
    assert sum(g.count for g in groups) == sum(p.numel() for p in named.values())
    return groups


def detr_groups(detr: DETR, optim: OptimSettings, tune: TuneSettings | None) -> tuple[Group, ...]:
    """The groups of DETR: what is frozen of its trunk, the rest of the trunk, and everything else.

    All that learns decays, norms and biases too. Source: facebookresearch/detr, main.py and models/backbone.py.
    """
    parts = (detr.trunk.root, *detr.trunk.stages)
    if tune is not None:
        frozen = len(parts) if isinstance(tune, Head) else getattr(tune, "frozen", 0)
        for number, part in enumerate(parts):
            part.requires_grad_(number >= frozen)
    rate = tune.rate if isinstance(tune, Trunk) else 1.0
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in detr.named_parameters():
        found.setdefault((name.startswith("trunk."), parameter.requires_grad), []).append(parameter)
    return tuple(
        Group(
            name=("trunk" if learns else "trunk, frozen") if in_trunk else "transformer, queries, heads",
            layer=0 if in_trunk else 1,
            lr_scale=rate if in_trunk else 1.0,
            weight_decay=optim.weight_decay,
            trainable=learns,
            parameters=tuple(parameters),
        )
        for (in_trunk, learns), parameters in found.items()
    )


def _set_learning(
    module: nn.Module, vit: nn.Module, depth: int, tune: TuneSettings, generator: torch.Generator | None
) -> None:
    """Set `requires_grad` of the backbone, with adapters if LoRA is asked for. Raises: SettingsError as `parameter_groups`."""
    if isinstance(tune, Last) and tune.blocks > depth:
        blocks = plural(depth, "block")
        raise SettingsError(
            f"--tune {tune.text}: the model has {blocks}",
            f"use up to last:{depth}, or full" if depth else "use full",
        )
    if isinstance(tune, LoRA) and not any(True for _ in adapters(vit)):
        add_lora(
            vit,
            rank=tune.rank,
            alpha=tune.alpha,
            parts=tune.parts,
            dropout=tune.dropout,
            generator=generator,
        )
    for name, parameter in vit.named_parameters() if depth else ():
        parameter.requires_grad_(_learns(name, depth, tune))
    if not any(p.requires_grad for p in module.parameters()):
        raise SettingsError(
            f"--tune {tune.text}: the model has no head to train", "use --tune full or last:2"
        )


def train_mode(module: nn.Module) -> None:
    """`module.train()`, except that frozen parts stay in evaluation mode: no dropout, no drop path, fixed running averages."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()
    vit = getattr(module, "vit", module)
    depth = len(getattr(vit, "blocks", ()))
    first = [p for name, p in vit.named_parameters() if layer_of(name, depth) == 0]
    # Dropout on the tokens has no parameters of its own.
    if isinstance(dropout := getattr(vit, "dropout", None), nn.Module) and first:
        dropout.train(any(p.requires_grad for p in first))


def _learns(name: str, depth: int, tune: TuneSettings) -> bool:
    """Whether a parameter of the backbone is tuned."""
    is_head = name.startswith(_HEADS)
    match tune:
        case Full() | LayerDecay() | Trunk():
            return True
        case Head():
            return is_head
        case Last(blocks=blocks):
            return layer_of(name, depth) > depth - blocks
        case LoRA():
            return is_head or name.endswith((".lora_a", ".lora_b"))


def _part(name: str, layer: int, depth: int, beside: bool) -> str:
    if beside:
        return name.partition(".")[0]
    if name.endswith((".lora_a", ".lora_b")):
        return "LoRA"
    if 0 < layer <= depth:
        return "block"
    if layer == 0:
        return "patches, tokens, positions"
    return "head" if _unwrapped(name).startswith(_HEADS) else "norm, pooling"


def _matrices_of_blocks(model: nn.Module) -> dict[str, int]:
    """Name of each linear layer's weight in a block → the number of maps of equal height in it."""
    maps = {}
    for name, module in model.named_modules():
        if _unwrapped(name).startswith("blocks.") and isinstance(module, nn.Linear):
            part = model.get_submodule(name.rpartition(".")[0])
            three = isinstance(part, Attention) and module is part.qkv
            two = isinstance(part, MLP) and part.gated and module is part.fc1
            maps[f"{name}.weight"] = 3 if three else 2 if two else 1
    return maps


# The table ---------------------------------------------------------------------------------

MOST_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of groups. rates: lowest and highest; decays: the different values, ascending."""

    name: str
    rates: tuple[float, float]
    decays: tuple[float, ...]
    trainable: bool
    count: int


@dataclass(frozen=True)
class _Part:
    """A row's groups: those of a part of one layer, later of several layers."""

    name: str
    layers: tuple[int, int]
    groups: tuple[Group, ...]

    @property
    def like(self) -> tuple[object, ...]:
        scales = {g.lr_scale for g in self.groups}
        return self.name, self.groups[0].trainable, scales, {g.weight_decay for g in self.groups}

    def joined(self, other: "_Part") -> "_Part":
        return _Part(self.name, (self.layers[0], other.layers[1]), self.groups + other.groups)


def table(groups: Iterable[Group], lr: float) -> tuple[Row, ...]:
    """Rows in the model's order, at most about 12: neighbouring blocks that are tuned alike share one, then ranges of blocks.

    lr: the peak learning rate. The counts of the rows sum to all parameters.
    """
    by_part: dict[tuple[bool, int, str, bool], list[Group]] = {}
    for group in groups:
        adapter = group.name == "LoRA"
        by_part.setdefault((adapter, group.layer, group.name, group.trainable), []).append(group)
    layers = sorted(by_part, key=lambda key: (key[1], key[0]))
    last = max((layer for _, layer, name, _ in layers if name in ("block", "LoRA")), default=0)
    order = sorted(layers, key=lambda key: (0 if key[1] == 0 else 2 if key[1] > last else 1, key[0], key[1]))
    parts = [_Part(key[2], (key[1], key[1]), tuple(by_part[key])) for key in order]
    parts = _folded(parts, same=True)
    while len(parts) > MOST_ROWS:
        fewer = _folded(parts, same=False)
        if len(fewer) == len(parts):
            break
        parts = fewer
    return tuple(_row(part, lr) for part in parts)


def _folded(parts: Sequence[_Part], *, same: bool) -> list[_Part]:
    """Join neighbouring blocks: all that are tuned alike, or else pairs that differ in rate alone."""
    folded: list[_Part] = []
    fresh = True  # the last one was not joined yet
    for part in parts:
        before = folded[-1] if folded else None
        blocks = before is not None and part.name == before.name and part.name in ("block", "LoRA")
        alike = blocks and before is not None and part.like[:2] == before.like[:2]
        if before is not None and alike and (part.like == before.like if same else fresh):
            folded[-1], fresh = before.joined(part), False
        else:
            folded.append(part)
            fresh = True
    return folded


def _row(part: _Part, lr: float) -> Row:
    name, (first, last) = part.name, part.layers
    if name in ("block", "LoRA"):
        blocks = f"block {first}" if first == last else f"blocks {first} to {last}"
        name = blocks if name == "block" else f"LoRA, {blocks}"
    scales = [g.lr_scale for g in part.groups]
    trainable = part.groups[0].trainable
    return Row(
        name=name,
        rates=(lr * min(scales), lr * max(scales)) if trainable else (0.0, 0.0),
        decays=tuple(sorted({g.weight_decay for g in part.groups})) if trainable else (),
        trainable=trainable,
        count=sum(g.count for g in part.groups),
    )


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The table as text: a header, the rows, the sum. At most 80 columns."""
    cells = [("part", "learning rate", "decay", "tuned", "parameters")]
    for row in rows:
        low, high = row.rates
        rate = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        decay = " or ".join(f"{d:g}" for d in row.decays)
        tuned = "yes" if row.trainable else "no"
        cells.append((row.name[:30], rate if row.trainable else "-", decay or "-", tuned, f"{row.count:,}"))
    tuned_count, count = sum(r.count for r in rows if r.trainable), sum(r.count for r in rows)
    cells.append((f"all ({tuned_count / max(count, 1):.1%} tuned)", "", "", "", f"{count:,}"))
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    return [
        "  ".join(
            cell.rjust(width) if i == 4 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
