"""Probe h: the head reads the class token or all patches, not one patch token."""

from collections.abc import Iterator
from functools import partial

import torch

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.findings import Finding

NAME = "h pooling"
_finding = partial(
    Finding,
    probe=NAME,
    learn=steps.RESIDUAL_STREAM,
    did="asked which tokens after the last block the logits depend on",
)


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or trunk.exit is None or not trunk.complete or case.known & {"ignored", "detached"}:
        return
    tape = case.tape(case.drawn, case.images())
    tokens = tape.ops[trunk.exit].output
    if not tape.logits.requires_grad or not tokens.requires_grad:
        return
    (gradient,) = torch.autograd.grad(
        (tape.logits * case.noise(tape.logits)).sum(), tokens, allow_unused=True
    )
    other = tuple(a for a in range(3) if a != trunk.token_axis)
    read = [] if gradient is None else torch.nonzero(gradient.abs().amax(other)).flatten().tolist()
    prefix = set(case.prefix)
    patches = [i for i in range(trunk.count) if i not in prefix]
    case.known.add("reads mean" if len(read) > 1 else "reads one")
    if not read:
        yield _finding(
            level="mistake",
            title="the head does not read the tokens of the last block",
            module=trunk.path,
            got="none",
            expected="the class token, or all patches",
            cure="pass the output of the blocks to the head",
        )
    elif set(read) <= set(patches) and len(read) < len(patches):
        yield _reads_patch(case, read, prefix)


def _reads_patch(case: Case, read: list[int], prefix: set[int]) -> Finding:
    assert case.trunk is not None
    which = (
        f"token {read[0]} of {case.trunk.count}"
        if len(read) == 1
        else f"{len(read)} of {case.trunk.count} tokens"
    )
    if prefix:
        cure = f"read token {min(prefix)}, which carries no patch: x[:, {min(prefix)}]"
        expected = f"the class token, which is token {min(prefix)}"
    else:
        cure = "add a class token in front, or average over all tokens: x.mean(dim=1)"
        expected = "all patches, because there is no class token"
    return _finding(
        level="mistake",
        title="the head reads a patch token, not the class token"
        if prefix
        else "the head reads one patch token and there is no class token",
        module="",
        got=f"{which}, which holds a patch",
        expected=expected,
        cure=cure,
    )
