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
from patchword.diagnosis.tape import Attention, Call, Tape
from patchword.diagnosis.trunk import Trunk, changed_tokens

NAME = "f leaks"
_finding = partial(Finding, probe=NAME, expected="only the token that reads it, and itself")


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or case.known & {"random"} or trunk.count < 4:
        return
    permutation = _permutation(trunk.count)
    tokens = case.noise(trunk.tokens)
    leaks: dict[int, tuple[Call, int]] = {}
    with torch.no_grad():
        base = case.from_tokens(case.drawn, tokens, permutation=permutation)
        for token in {1, trunk.count // 2}:
            moved = tokens.clone()
            moved.select(trunk.token_axis, token).add_(case.noise(tokens.select(trunk.token_axis, token), 5))
            other = case.from_tokens(case.drawn, moved, permutation=permutation)
            reached = {token, int(permutation[token]), int(torch.nonzero(permutation == token))}
            for call, count in _leaking(case, trunk, base, other, token, reached):
                leaks.setdefault(call.index, (call, count))
    seen: set[int] = set()
    for call, count in leaks.values():
        if id(call.module) not in seen:
            seen.add(id(call.module))
            yield from _report(case, base, call, count)
            break  # the blocks are alike; the first tells


def _permutation(count: int) -> Tensor:
    """A cycle through all tokens, in random order: no token reads itself, and no two read each other."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
    permutation = torch.empty_like(order)
    permutation[order] = order.roll(-1)
    return permutation


def _leaking(
    case: Case, trunk: Trunk, base: Tape, other: Tape, token: int, reached: set[int]
) -> list[tuple[Call, int]]:
    """Calls in which one changed token changes tokens that don't read it; of nested ones the innermost."""
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
        if changed_tokens(given, theirs.inputs[0], trunk.token_axis, case.tolerance) != {token}:
            continue
        allowed = reached if events else {token}
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


def _report(case: Case, tape: Tape, call: Call, count: int) -> Iterator[Finding]:
    attends = any(call.index in attention.calls for attention in tape.attentions)
    ops = [op.name for op in tape.ops[call.start : call.stop]]
    kind = type(call.module).__name__
    got = f"{count} other tokens change in {call.path}"
    if attends:
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
    over_tokens = "norm" in kind.lower() or any("norm" in name for name in ops[-1:])
    instance = (
        isinstance(call.module, nn.modules.instancenorm._InstanceNorm | nn.GroupNorm)
        or "instance_norm" in ops
    )
    convolution = any(name.startswith("conv") for name in ops)
    wrong = over_tokens and not instance
    case.known.add("norm over tokens" if over_tokens else "mixing")
    yield _finding(
        level="mistake" if wrong else "departure",
        title="a norm averages over tokens" if over_tokens else "tokens mix outside softmax attention",
        module=call.path,
        did="changed one token, with attention replaced by a known permutation",
        got=got + (" (convolution)" if convolution else ""),
        cure="use nn.LayerNorm(width): it normalises the channels of one token"
        if over_tokens
        else "in the plain ViT, tokens exchange information in attention alone",
        learn=steps.NORMS if over_tokens else steps.HEADS,
    )
