"""Probe m: plain logits, a first loss near ln K, no two linear layers in a row, sensible dropout, and 16 images can be learned."""

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case, logits_of, seeded
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.probes.statistics import without_dropout
from patchword.diagnosis.tape import Op, Tape
from patchword.diagnosis.walk import modules_in, weights_in

NAME = "m training"
_finding = partial(Finding, probe=NAME, learn=steps.MISTAKES)
_BOUNDED = {
    "softmax": ("mistake", "the output is already a softmax", "cross_entropy applies softmax itself: return plain logits"),
    "tanh": ("mistake", "the output is bounded by tanh", "return plain logits: the loss cannot fall below a bound otherwise"),
    "sigmoid": ("departure", "the output is bounded by sigmoid", "return plain logits, and use a loss 'with logits'"),
    "relu": ("departure", "the output is cut by ReLU", "return plain logits: classes below zero get no gradient"),
    "gelu": ("departure", "the output passes GELU", "return plain logits"),
    "log_softmax": ("note", "the output is a log_softmax", "harmless with cross_entropy; return plain logits for other losses"),
    "layer_norm": ("departure", "the output is normalised", "end with a linear layer: a norm fixes the size of the logits"),
    "dropout": ("departure", "dropout comes after the head", "drop tokens or features, not logits"),
}  # fmt: skip
_STEPS, _IMAGES, _MANY = 60, 16, 20_000_000
_MILD, _WILD, _LEARNED = 1.0, 4.0, 0.7


def probe(case: Case) -> Iterator[Finding]:
    yield from _last(case)
    yield from _linear_pairs(case)
    yield from _dropout(case)
    yield from _narrow(case)
    if "random" not in case.known:
        yield from _first_loss(case)
    yield from _learns(case)


# The output --------------------------------------------------------------------------------


def _last(case: Case) -> Iterator[Finding]:
    tape = case.tape(case.fresh(train=True), case.images())
    op = tape.producer(tape.logits)
    rows = tape.logits.detach()
    sums = bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-4).all()) and rows.shape[1] > 1
    name = "softmax" if sums else op.name if op else ""
    if name not in _BOUNDED:
        return
    level, title, cure = _BOUNDED[name]
    case.known.add(f"output {name}")
    yield _finding(
        level=level,  # type: ignore[arg-type]
        title=title,
        module=tape.path(op) if op and name == op.name else "",
        did="looked at the operation that makes the logits",
        got="rows that sum to 1" if sums else name,
        expected="the plain output of the last linear layer",
        cure=cure,
    )


def _first_loss(case: Case) -> Iterator[Finding]:
    logits = case.logits(case.original, case.images(8 if not case.only_batch else None)).double()
    classes = logits.shape[1]
    if classes < 2:
        return
    expected = math.log(classes)
    # The mean over all labels is the expected loss of a random label.
    loss = float((torch.logsumexp(logits, 1) - logits.mean(1)).mean())
    if not math.isfinite(loss) or loss > expected + _MILD:
        wild = not math.isfinite(loss) or loss > expected + _WILD
        case.known.add("first loss")
        yield _finding(
            level="mistake" if wild else "note",
            title="the first loss is far above chance" if wild else "the first loss is above chance",
            module=_largest(case) if wild else "",
            did="computed the loss of random labels with the weights that the model starts with",
            got=f"{loss:.2f}",
            expected=f"about ln {classes} = {expected:.2f}",
            cure="start linear layers with torch's own rule or std 0.02, not with N(0, 1)",
        )


def _largest(case: Case) -> str:
    """The matrix whose start is furthest above unit gain."""
    gains = {
        name: float(w.detach().square().mean().sqrt()) * case.used[name][1] ** 0.5
        for name, w in weights_in(case.original).items()
        if case.used.get(name, ("",))[0] == "matrix"
    }
    return max(gains, key=lambda name: gains[name]).rpartition(".")[0] if gains else ""


# Layers ------------------------------------------------------------------------------------


def _linear_pairs(case: Case) -> Iterator[Finding]:
    """A linear layer that takes the very output of another: together they are one matrix."""
    tape = case.pass_
    seen: set[str] = set()
    for op in tape.ops:
        if op.name != "linear" or len(op.inputs) < 2:
            continue
        first = _linear_before(tape, op)
        if first is None:
            continue
        given, middle = first.inputs[0].shape[-1], first.output.shape[-1]
        if middle < min(given, op.output.shape[-1]):  # a narrow middle is a factorised matrix, as in LoRA
            continue
        inside = (
            case.trunk is not None
            and first.index > case.trunk.entrance
            and case.trunk.block_of(op) is not None
        )
        kind = (
            "the MLP"
            if inside
            else "the head"
            if case.trunk and first.index > case.trunk.entrance
            else "the stem"
        )
        if kind in seen:
            continue
        seen.add(kind)
        yield _finding(
            level="mistake" if inside and middle > given else "departure",
            title=f"{kind} has two linear layers without an activation between them",
            module=_parent(tape, first, op),
            did="followed the output of each linear layer",
            got=f"{tape.path(op) or 'one layer'} takes the output of {tape.path(first) or 'another'} as it is",
            expected="GELU between them: two linear layers in a row are one",
            cure="add nn.GELU() between the layers, or keep one",
        )


