"""Compare with patchword's own ViT: copy the weights over, feed the same images, and name the first layer that differs.

Weights are mapped by the order in which they are used, never by name. What no invariant shows is found this way: eps,
another activation, queries, keys and values packed in another order, the order of the pixels of a patch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart
from patchword.diagnosis.redraw import PRODUCTS
from patchword.diagnosis.tape import Call, Op, Tape
from patchword.diagnosis.walk import weights_in
from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import ClassPool, LayerNormConfig, Learned, MeanPool
from patchword.model.vit import ViT

_VALUES: dict[str, tuple[Any, ...]] = {
    "eps": (1e-5, 1e-12, 1e-8, 1e-3),
    "pixels": ("row, column, channel",),
    "packing": (
        "heads of q, k, v",
        "channels of q, k, v",
        "q, v, k",
        "k, q, v",
        "k, v, q",
        "v, q, k",
        "v, k, q",
    ),
    "activation": ("gelu_tanh", "quick_gelu", "relu", "silu", "tanh", "leaky_relu", "mish", "hard_swish"),
}


class _NotPlain(Exception):
    """The weights do not map; the reason is not reported, because probes have reported what matters."""


@dataclass(frozen=True)
class _Parts:
    """The operations of a plain ViT with their weights, in order of use."""

    embed: Op
    blocks: list[dict[str, Any]]
    norm: Op
    head: Op
    entered: Tensor
    logits: Tensor


@dataclass(frozen=True)
class _Choice:
    """What may differ although all shapes agree. The first value of each is that of the paper's code."""

    eps: float = 1e-6
    activation: str = "gelu"
    packing: str = "q, k, v"
    pixels: str = "channel, row, column"


def compared_line(case: Case) -> str:
    """One line: equal in every layer, with which choices, or the first layer that differs. "" if the weights don't map."""
    try:
        parts = _parts(case)
    except (_NotPlain, SettingsError):
        return ""
    separate = len(parts.blocks[0]["qkv"]) == 3
    try:
        choice = _Choice()
        agree, place = _rank(case, parts, choice)
        while place:
            # The first choice that agrees in more layers: likely ones come first, and each builds a model.
            tries = ((_tried(case, parts, other), other) for other in _others(choice))
            better = next(((found, other) for found, other in tries if found[0] > agree), None)
            if better is None:
                break
            (agree, place), choice = better
    except (_NotPlain, SettingsError):
        return ""
    words = "; ".join(_words(choice, separate=separate))
    start = "compared with patchword's ViT with the same weights:"
    if not place:
        return f"{start} equal in every layer" + (f", with {words}" if words else "")
    return f"{start} {place} is the first layer that differs" + (f" (with {words})" if words else "")


def _words(choice: _Choice, *, separate: bool) -> Iterator[str]:
    usual = _Choice()
    if choice.eps != usual.eps:
        yield f"eps {choice.eps:g} in the norms (1e-06 in the paper's code)"
    if choice.activation != usual.activation:
        yield f"{choice.activation} as activation (the paper: gelu)"
    if choice.packing != usual.packing and not separate:  # of separate layers, any may come first
        yield f"queries, keys and values packed as {choice.packing}"
    if choice.pixels != usual.pixels:
        yield f"the pixels of a patch ordered as {choice.pixels}"


def _others(choice: _Choice) -> Iterator[_Choice]:
    for name, values in _VALUES.items():
        for value in values:
            if value != getattr(choice, name):
                yield replace(choice, **{name: value})


# The student's parts -----------------------------------------------------------------------


def _parts(case: Case) -> _Parts:
    trunk, tape = case.trunk, case.pass_
    if (
        trunk is None
        or trunk.exit is None
        or not trunk.complete
        or trunk.token_axis == 0
        or case.known & {"mates", "random"}
    ):
        raise _NotPlain
    front = [op for op in tape.ops[: trunk.entrance + 1] if op.name in PRODUCTS or "norm" in op.name]
    behind = [op for op in tape.ops[trunk.exit + 1 :] if op.name in PRODUCTS or "norm" in op.name]
    if [op.name in ("conv2d", "linear") for op in front] != [True] or [op.name for op in behind] != [
        "layer_norm",
        "linear",
    ]:
        raise _NotPlain
    blocks = [_block(case, tape, trunk.ops(tape), index) for index in range(len(trunk.entries))]
    return _Parts(front[0], blocks, behind[0], behind[1], tape.ops[trunk.entrance].output, tape.logits)


