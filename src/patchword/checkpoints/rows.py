"""Rules as rows of a table: (theirs, ours) or (theirs, ours, op).

    ("decoder_blocks.{i}.attn.qkv.{wb}", "decoder.blocks.{i}.attention.qkv.{wb}")

theirs, ours: one name, or several in a tuple. `{i}` stands for the number of a block, `{wb}` for "weight" and "bias".
op: makes the operation from the shapes of our tensors; without it, a tensor is stored as it is.
Which rows apply follows from the model's shapes, so that a table needs no conditions.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from patchword.checkpoints.layout import Rule
from patchword.checkpoints.ops import Joined, Op, Parted, Reshaped, Same, Shape
from patchword.model.shapes import Shapes

Names = str | tuple[str, ...]
MakeOp = Callable[[Sequence[Shape]], Op]
Row = tuple[Names, Names] | tuple[Names, Names, MakeOp]


def rules_of(rows: Iterable[Row], there: Shapes, depth: int) -> Iterator[Rule]:
    """The rules for a model with the tensors `there` and `depth` blocks.

    Of several names of ours, those that the model lacks are left out (prefix rows of a table).
    """
    for theirs, ours, *op in rows:
        for index in range(depth) if "{i}" in str(ours) else (0,):
            for part in ("weight", "bias") if "{wb}" in str(ours) else ("",):
                mine = tuple(name for name in _filled(ours, index, part) if name in there)
                if mine:
                    made = op[0]([there[name] for name in mine]) if op else Same()
                    yield Rule(_filled(theirs, index, part), mine, made)


def _filled(names: Names, index: int, part: str) -> tuple[str, ...]:
    listed = (names,) if isinstance(names, str) else names
    return tuple(name.format(i=index, wb=part) for name in listed)


def token(ours: Sequence[Shape]) -> Op:
    """[1, 1, D] in the file, [D] in the model."""
    return Reshaped((1, 1, *ours[0]))


def table(ours: Sequence[Shape]) -> Op:
    """[1, rows, D] in the file; in the model rows of prefix tokens [n, D], then a grid [h, w, D]."""
    return Parted((1, sum(math.prod(shape[:-1]) for shape in ours), ours[0][-1]))


def queries_keys_values(ours: Sequence[Shape]) -> Op:
    """Three matrices in the file, one in the model."""
    return Joined(3)
