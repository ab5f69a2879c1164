"""Rules as rows of a table: (theirs, ours) or (theirs, ours, op).

    ("decoder_blocks.{i}.attn.qkv.{wb}", "decoder.blocks.{i}.attention.qkv.{wb}")

theirs, ours: one name, or several in a tuple. `{i}` stands for the number of a block, `{b}` for the file's prefix of
that block, `{wb}` for "weight" and "bias". Without ours, the file's readers expect a tensor that the model does not need.
op: makes the operation from the shapes of our tensors; without it, a tensor is stored as it is.
Which rows apply follows from the model's shapes, so that a table needs no conditions.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from patchword.formats.layout import Description, Ignored, Layout, Rule
from patchword.formats.ops import Joined, Op, Parted, Permuted, Reshaped, Same, Shape, transposed
from patchword.model.config import ViTConfig
from patchword.model.shapes import Shapes, shapes

Names = str | tuple[str, ...]
MakeOp = Callable[[Sequence[Shape]], Op]
Row = tuple[Names, Names] | tuple[Names, Names, MakeOp]
# A list of rows is carried out block by block, in the order of a state dict; a row alone, for all blocks at once.
Rows = Iterable[Row | list[Row]]


def rules_of(rows: Rows, there: Shapes, depth: int, blocks: Sequence[str] = ()) -> Iterator[Rule]:
    """The rules for a model with the tensors `there` and `depth` blocks.

    Of several names of ours, those that the model lacks are left out (prefix rows of a table).
    blocks: the file's prefix of each block, if they are not "blocks.0.", "blocks.1."…
    """
    for item in rows:
        group = [_Parsed(row) for row in (item if isinstance(item, list) else [item])]
        for index in range(depth) if any(row.repeats for row in group) else (0,):
            block = blocks[index] if blocks else f"blocks.{index}."
            for row in group:
                yield from row.rules(index, block, there)


class _Parsed:
    """A row, parsed once for all blocks."""

    def __init__(self, row: Row) -> None:
        theirs, ours, *op = row
        self.theirs = (theirs,) if isinstance(theirs, str) else theirs
        self.ours = (ours,) if isinstance(ours, str) else ours
        self.op = op[0] if op else None
        text = " ".join((*self.theirs, *self.ours))
        self.repeats = "{i}" in text or "{b}" in text
        self.parts = ("weight", "bias") if "{wb}" in text else ("",)

    def rules(self, index: int, block: str, there: Shapes) -> Iterator[Rule]:
        for part in self.parts:
            filled = (name.format(i=index, wb=part) for name in self.ours)
            mine = tuple(name for name in filled if name in there)
            if mine or not self.ours:
                theirs = tuple(name.format(i=index, b=block, wb=part) for name in self.theirs)
                op = Same() if self.op is None else self.op([there[name] for name in mine])
                yield Rule(theirs, mine, op)


class RowLayout(Layout):
    """A layout whose names are rows."""

    @abstractmethod
    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        """The names in a file of this spelling. config: of the model, for operations that need more than shapes;
        None while a file is read."""

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, spelling = description.config, description.spelling
        rows = self.rows(spelling, config)
        yield from rules_of(rows, shapes(config), config.depth, spelling.get("blocks", ()))
        yield from self.ignored(description)

    def ignored(self, description: Description) -> Iterable[Rule | Ignored]:
        """What else the file has, or its readers expect."""
        return ()


def names_of(row: Row, block: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our names in a row and the file's, in the first block. block: the file's prefix of it."""
    parsed = _Parsed(row)
    for part in parsed.parts:
        theirs = tuple(name.format(i=0, b=block, wb=part) for name in parsed.theirs)
        for name in parsed.ours:
            yield name.format(i=0, wb=part), theirs


def token(ours: Sequence[Shape]) -> Op:
    """[1, 1, D] in the file, [D] in the model; several tokens are [1, n, D]."""
    return Reshaped((1, math.prod(ours[0][:-1]), ours[0][-1]))


def table(ours: Sequence[Shape]) -> Op:
    """[1, rows, D] in the file; in the model rows of prefix tokens [n, D], then a grid [h, w, D]."""
    return Parted((1, sum(math.prod(shape[:-1]) for shape in ours), ours[0][-1]))


def rows_alone(ours: Sequence[Shape]) -> Op:
    """As `table`, without the batch axis."""
    return Parted((sum(math.prod(shape[:-1]) for shape in ours), ours[0][-1]))


def inputs_first(ours: Sequence[Shape]) -> Op:
    """A matrix stored as (in, out)."""
    return transposed(ours[0][1], ours[0][0])


def channels_last(ours: Sequence[Shape]) -> Op:
    """A matrix over the pixels of a patch (row, column, channel) in the file, a kernel [D, C, h, w] in the model."""
    dim, channels, height, width = ours[0]
    stored = (dim, height * width * channels)
    return Permuted((dim, height, width, channels), (0, 3, 1, 2), stored=stored)


def queries_keys_values(ours: Sequence[Shape]) -> Op:
    """Three matrices in the file, one in the model."""
    return Joined(3)


def gate_and_value(ours: Sequence[Shape]) -> Op:
    """Two matrices in the file, one in the model."""
    return Joined(2)


def unchanged(ours: Sequence[Shape]) -> Op:
    return Same()
