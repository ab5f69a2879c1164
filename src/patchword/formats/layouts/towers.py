"""A ViT below a prefix of its file (an image tower, an encoder), for layouts that name it without the prefix."""

from collections.abc import Iterator
from dataclasses import replace

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.rows import Names, Row, Rows


def inside(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The tensors below the prefix, without it."""
    tensors = {n.removeprefix(prefix): e for n, e in checkpoint.tensors.items() if n.startswith(prefix)}
    return replace(checkpoint, tensors=tensors, prefix=f"{checkpoint.prefix}{prefix}")


def below(prefix: str, rows: Rows) -> Iterator[Row | list[Row]]:
    """Rows of the same names below the prefix. Names of blocks have their own: `{b}`."""
    for item in rows:
        yield [_below(prefix, row) for row in item] if isinstance(item, list) else _below(prefix, item)


def _below(prefix: str, row: Row) -> Row:
    theirs: Names = (row[0],) if isinstance(row[0], str) else row[0]
    return (tuple(name if name.startswith("{b}") else f"{prefix}{name}" for name in theirs), *row[1:])


def blocks_below(prefix: str, depth: int) -> tuple[str, ...]:
    """The prefix of each block, for `{b}`."""
    return tuple(f"{prefix}blocks.{index}." for index in range(depth))
