"""Probe j: what the matrices of a block take does not grow with the residual stream, because a norm comes first."""

from collections.abc import Iterator
from functools import partial

import torch

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.redraw import PRODUCTS
from patchword.diagnosis.tape import Op, Tape
from patchword.diagnosis.trunk import Trunk

NAME = "j norms"
_finding = partial(Finding, probe=NAME, level="departure", learn=steps.NORMS)
_LAYERS = PRODUCTS - {"matmul", "bmm", "multi_head_attention_forward"}
_FACTOR, _GROWTH = 3.0, 2.0


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or case.known & {"random", "residual", "batch statistics"}:
        return
    tokens = case.noise(trunk.tokens)
    with torch.no_grad():
        one, big = case.from_tokens(case.drawn, tokens), case.from_tokens(case.drawn, _FACTOR * tokens)
    # With post-norm blocks, what enters the first one has not passed a norm yet.
    for block in range("post-norm" in case.known, len(trunk.entries)):
        grown = _grown(trunk, one, big, block)
        if grown:
            case.known.add("norms missing")
            yield _missing(trunk, one, big, grown)
            return


def _grown(trunk: Trunk, one: Tape, big: Tape, block: int) -> list[tuple[str, Op]]:
    """The first product of attention and of the MLP whose input grows with the tokens."""
    events = [a.op for a in one.attentions if any(c.start <= a.op < c.stop for c in trunk.entries[block])]
    if not events:
        return []
    products = [op for op in trunk.ops(one) if op.name in _LAYERS and op.inputs[0].ndim == 3]
    products = [op for op in products if trunk.block_of(op) == block]
    before = [op for op in products if op.index < events[0]]
    after = [op for op in products if op.index > events[-1]][1:]  # the first joins the heads
    pairs = (("attention", before), ("the MLP", after))
    return [(what, op) for what, ops in pairs for op in ops[:1] if _ratio(op, big) > _GROWTH]


def _missing(trunk: Trunk, one: Tape, big: Tape, grown: list[tuple[str, Op]]) -> Finding:
    what, op = grown[0]
    both = len(grown) > 1
    return _finding(
        title="no norm in the blocks" if both else f"no norm before {what}",
        module=one.path(op),
        did="made the tokens that enter the first block three times larger",
        got=f"the input of {one.path(op)} grows by {_ratio(op, big) ** 0.5:.1f}",
        expected="no growth: a norm sets its scale",
        cure=f"apply nn.LayerNorm({trunk.width}) before {'attention and before the MLP' if both else what}",
    )


def _ratio(op: Op, big: Tape) -> float:
    a, b = op.inputs[0], big.ops[op.index].inputs[0]
    return float(b.square().mean() / a.square().mean().clamp_min(1e-30))