def _block(case: Case, tape: Tape, ops: list[Op], index: int) -> dict[str, Any]:
    """The operations of one block: norm1, q, k and v (or all in one), proj, norm2, fc1, fc2, and its heads."""
    trunk = case.trunk
    assert trunk is not None
    inside = [op for op in ops if trunk.block_of(op) == index]
    events = [a for a in tape.attentions if any(op.index == a.op for op in inside)]
    norms = [op for op in inside if op.name == "layer_norm"]
    layers = [op for op in inside if op.name == "linear"]
    if len(events) != 1 or len(norms) != 2:
        raise _NotPlain
    before, after = ([op for op in layers if (op.index < events[0].op) == early] for early in (True, False))
    first_norm = norms[0].index < before[0].index if before else False
    if len(before) not in (1, 3) or len(after) != 3 or not first_norm or norms[1].index < after[0].index:
        raise _NotPlain
    shape = events[0].scores.shape
    heads = shape[1] if len(shape) == 4 else shape[0] // case.batch
    return {
        "norm1": norms[0],
        "qkv": before,
        "proj": after[0],
        "norm2": norms[1],
        "fc1": after[1],
        "fc2": after[2],
        "heads": heads,
    }


def _weight(op: Op) -> Tensor:
    """The weight of a linear layer, convolution or norm on the tape; its bias is the next parameter, if any."""
    found = [t for t in op.inputs[1:] if isinstance(t, nn.Parameter)]
    if not found:
        raise _NotPlain
    return found[0].detach()


def _bias(op: Op) -> Tensor | None:
    found = [t for t in op.inputs[1:] if isinstance(t, nn.Parameter)]
    return found[1].detach() if len(found) > 1 else None


# Our model with these weights --------------------------------------------------------------


def _ours(case: Case, parts: _Parts, choice: _Choice) -> ViT:
    trunk = case.trunk
    assert trunk is not None
    table, token = _tokens(case)
    side = _patch_side(case, parts.embed)
    first = parts.blocks[0]
    reads_class = token is not None and "reads one" in case.known
    config = ViTConfig(
        image=ImageConfig(size=case.size, channels=case.channels),
        patch=PatchConfig(size=(side, side), bias=_bias(parts.embed) is not None, edge="cut"),
        dim=trunk.width,
        depth=len(parts.blocks),
        tokens=TokensConfig(class_token=token is not None),
        positions=Learned(covers="all_but_registers" if len(table) == trunk.count else "patches"),
        attention=AttentionConfig(
            num_heads=first["heads"],
            bias="qkv" if _bias(first["qkv"][0]) is not None else "none",
            out_bias=_bias(first["proj"]) is not None,
        ),
        mlp=MLPConfig(
            hidden=first["fc1"].output.shape[-1],
            activation=choice.activation,  # type: ignore[arg-type]
            bias=_bias(first["fc1"]) is not None,
        ),
        block=BlockConfig(),
        norm=LayerNormConfig(eps=choice.eps),
        head=HeadConfig(
            norm="tokens" if reads_class or parts.norm.inputs[0].ndim == 3 else "pooled",
            num_classes=parts.head.output.shape[-1],
            bias=_bias(parts.head) is not None,
            pool=ClassPool() if reads_class else MeanPool(over="all"),
        ),
    )
    with torch.device("meta"):  # draws nothing, neither time nor random numbers
        model = ViT(config)
    state = _state(case, parts, choice, table, token, side)
    if config.head.norm == "pooled":
        state = {
            name.replace("norm.", "pooled_norm.") if name.startswith("norm.") else name: t
            for name, t in state.items()
        }
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in model.state_dict().items()}:
        raise _NotPlain
    model.load_state_dict(state, assign=True)
    return model.eval()


def _tokens(case: Case) -> tuple[Tensor, Tensor | None]:
    """The table of positions [rows, D] and the class token [D], if there is one."""
    trunk = case.trunk
    assert trunk is not None
    added = {
        n: w.detach() for n, w in weights_in(case.drawn).items() if case.used.get(n, ("",))[0] == "added"
    }
    width = trunk.width
    tables = [
        w.reshape(-1, width)
        for w in added.values()
        if w.numel() in (trunk.count * width, (trunk.count - 1) * width)
    ]
    tokens = [w.flatten() for w in added.values() if w.numel() == width]
    if (
        len(tables) != 1
        or len(tokens) > 1
        or case.prefix not in ((), (0,))
        or bool(tokens) != bool(case.prefix)
    ):
        raise _NotPlain
    return tables[0], tokens[0] if tokens else None


def _patch_side(case: Case, embed: Op) -> int:
    trunk = case.trunk
    assert trunk is not None
    patches = trunk.count - len(case.prefix)
    side: int = round((case.size[0] * case.size[1] / patches) ** 0.5)
    if _weight(embed)[0].numel() != case.channels * side * side:
        raise _NotPlain
    return side