def _linear_before(tape: Tape, op: Op) -> Op | None:
    source = tape.producer(op.inputs[0], op.index)
    for _ in range(4):
        if source is None:
            return None
        if source.name == "linear":
            # The same weight twice is recurrence, another finding.
            return source if source.inputs[1] is not op.inputs[1] else None
        if source.name not in ("dropout", "contiguous", "to", "clone"):
            return None
        source = tape.producer(source.inputs[0], source.index)
    return None


def _parent(tape: Tape, first: Op, second: Op) -> str:
    common = [i for i in first.calls if i in second.calls]
    return tape.calls[common[-1]].path if common and len(common) > 1 else tape.path(second)


def _dropout(case: Case) -> Iterator[Finding]:
    high = {
        path: part.p
        for path, part, _ in modules_in(case.drawn)
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0.5
    }
    high |= {
        p: m.dropout
        for p, m, _ in modules_in(case.drawn)
        if isinstance(m, nn.MultiheadAttention) and m.dropout > 0.5
    }
    if not high and "random" not in case.known:
        tape = case.tape(case.fresh(train=True), case.images())
        for op in tape.ops:
            rate = op.argument(1, "p") if op.name == "dropout" else None
            if isinstance(rate, float) and rate > 0.5:
                high[tape.path(op)] = rate
    if high:
        name, rate = next(iter(high.items()))
        yield _finding(
            level="departure",
            title=f"dropout drops {100 * rate:.0f} % of the values",
            module=name,
            did="read the rates of dropout",
            got=f"p = {rate:g} in {len(high)} {'place' if len(high) == 1 else 'places'}",
            expected="0 to 0.2: p is the share that is dropped, not kept",
            cure=f"did you mean p = {1 - rate:.1g}?",
        )


def _narrow(case: Case) -> Iterator[Finding]:
    for attention in case.pass_.attentions[:1]:
        if attention.fused is not None:
            width = attention.fused[0].shape[-1]
        elif attention.scores.ndim == 4 and case.trunk is not None and attention.scores.shape[1] > 0:
            width = case.trunk.width // attention.scores.shape[1]
        else:
            return
        if 0 < width < 16 and not case.known & {"heads", "softmax axis", "mates"}:
            yield _finding(
                level="note",
                title=f"each head has only {width} channels",
                module=attention.path,
                did="divided the width by the number of heads",
                got=str(width),
                expected="32 or 64, as in published models",
                cure="use fewer heads or a larger width",
                learn=steps.HEADS,
            )


# Sixteen images ----------------------------------------------------------------------------


def _learns(case: Case) -> Iterator[Finding]:
    module = without_dropout(case.fresh(drawn=False, train=True, dtype=torch.float32))
    parameters = [p for p in module.parameters() if p.requires_grad]
    size = sum(p.numel() for p in parameters)
    if case.slow or size > _MANY or case.known & {"detached", "ignored"} or not parameters:
        return
    count = case.batch if case.only_batch else _IMAGES
    images = case.images(count).float()
    losses = _train(module, parameters, images)
    if not losses:
        return
    start, end = losses[0], min(losses[-5:])
    if math.isfinite(end) and end < _LEARNED * start:
        return
    stuck = not math.isfinite(end) or end > 0.97 * start
    bounded = any(name.startswith("output") for name in case.known)
    yield _finding(
        level="mistake" if stuck and not bounded else "departure",
        title="the model cannot learn 16 images"
        if count == _IMAGES
        else f"the model cannot learn {count} images",
        module="",
        did=f"trained it for {_STEPS} steps of AdamW (rate 0.001) without dropout on {count} noise images",
        got=f"the loss goes from {start:.2f} to {end:.2f}",
        expected="below 70 % of its start: a ViT of this size learns them by heart",
        cure="look at the findings above; if there are none, at the start of the weights and the depth",
    )


def _train(module: nn.Module, parameters: list[nn.Parameter], images: Tensor) -> list[float]:
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    losses: list[float] = []
    with seeded(1):
        for _ in range(_STEPS):
            logits = logits_of(module(images)).float()
            if logits.shape[1] < 2 or not logits.requires_grad:
                return []
            labels = torch.arange(len(images)) % min(logits.shape[1], 4)
            loss = F.cross_entropy(logits, labels)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]) or max(losses[-3:]) < _LEARNED * losses[0]:
                return losses
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return losses
