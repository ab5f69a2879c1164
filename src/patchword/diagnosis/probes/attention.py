"""Probe k: softmax runs over the keys of one image and one head, over scores of unit spread, from distinct q, k and v."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.redraw import PRODUCTS
from patchword.diagnosis.tape import Attention, Op, Tape
from patchword.diagnosis.trunk import Trunk, changed_tokens

NAME = "k attention"
_finding = partial(Finding, probe=NAME, learn=steps.ONE_HEAD)
_SPREAD, _LATER_SPREAD = (0.76, 1.32), (0.6, 1.7)
_PASSING = (
    "dropout",
    "to",
    "type_as",
    "contiguous",
    "clone",
    "float",
    "masked_fill",
    "nan_to_num",
    "expand",
    "reshape",
    "view",
)


@dataclass
class Use:
    """What becomes of attention weights: axis is the one that the product with the values sums over, counted from the end."""

    axis: int
    scaled: bool
    values: Tensor | None


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None and not case.pass_.attentions:
        yield _finding(
            level="departure",
            title="no softmax attention was found",
            module="",
            did="recorded every operation of one pass",
            got="no softmax over scores, and no scaled_dot_product_attention",
            expected="softmax(q k / sqrt(head width)) v in each block",
            cure="use torch's softmax or attention functions; one that is written by hand is not recognised",
        )
    if trunk is None or case.known & {"random"}:
        return
    with torch.no_grad():
        tape = case.from_tokens(case.drawn, case.noise(trunk.tokens))
    events = [
        a for calls in trunk.entries for a in tape.attentions if any(c.start <= a.op < c.stop for c in calls)
    ]
    if not events:
        return
    for number, event in enumerate(events):
        found = list(_axes(case, trunk, tape, event))
        if not found and not case.known & {"mates", "heads", "patches"}:
            # Later blocks see tokens that have begun to resemble each other.
            limits = _SPREAD if number == 0 else _LATER_SPREAD
            found = [*_scale(case, trunk, tape, event, limits), *_sources(tape, event)]
        yield from found
        if found:
            break  # the blocks are mostly alike; the first tells
    yield from _mixing(case, trunk, tape, events[0])


# The axis ----------------------------------------------------------------------------------


def _axes(case: Case, trunk: Trunk, tape: Tape, event: Attention) -> Iterator[Finding]:
    shape, keys = event.scores.shape, event.scores.shape[event.axis]
    use = _use(tape, event)
    did = "looked at the scores that softmax takes"
    if "mates" in case.known and keys == case.batch:
        return
    wrong = ""
    if event.axis < -2:
        wrong = "the images of the batch" if keys == case.batch and event.axis == -len(shape) else "the heads"
    elif use is not None and event.axis != use.axis:
        wrong = "the queries"
    elif keys != trunk.count and trunk.count in shape[:-2] and shape[-1] == shape[-2]:
        case.known.add("softmax axis")
        yield _finding(
            level="mistake",
            title="attention runs over the heads, not over the tokens",
            module=event.path,
            did=did,
            got=f"scores {list(shape)} compare {keys} heads in each of {trunk.count} tokens",
            expected=f"scores [batch, heads, {trunk.count}, {trunk.count}]",
            cure="move the heads in front of the tokens before q @ k.transpose(-2, -1): view(B, N, heads, d).transpose(1, 2)",
        )
        return
    if wrong:
        case.known.add("softmax axis")
        yield _finding(
            level="mistake",
            title=f"softmax runs over {wrong}, not over the keys",
            module=event.path,
            did=did,
            got=f"scores {list(shape)}, softmax over axis {event.axis}",
            expected="the weights that one query gives to all keys sum to 1: the last axis",
            cure="softmax(dim=-1)",
        )


def _use(tape: Tape, event: Attention) -> Use | None:
    """Follow the weights to the product with the values. None for fused attention, or if there is no such product."""
    if event.fused is not None or event.op >= len(tape.ops):
        return None
    weights, after, flipped, scaled = tape.ops[event.op].output, event.op, False, False
    for _ in range(8):
        op = next(tape.readers(weights, after), None)
        if op is None:
            return None
        if op.name in PRODUCTS:
            return _contracted(op, weights, flipped, scaled)
        if op.name in ("mul", "div"):
            scaled |= any(
                isinstance(a, int | float) or (isinstance(a, Tensor) and a.ndim == 0) for a in op.arguments
            )
        elif op.name in ("transpose", "mT", "T", "swapaxes"):
            flipped = not flipped
        elif op.name not in _PASSING:
            return None
        weights, after = op.output, op.index
    return None


def _contracted(op: Op, weights: Tensor, flipped: bool, scaled: bool) -> Use | None:
    values = next((t for t in op.inputs if t is not weights), None)
    if op.name == "einsum":
        given, _, result = str(op.arguments[0]).replace(" ", "").partition("->")
        terms = given.split(",")
        position = next((i for i, t in enumerate(op.inputs) if t is weights), 0)
        if len(terms) != 2 or not result or "." in given:
            return None
        term, other = terms[position], terms[1 - position]
        summed = [i - len(term) for i, letter in enumerate(term) if letter in other and letter not in result]
        if len(summed) != 1:
            return None
        axis = summed[0]
    else:
        axis = -1 if op.inputs and op.inputs[0] is weights else -2
    if flipped:
        axis = {-1: -2, -2: -1}.get(axis, axis)
    return Use(axis, scaled, values)


# The scale ---------------------------------------------------------------------------------


def _scale(
    case: Case, trunk: Trunk, tape: Tape, event: Attention, limits: tuple[float, float]
) -> Iterator[Finding]:
    use = _use(tape, event)
    if use is not None and use.scaled:
        yield _finding(
            level="mistake",
            title="the scale is applied after the softmax",
            module=event.path,
            did="followed the attention weights to the values",
            got="they are multiplied by a number, so they no longer sum to 1",
            expected="softmax(q k / sqrt(head width)) v",
            cure="scale the scores before the softmax",
        )
        return
    scores = event.scores
    if trunk.count not in (scores.shape[event.axis],) or not bool(scores.isfinite().all()):
        return
    spread = float(scores.var(event.axis).mean().sqrt())
    if limits[0] <= spread <= limits[1] or case.known & {"norms missing", "batch statistics"}:
        return
    heads = _heads(case, scores)
    width = trunk.width // heads if heads else 0
    yield _finding(
        level="departure",
        title="attention scores are not scaled by 1/sqrt(head width)",
        module=event.path,
        did="drew all weights to unit gain and measured the spread of the scores over the keys",
        got=f"{spread:.2f}{_reading(spread, width, heads)}",
        expected="1.00",
        cure="divide q k by sqrt(width of one head)" + (f" = sqrt({width})" if width > 1 else ""),
    )


def _heads(case: Case, scores: Tensor) -> int:
    if scores.ndim == 4 and case.batch in scores.shape[:2]:
        return scores.shape[1] if scores.shape[0] == case.batch else scores.shape[0]
    return scores.shape[0] // case.batch if scores.ndim == 3 else 0


def _reading(spread: float, width: int, heads: int) -> str:
    if width < 1 or heads < 1:
        return ""
    guesses = {
        "as without any scale": width**0.5,
        "as if multiplied by sqrt(head width)": float(width),
        "as if divided by the head width": width**-0.5,
        "as if divided by sqrt(model width)": heads**-0.5,
        "as if divided by sqrt(number of heads)": (width / heads) ** 0.5,
        "as if scaled twice": width**-0.5,
    }
    words, expected = min(guesses.items(), key=lambda item: abs(item[1] / spread - 1) + 1e-9)
    return f", {words}" if abs(expected / spread - 1) < 0.2 else ""


# Queries, keys and values ------------------------------------------------------------------


def _sources(tape: Tape, event: Attention) -> Iterator[Finding]:
    scores = event.scores
    if (
        scores.shape[-1] == scores.shape[-2] > 2
        and bool(scores.isfinite().all())
        and not apart(scores, scores.transpose(-2, -1), 1e-6)
    ):
        yield _finding(
            level="departure",
            title="queries and keys are the same",
            module=event.path,
            did="compared the scores with their transpose",
            got="they are symmetric: token i looks at j as much as j at i",
            expected="two matrices, one for queries and one for keys",
            cure="use a separate nn.Linear for q and for k",
        )
    triple = _triple(tape, event)
    if triple is None:
        return
    q, k, v = triple
    for name, other in (("keys", k), ("queries", q)):
        same = [t for t in (other, other.transpose(-2, -1)) if t.shape == v.shape]
        if any(not apart(v, t, 1e-6) for t in same):
            yield _finding(
                level="departure",
                title=f"values and {name} are the same",
                module=event.path,
                did="compared what attention weights are multiplied with",
                got=f"the {name}",
                expected="values from a matrix of their own",
                cure="use a separate nn.Linear for v, and multiply the weights with it",
            )
            return


def _triple(tape: Tape, event: Attention) -> tuple[Tensor, Tensor, Tensor] | None:
    if event.fused is not None:
        return event.fused
    use, source = _use(tape, event), tape.producer(event.scores, event.op)
    for _ in range(6):
        if source is None or source.name in PRODUCTS:
            break
        given = next((t for t in source.inputs if t.ndim == event.scores.ndim), None)
        source = None if given is None else tape.producer(given, source.index)
    if use is None or use.values is None or source is None or len(source.inputs) < 2:
        return None
    return source.inputs[0], source.inputs[1], use.values


# Who reads whom ----------------------------------------------------------------------------


def _mixing(case: Case, trunk: Trunk, tape: Tape, event: Attention) -> Iterator[Finding]:
    """Every token must reach every other through the blocks."""
    if trunk.exit is None or trunk.count < 3:
        return
    tokens, last = case.noise(trunk.tokens), trunk.count - 1
    reached = {}
    with torch.no_grad():
        for token in (0, last):
            moved = tokens.clone()
            moved.select(trunk.token_axis, token).neg_()
            other = case.from_tokens(case.drawn, moved)
            reached[token] = changed_tokens(
                tape.ops[trunk.exit].output, other.ops[trunk.exit].output, trunk.token_axis, case.tolerance
            )
    if "residual" not in case.known and reached[0] <= {0} and reached[last] <= {last}:
        yield _finding(
            level="mistake",
            title="tokens never exchange information",
            module=event.path,
            did="changed one token at the entrance of the blocks",
            got="no other token changes",
            expected="every token changes, through attention",
            cure="attention must run over the tokens of one image: check the axes of q, k and v, and batch_first",
            learn=steps.ORDER,
        )
    elif last in reached[0] and 0 not in reached[last]:
        yield _finding(
            level="mistake",
            title="attention is causal: tokens see only those before them",
            module=event.path,
            did="changed the last token at the entrance of the blocks",
            got="the first token does not change",
            expected="every token sees every other; a class token in front sees nothing otherwise",
            cure="remove the causal mask (is_causal, tril)",
        )
