"""Probe e: each token at the entrance depends on one square patch, in all channels, in row-major order."""

import itertools
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.redraw import PRODUCTS

NAME = "e patches"
_finding = partial(
    Finding,
    probe=NAME,
    learn=steps.PATCHES,
    did="asked which pixels each token depends on, before the first block",
)
Box = tuple[int, int, int, int]


def rectangle(support: Tensor) -> Box | None:
    """The filled rectangle (top, bottom, left, right) that a support [rows, columns] is; None if it has holes."""
    rows, columns = (torch.nonzero(support.any(axis)).flatten() for axis in (1, 0))
    if not len(rows):
        return None
    box = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    filled = int(support.sum()) == (box[1] - box[0]) * (box[3] - box[2])
    return box if filled else None


def probe(case: Case) -> Iterator[Finding]:
    if case.trunk is None or case.known & {"random"} or not case.supports:
        return
    supports = {i: s for i, s in case.supports.items() if bool(s.any())}
    if len(supports) < 2:
        return
    first = next(iter(supports.values()))
    if len(first) > 1 and all(int(s.flatten(1).any(1).sum()) < len(first) for s in supports.values()):
        yield _wrong(
            case,
            "each token sees only some channels",
            f"the first patch token sees {int(first.flatten(1).any(1).sum())} of {len(first)} channels",
            "move the channels behind rows and columns before flattening a patch: permute(0, 2, 3, 1, …)",
        )
        return
    flat = {i: s.any(0) for i, s in supports.items()}
    boxes = {i: rectangle(s) for i, s in flat.items()}
    if any(box is None for box in boxes.values()):
        odd = next(flat[i] for i, box in boxes.items() if box is None)
        yield _wrong(case, "tokens are not square patches", f"a token sees {_words(odd)}", _cure(odd))
        return
    found = [box for box in boxes.values() if box is not None]
    yield from _shapes(case, found)


def _wrong(case: Case, title: str, got: str, cure: str) -> Finding:
    case.known.add("patches")
    return _finding(
        level="mistake",
        title=title,
        module=_place(case),
        got=got,
        expected="one filled square of pixels, all channels",
        cure=cure,
    )


def _place(case: Case) -> str:
    """The module that makes tokens from pixels: the first product."""
    assert case.trunk is not None
    products = [op for op in case.pass_.ops[: case.trunk.entrance + 1] if op.name in PRODUCTS]
    if not products:
        return ""
    calls = products[0].calls
    outer = next((case.pass_.calls[i] for i in calls if len(case.pass_.calls[i].parents) == 1), None)
    return outer.path if outer else case.pass_.path(products[0])


def _words(support: Tensor) -> str:
    _rows, columns = support.shape
    used_rows, used_columns = int(support.any(1).sum()), int(support.any(0).sum())
    if bool(support.all()):
        return "the complete image"
    if used_columns == columns:
        return f"{used_rows} rows over the full width"
    return f"{int(support.sum())} pixels scattered over {used_rows} rows and {used_columns} columns"


def _cure(support: Tensor) -> str:
    if int(support.any(0).sum()) == support.shape[1]:
        return "image.view cuts rows, not squares: split rows and columns (b c (h p) (w q)) and permute to (b h w p q c)"
    return "check the order of the axes when rows and columns are split into patches: (b, h, w, p, q, c) before the reshape"


def _shapes(case: Case, boxes: list[Box]) -> Iterator[Finding]:
    """Tokens that are filled rectangles may still be the complete image, rows, or in another order."""
    rows, columns = case.size
    assert case.trunk is not None
    whole = all(b[1] - b[0] == rows and b[3] - b[2] == columns for b in boxes)
    simple = _single_product(case)
    if whole and simple:
        yield _wrong(
            case,
            "every token sees the complete image",
            "each token mixes all patches",
            "the convolution's output [B, D, h, w] needs flatten(2).transpose(1, 2), not a reshape to [B, tokens, D]",
        )
        return
    sides = {(b[1] - b[0], b[3] - b[2]) for b in boxes}
    strips = all(width == columns != height for height, width in sides) or all(
        height == rows != width for height, width in sides
    )
    if strips and simple:
        yield _wrong(
            case,
            "tokens are strips of the image, not squares",
            f"a token sees {boxes[0][1] - boxes[0][0]} x {boxes[0][3] - boxes[0][2]} pixels",
            "split rows and columns before flattening: view cuts along rows alone",
        )
        return
    overlap = _overlapping(boxes)
    if any(a[2:] == b[2:] and a[:2] == b[:2] for a, b in itertools.pairwise(boxes)) and simple:
        yield _wrong(
            case,
            "several tokens see the same patch",
            "two tokens depend on the same pixels",
            "cut each patch once: stride and kernel equal the patch size",
        )
        return
    corners = [(b[0] + b[1], b[2] + b[3]) for b in boxes]
    if corners != sorted(corners) and not whole:
        column_major = corners == sorted(corners, key=lambda c: (c[1], c[0]))
        yield _finding(
            level="departure",
            title="patches are in column order: height and width are swapped"
            if column_major
            else "patches are not in row-major order",
            module=_place(case),
            got="the second token lies below the first" if column_major else "tokens jump over the image",
            expected="from left to right, then from top to bottom",
            cure="keep (h w) in this order when patches become tokens; positions that know the grid depend on it",
        )
    elif overlap:
        yield _finding(
            level="departure" if simple else "note",
            title="patches overlap",
            module=_place(case),
            got=f"a token sees {max(sides)[0]} x {max(sides)[1]} pixels",
            expected="patches side by side, as in the plain ViT",
            cure="set the stride to the size of the kernel"
            if simple
            else "none needed if the stem is meant to be convolutional",
        )


def _overlapping(boxes: list[Box]) -> bool:
    a, b = boxes[0], boxes[1]
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _single_product(case: Case) -> bool:
    """Whether one linear layer or convolution alone makes tokens: then a token cannot see more than its patch."""
    assert case.trunk is not None
    names = [op.name for op in case.pass_.ops[: case.trunk.entrance + 1]]
    convolutions = sum(name.startswith("conv") for name in names)
    shifts = sum("roll" in name or "pad" in name or "pool" in name for name in names)
    return convolutions <= 1 and not shifts
