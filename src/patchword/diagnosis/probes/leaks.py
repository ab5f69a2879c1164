"""Probe f: with attention replaced by a known permutation, a token reaches only the token that reads it.

A permutation instead of the identity also finds heads that are split and joined by the same wrong view.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.redraw import PRODUCTS
from patchword.diagnosis.tape import Attention, Call, Op, Tape
from patchword.diagnosis.trunk import Trunk, changed_tokens

NAME = "f leaks"
_AVERAGES = frozenset(("mean", "var", "std", "var_mean", "std_mean"))
_finding = partial(Finding, probe=NAME, expected="only the token that reads it, and itself")


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or case.known & {"random"} or trunk.count < 4:
        return
    permutation = _permutation(trunk.count)
    tokens = case.noise(trunk.tokens)
    leaks: list[tuple[Call, int, Op | None]] = []
    with torch.no_grad():
        base = case.from_tokens(case.drawn, tokens, permutation=permutation)
        for token in {1, trunk.count // 2}:
            moved = tokens.clone()
            moved.select(trunk.token_axis, token).add_(case.noise(tokens.select(trunk.token_axis, token), 5))
            other = case.from_tokens(case.drawn, moved, permutation=permutation)
            for call, count in _leaking(case, trunk, base, other, permutation):
                leaks.append((call, count, _leaking_op(base, other, call, trunk.count, case.tolerance)))
    if leaks:  # the blocks are alike; the first tells
        call, count, op = min(leaks, key=lambda leak: leak[0].index)
        yield from _report(case, base, call, count, op)


def _permutation(count: int) -> Tensor:
    """A cycle through all tokens, in random order: no token reads itself, and no two read each other."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    permutation = torch.empty_like(order)
    permutation[order] = order.roll(-1)
    return permutation


def _leaking(
    case: Case, trunk: Trunk, base: Tape, other: Tape, permutation: Tensor
) -> list[tuple[Call, int]]:
    """Calls in which changed tokens change tokens that don't read them; of nested ones the innermost."""
    found: dict[int, int] = {}
    for mine, theirs in zip(base.calls, other.calls, strict=False):
        if mine.start <= trunk.entrance or not mine.inputs or not mine.outputs or mine.path != theirs.path:
            continue
        given, result = mine.inputs[0], mine.outputs[0]
        if given.shape != trunk.tokens.shape or not _keeps_tokens(result, trunk):
            continue
        events = [a for a in base.attentions if mine.index in a.calls]
        if any(not a.replaced or _changed_by_weights(base, a) for a in events) or len(events) > 1:
            continue
        moved = changed_tokens(given, theirs.inputs[0], trunk.token_axis, case.tolerance)
        if not 0 < len(moved) <= trunk.count // 4:
            continue
        reads = {i for i in range(trunk.count) if int(permutation[i]) in moved}
        back = {int(permutation[i]) for i in moved}
        allowed = moved | reads | back if events else moved
        changed = changed_tokens(result, theirs.outputs[0], trunk.token_axis, case.tolerance)
        if changed - allowed:
            found[mine.index] = len(changed - allowed)
    inner = {parent for index in found for parent in base.calls[index].parents}
    return [(base.calls[index], count) for index, count in found.items() if index not in inner]


def _changed_by_weights(tape: Tape, event: Attention) -> bool:
    """Whether learned weights mix the heads of attention after softmax (CaiT, DeepViT): a permutation does not survive that."""
    tensor, after = tape.ops[event.op].output, event.op
    for _ in range(6):
        op = next(tape.readers(tensor, after), None)
        if op is None or event.fused is not None:
            return False
        if op.name in PRODUCTS:
            return any(isinstance(t, nn.Parameter) for t in op.inputs)
        tensor, after = op.output, op.index
    return False


def _keeps_tokens(result: Tensor, trunk: Trunk) -> bool:
    return result.ndim == 3 and result.shape[:2] == trunk.tokens.shape[:2] and result.is_floating_point()


def _leaking_op(base: Tape, other: Tape, call: Call, count: int, tolerance: float) -> Op | None:
    """The first operation in a call that spreads a change of one or two tokens to more."""
    for mine, theirs in zip(base.ops[call.start : call.stop], other.ops[call.start : call.stop], strict=True):
        spread = [_spread(a, b, count, tolerance) for a, b in zip(mine.inputs, theirs.inputs, strict=False)]
        result = _spread(mine.output, theirs.output, count, tolerance)
        if spread and 0 < max(spread) <= count // 4 and result > 2 * max(spread):
            return mine
    return None


def _spread(before: Tensor, after: Tensor, count: int, tolerance: float) -> int:
    """How many tokens differ; 0 if the tensor has no axis, or more than one, that can be the tokens."""
    axes = [axis for axis, size in enumerate(before.shape) if size == count]
    if len(axes) != 1 or not before.is_floating_point() or before.shape != after.shape:
        return 0
    return len(changed_tokens(before, after, axes[0], tolerance))


def _report(case: Case, tape: Tape, call: Call, count: int, op: Op | None) -> Iterator[Finding]:
    attends = any(call.index in attention.calls for attention in tape.attentions)
    ops = [op.name for op in tape.ops[call.start : call.stop]]
    kind = type(call.module).__name__
    culprit = op.name if op else ""
    averages = culprit in _AVERAGES or "norm" in culprit
    averages |= not attends and not PRODUCTS & set(ops) and bool(_AVERAGES & set(ops))
    got = f"{count} other tokens change in {call.path}" + (f", first after {culprit}" if culprit else "")
    if attends and not averages:
        case.known.add("heads")
        yield _finding(
            level="mistake",
            title="tokens mix where heads are split or joined",
            module=call.path,
            did="let each token read exactly one other token, and changed one token",
            got=got,
            cure="split with view(B, N, heads, width).transpose(1, 2), and join with transpose(1, 2).reshape(B, N, D): "
            "view alone does not move an axis",
            learn=steps.HEADS,
        )
        return
    over_tokens = averages or "norm" in kind.lower()
    instance = isinstance(call.module, nn.modules.instancenorm._InstanceNorm | nn.GroupNorm) or culprit in (
        "instance_norm",
        "group_norm",
    )
    convolution = any(name.startswith("conv") for name in ops)
    wrong = over_tokens and not instance
    case.known.add("norm over tokens" if over_tokens else "mixing")
    yield _finding(
        level="mistake" if wrong else "departure",
        title="a norm averages over tokens" if over_tokens else "tokens mix outside softmax attention",
        module=call.path if op is None or not attends else tape.path(op),
        did="changed one token, with attention replaced by a known permutation",
        got=got + (" (convolution)" if convolution else ""),
        cure="use nn.LayerNorm(width): it normalises the channels of one token"
        if over_tokens
        else "in the plain ViT, tokens exchange information in attention alone",
        learn=steps.NORMS if over_tokens else steps.HEADS,
    )
