"""Probe d: the output depends on the image, and on every pixel of it."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.probes.patches import rectangle
from patchword.diagnosis.tape import Tape

NAME = "d pixels"
_finding = partial(Finding, probe=NAME, learn=steps.PATCHES)


def probe(case: Case) -> Iterator[Finding]:
    """Alone or in a batch: a change of image 0 must change the logits of image 0."""
    one, two = case.images(), case.images(seed=1)
    with torch.no_grad():
        tapes = [case.tape(case.drawn, given) for given in (one, two)]
    if not apart(tapes[0].logits, tapes[1].logits, case.tolerance):
        case.known.add("ignored")
        last = _last_seen(tapes[0], tapes[1], case.tolerance)
        yield _finding(
            level="mistake",
            title="the output does not depend on the image",
            module=last,
            did="ran different images",
            got=f"equal logits; {last or 'forward'} is the last part that sees a difference",
            expected="different logits",
            cure="follow the tokens from there to the head: attention may run over the batch instead of the tokens, "
            "or the head reads a token that no patch reaches",
        )
        return
    yield from _unseen(case)


def _last_seen(one: Tape, two: Tape, tolerance: float) -> str:
    different = [
        a
        for a, b in zip(one.ops, two.ops, strict=False)
        if a.output.is_floating_point() and apart(a.output, b.output, tolerance)
    ]
    return one.path(different[-1]) if different else ""


def _unseen(case: Case) -> Iterator[Finding]:
    images = case.images().requires_grad_()
    logits = case.tape(case.drawn, images).logits
    if not logits.requires_grad:
        case.known.add("detached")
        return
    (gradient,) = torch.autograd.grad((logits * case.noise(logits)).sum(), images, allow_unused=True)
    if gradient is None:
        case.known.add("detached")
        return
    seen = (gradient != 0).any(0)
    if bool(seen.all()):
        return
    case.known.add("unseen")
    cut = _cut_by_design(case)
    share = 100 * float((~seen).double().mean())
    yield _finding(
        level="departure" if cut else "mistake",
        title=f"{share:.0f} % of the pixels do not reach the output",
        module="",
        did="took the gradient of the logits with respect to the image",
        got=f"it is zero for {_place(seen)}",
        expected="every pixel counts",
        cure="choose an image size that is a multiple of the patch size"
        if cut
        else "check the patches: kernel, stride and padding, and how channels, rows and columns are cut",
    )


def _cut_by_design(case: Case) -> bool:
    """Whether the image is not a multiple of the patches: cutting the rest is common."""
    sides = [rectangle(support.any(0)) for support in case.supports.values() if bool(support.any())]
    if not sides or sides[0] is None:
        return False
    top, bottom, left, right = sides[0]
    return bool(case.size[0] % (bottom - top) or case.size[1] % (right - left))


def _place(seen: Tensor) -> str:
    channels = [i for i in range(len(seen)) if not bool(seen[i].any())]
    if channels and len(channels) < len(seen):
        return f"channel {', '.join(map(str, channels))}"
    rows = [i for i in range(seen.shape[1]) if not bool(seen[:, i].any())]
    columns = [i for i in range(seen.shape[2]) if not bool(seen[:, :, i].any())]
    parts = [f"{name} {_ranges(found)}" for name, found in (("rows", rows), ("columns", columns)) if found]
    return " and ".join(parts) or "scattered pixels"


def _ranges(indices: list[int]) -> str:
    if indices == list(range(indices[0], indices[-1] + 1)) and len(indices) > 1:
        return f"{indices[0]} to {indices[-1]}"
    shown = ", ".join(map(str, indices[:6]))
    return shown if len(indices) <= 6 else f"{shown}, …"
