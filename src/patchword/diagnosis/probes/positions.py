"""Probe g: shuffled patches give other logits, because positions distinguish tokens."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart, relative
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.probes.patches import rectangle
from patchword.diagnosis.walk import hidden_tensors, weights_in

NAME = "g positions"
_finding = partial(Finding, probe=NAME, learn=steps.POSITIONS)


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or case.known & {"random", "patches", "detached"}:
        return
    patches = [i for i in range(trunk.count) if i not in case.prefix]
    if "ignored" in case.known:
        yield from _one_row(case, patches)
        return
    side = _side(case)
    if side is None or len(patches) < 2:
        return
    images = case.images()
    with torch.no_grad():
        one = case.logits(case.drawn, images)
        two = case.logits(case.drawn, shuffled(images, side))
    if apart(one, two, max(case.tolerance, 1e-9) * 10):
        yield from _one_row(case, patches)
        return
    case.known.add("no positions")
    table = _table(case, len(patches))
    yield _finding(
        level="mistake" if table else "departure",
        title="positions have no effect" if table else "the model has no positions",
        module=table,
        did="shuffled the patches of each image",
        got=f"the logits stay the same (change {relative(one, two):.0e})"
        + (f", although {table} looks like a table of positions" if table else ""),
        expected="other logits: without positions a ViT sees a bag of patches",
        cure="add one row per token, [1, tokens, D], to the tokens before the first block, and keep the sum",
    )


def _side(case: Case) -> tuple[int, int] | None:
    """Rows and columns of one patch. None if tokens are not patches side by side that fill the image."""
    boxes = [rectangle(s.any(0)) for s in case.supports.values() if bool(s.any())]
    if not boxes or boxes[0] is None:
        return None
    top, bottom, left, right = boxes[0]
    sides = bottom - top, right - left
    same = all(box is not None and (box[1] - box[0], box[3] - box[2]) == sides for box in boxes)
    fits = case.size[0] % sides[0] == 0 and case.size[1] % sides[1] == 0
    return sides if same and fits and sides != case.size else None


def shuffled(images: Tensor, side: tuple[int, int]) -> Tensor:
    """The same patches of images [B, C, H, W] in another order."""
    (rows, columns), (height, width) = side, images.shape[-2:]
    cut = images.unfold(2, rows, rows).unfold(3, columns, columns)  # [B, C, h, w, rows, columns]
    flat = cut.flatten(2, 3)
    order = torch.randperm(flat.shape[2], generator=torch.Generator().manual_seed(5))
    grid = (*images.shape[:2], height // rows, width // columns, rows, columns)
    mixed: Tensor = flat[:, :, order].reshape(grid).transpose(3, 4).reshape(images.shape)
    return mixed


def _table(case: Case, patches: int) -> str:
    """A weight, buffer or plain tensor with about one row per token."""
    assert case.trunk is not None
    named = [*weights_in(case.drawn).items(), *case.drawn.named_buffers(), *hidden_tensors(case.drawn)]
    for name, tensor in named:
        rows = tensor.shape[-2] if tensor.ndim > 1 else 0
        if tensor.shape[-1:] == (case.trunk.width,) and rows in (patches, patches + 1, case.trunk.count):
            role = case.used.get(name, ("added", 0))[0]
            if role == "added":
                return name
        if "pos" in name.lower() and tensor.shape[-1:] == (case.trunk.width,):
            return name
    return ""


def _one_row(case: Case, patches: list[int]) -> Iterator[Finding]:
    """Logits react to order: are positions in the tokens, or inside attention?"""
    trunk = case.trunk
    assert trunk is not None
    constant = torch.full_like(case.images(), 0.5)
    with torch.no_grad():
        tokens = case.tape(case.drawn, constant).ops[trunk.entrance].output
    rows = tokens.index_select(trunk.token_axis, torch.tensor(patches))
    first = rows.narrow(trunk.token_axis, 0, 1)
    if apart(rows, first.expand_as(rows), case.tolerance * 10):
        yield from _few(case, rows)
        return
    ignored = "ignored" in case.known
    yield _finding(
        level="departure" if ignored else "note",
        title="all patch tokens get the same position"
        if ignored
        else "positions are not added to the tokens",
        module=_table(case, len(patches)),
        did="ran an image of one colour",
        got="all patch tokens that enter the first block are equal"
        + ("" if ignored else ", but shuffled patches give other logits"),
        expected="in the plain ViT, a position of its own is added to each token",
        cure="give positions the shape [1, tokens, width]"
        if ignored
        else "none needed if positions are inside attention (rotary, relative)",
    )


def _few(case: Case, rows: Tensor) -> Iterator[Finding]:
    """Tokens of one colour [·, patches, width] that differ by their positions alone: are there as many as patches?"""
    assert case.trunk is not None
    one = rows.select(1 - case.trunk.token_axis, 0)  # [patches, width]
    distances = torch.cdist(one, one, compute_mode="donot_use_mm_for_euclid_dist")
    same = distances <= 1e-6 * max(float(one.abs().mean()), 1e-12) * one.shape[1] ** 0.5
    distinct = len({tuple(row) for row in same.tolist()})
    if distinct < len(one):
        yield _finding(
            level="departure",
            title="several patches share a position",
            module=_table(case, len(one)),
            did="ran an image of one colour",
            got=f"{distinct} different tokens for {len(one)} patches",
            expected="a position of its own for each patch",
            cure="encode row and column, not only one of them",
        )