def _state(
    case: Case, parts: _Parts, choice: _Choice, table: Tensor, token: Tensor | None, side: int
) -> dict[str, Tensor]:
    kernel = _weight(parts.embed)
    if kernel.ndim == 2:
        by_row = choice.pixels == "row, column, channel"
        shape = (-1, side, side, case.channels) if by_row else (-1, case.channels, side, side)
        kernel = kernel.reshape(shape).permute(0, 3, 1, 2) if by_row else kernel.reshape(shape)
    elif choice.pixels != _Choice().pixels:
        raise _NotPlain
    state: dict[str, Tensor | None] = {
        "patch_embed.proj.weight": kernel,
        "patch_embed.proj.bias": _bias(parts.embed),
    }
    grid = (case.size[0] // side, case.size[1] // side)
    rows = grid[0] * grid[1]
    state["positions.grid"] = table[-rows:].reshape(*grid, -1)
    if len(table) > rows:
        state["positions.prefix"] = table[:-rows]
    if token is not None:
        state["prefix.class_token"] = token
    for index, block in enumerate(parts.blocks):
        for name, op in (
            ("norm1", "norm1"),
            ("attention.proj", "proj"),
            ("norm2", "norm2"),
            ("mlp.fc1", "fc1"),
            ("mlp.fc2", "fc2"),
        ):
            state[f"blocks.{index}.{name}.weight"], state[f"blocks.{index}.{name}.bias"] = (
                _weight(block[op]),
                _bias(block[op]),
            )
        biases = [_bias(op) for op in block["qkv"]]
        packed = torch.cat([_weight(op) for op in block["qkv"]])
        state[f"blocks.{index}.attention.qkv.weight"] = _unpacked(packed, choice.packing, block["heads"])
        state[f"blocks.{index}.attention.qkv.bias"] = (
            _unpacked(torch.cat([b for b in biases if b is not None]), choice.packing, block["heads"])
            if None not in biases
            else None
        )
    for name, last in (("norm", parts.norm), ("head", parts.head)):
        state[f"{name}.weight"], state[f"{name}.bias"] = _weight(last), _bias(last)
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def _unpacked(packed: Tensor, packing: str, heads: int) -> Tensor:
    """Rows in the order all queries, all keys, all values."""
    rows = packed.shape[0] // 3
    if packing == "heads of q, k, v":
        return packed.reshape(heads, 3, rows // heads, -1).transpose(0, 1).reshape(packed.shape)
    if packing == "channels of q, k, v":
        return packed.reshape(rows, 3, -1).transpose(0, 1).reshape(packed.shape)
    parts = dict(zip(packing.split(", "), packed.chunk(3), strict=True))
    return torch.cat([parts["q"], parts["k"], parts["v"]])


# Layer by layer ----------------------------------------------------------------------------


def _layers(case: Case, parts: _Parts, tape: Tape) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(the student's module, the student's output, ours), in order."""
    own = case.pass_
    calls = {call.path: call for call in tape.calls}

    def ours(path: str) -> Tensor:
        return calls[path].outputs[0]

    yield (
        own.path(parts.embed) or "the tokens that enter the first block",
        parts.entered,
        calls["blocks.0"].inputs[0],
    )
    for index, block in enumerate(parts.blocks):
        for name, op in (("norm1", "norm1"), ("attention", "proj"), ("norm2", "norm2"), ("mlp", "fc2")):
            path, output = own.path(block[op]), block[op].output
            if op in ("proj", "fc2"):
                around = _around(own, block["qkv"][0] if op == "proj" else block["fc1"], block[op])
                path = around.path if around else ""
                if around and output.shape != parts.entered.shape:  # inside nn.MultiheadAttention
                    output = around.outputs[0]
            yield path, output, ours(f"blocks.{index}.{name}")
    yield (
        own.path(parts.norm),
        parts.norm.output,
        ours("pooled_norm" if isinstance(calls["norm"].module, nn.Identity) else "norm"),
    )
    yield own.path(parts.head) or "the head", parts.logits, tape.logits


def _around(tape: Tape, first: Op, last: Op) -> Call | None:
    """The innermost call of a module around two operations."""
    common = [i for i in first.calls if i in last.calls]
    return tape.calls[common[-1]] if common else None


def _tried(case: Case, parts: _Parts, choice: _Choice) -> tuple[int, str]:
    try:
        return _rank(case, parts, choice)
    except _NotPlain:  # a choice that these weights don't have
        return -1, ""


def _rank(case: Case, parts: _Parts, choice: _Choice) -> tuple[int, str]:
    """How many layers agree, and the first that does not ("" if all do)."""
    with torch.no_grad():
        tape = case.tape(_ours(case, parts, choice), case.images())
    number = 0
    for path, theirs, ours in _layers(case, parts, tape):
        theirs = theirs.detach()
        if theirs.ndim == 3 and ours.ndim == 3:
            theirs = theirs[:, : ours.shape[1]]  # our last block may compute the class token alone
        if theirs.ndim == 2 and ours.ndim == 3:
            ours = ours[:, 0]
        if theirs.ndim == 3 and ours.ndim == 2:
            raise _NotPlain
        if apart(theirs, ours, 1e-8 if case.dtype == torch.float64 else 1e-4):
            return number, path or f"layer {number}"
        number += 1
    return number, ""
