"""Probe c: in training mode without dropout, an image does not depend on the other images."""

from collections.abc import Iterator

import torch
from torch import nn

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart, first_difference, relative
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.walk import modules_in

NAME = "c batch statistics"


def without_dropout(module: nn.Module) -> nn.Module:
    """Set the rate of every dropout module and of torch's attention to 0."""
    for _, part, _ in modules_in(module):
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        elif isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    return module


def probe(case: Case) -> Iterator[Finding]:
    if case.known & {"mates", "random"} or case.batch < 2:
        return
    images, mates = case.images(), case.images(seed=1)
    mates[0] = images[0]
    with torch.no_grad():
        tapes = [case.tape(without_dropout(case.fresh(train=True)), given) for given in (images, mates)]
    one, two = tapes
    if not apart(one.logits[0], two.logits[0], case.tolerance):
        return
    case.known.add("batch statistics")
    op = first_difference(one, two, case.tolerance, case.batch)
    path = one.path(op) if op else ""
    module = one.calls[op.calls[-1]].module if op and op.calls else None
    batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm) or (
        op is not None and "batch" in op.name
    )
    inside = bool(case.trunk and op and op.index > case.trunk.entrance)
    yield Finding(
        level="mistake" if not batch_norm else "departure" if inside else "note",
        probe=NAME,
        title="in training, an image's output depends on the other images of the batch",
        module=path,
        did="changed the other images in training mode, with dropout off and the same seed",
        got=f"the logits of the first image change by {relative(one.logits[0], two.logits[0]):.1e}, first in {path or 'forward'}",
        expected="no change: layer norm looks at one token alone",
        cure="use nn.LayerNorm(width) instead of batch norm over tokens"
        if batch_norm
        else "normalise each image by itself",
        learn=steps.NORMS,
    )
