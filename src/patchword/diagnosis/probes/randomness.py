"""Probe b: in evaluation mode, the same images give the same logits."""

from collections.abc import Iterator

import torch

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart, first_difference, relative
from patchword.diagnosis.findings import Finding

NAME = "b repeat"


def probe(case: Case) -> Iterator[Finding]:
    images = case.images()
    with torch.no_grad():
        one, two = (case.tape(case.drawn, images, seed=seed) for seed in (1, 2))
    if not apart(one.logits, two.logits, case.tolerance):
        return
    case.known.add("random")
    op = first_difference(one, two, case.tolerance)
    drop = op is not None and "drop" in op.name
    path = one.path(op) if op else ""
    yield Finding(
        level="mistake",
        probe=NAME,
        title="the output is random in evaluation mode",
        module=path,
        did="ran the same images twice after model.eval()",
        got=f"logits differ by {relative(one.logits, two.logits):.1e}"
        + (f", first after {op.name} in {path or 'forward'}" if op else ""),
        expected="equal logits",
        cure="pass training=self.training to F.dropout, or use nn.Dropout"
        if drop
        else "draw tokens and other parameters once in __init__, as nn.Parameter, not in forward",
        learn=steps.MISTAKES,
    )
