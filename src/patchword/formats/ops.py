"""Operations that turn a file's tensors into ours, each with its exact inverse.

Describing or checking an operation does not import torch; `read` and `write` work on the given
tensors. An operation derives the shapes that a file must have from the model's shapes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Op(Protocol):
    """theirs: the file's tensors in a rule; ours: the model's; both in order.
    views: `read` returns views of its inputs, so mapped tensors stay mapped.
    """

    @property
    def views(self) -> bool: ...
    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]: ...
    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]: ...
    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]: ...


@dataclass(frozen=True)
class Same:
    """The unchanged tensor."""

    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return list(ours)

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        return list(theirs)

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        return list(ours)


@dataclass(frozen=True)
class Reshaped:
    """The same numbers in the same order with another shape, e.g. a class token [1, 1, D]."""

    theirs: Shape
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [self.theirs]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        return [theirs[0].reshape(ours[0])]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        return [ours[0].reshape(self.theirs)]


@dataclass(frozen=True)
class Permuted:
    """Permute the axes of `theirs` to the order `axes`, then reshape: for kernels stored as (in, out).
    stored: the shape in the file if axes are flattened there (a patch as one row of numbers).
    """

    theirs: Shape
    axes: tuple[int, ...]
    stored: Shape | None = None
    views: bool = field(default=False, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [self.theirs if self.stored is None else self.stored]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        return [theirs[0].reshape(self.theirs).permute(self.axes).reshape(ours[0]).contiguous()]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        permuted = tuple(self.theirs[axis] for axis in self.axes)
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        back = ours[0].reshape(permuted).permute(inverse).contiguous()
        return [back if self.stored is None else back.reshape(self.stored)]


def transposed(rows: int, columns: int) -> Permuted:
    """[rows, columns] of the file → [columns, rows] of ours."""
    return Permuted((rows, columns), (1, 0))


@dataclass(frozen=True)
class Joined:
    """Concatenate equal parts that are stored separately: queries, keys and values; gate and value.
    each: the operation applied to every part first.
    """

    count: int
    each: Op = field(default_factory=Same)
    views: bool = field(default=False, init=False)

    def _part(self, ours: Sequence[Shape]) -> Shape:
        rows, *rest = ours[0]
        return (rows // self.count, *rest)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return self.each.their_shapes([self._part(ours)]) * self.count

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        import torch

        part = self._part(ours)
        return [torch.cat([self.each.read([tensor], [part])[0] for tensor in theirs])]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        return [self.each.write([part])[0].contiguous() for part in ours[0].chunk(self.count)]


@dataclass(frozen=True)
class Parted:
    """One tensor that holds several of ours consecutively: rows of prefix tokens, then the grid.
    theirs: its complete shape.
    """

    theirs: Shape
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [self.theirs]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        flat, parts, start = theirs[0].reshape(-1), [], 0
        for shape in ours:
            parts.append(flat[start : start + math.prod(shape)].reshape(shape))
            start += math.prod(shape)
        return parts

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        return [torch.cat([tensor.reshape(-1) for tensor in ours]).reshape(self.theirs)]


@dataclass(frozen=True)
class WithZeros:
    """Concatenate equal parts, of which the file omits those that are zeros.
    there: which of the parts the file has.
    """

    there: tuple[bool, ...]
    views: bool = field(default=False, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        rows = sum(shape[0] for shape in ours) // len(self.there)
        return [(rows, *ours[0][1:])] * sum(self.there)

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        import torch

        left = iter(theirs)
        parts = [next(left) if there else torch.zeros_like(theirs[0]) for there in self.there]
        pieces = torch.split(torch.cat(parts), [shape[0] for shape in ours])
        return [piece.clone() for piece in pieces]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        parts = torch.cat(list(ours)).chunk(len(self.there))
        return [part.contiguous() for part, there in zip(parts, self.there, strict=True) if there]


@dataclass(frozen=True)
class Scanned:
    """Tensors with a leading layer axis (flax scan): theirs are k stacks, ours k' tensors per layer.
    layers: their number; each: the operation on one layer's k tensors. ours are ordered by layer.
    """

    layers: int
    each: Op
    views: bool = field(default=False, init=False)

    def _of_layer(self, ours: Sequence[Shape]) -> Sequence[Shape]:
        return ours[: len(ours) // self.layers]

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [(self.layers, *shape) for shape in self.each.their_shapes(self._of_layer(ours))]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        shapes = self._of_layer(ours)
        found: list[Tensor] = []
        for layer in range(self.layers):
            found += [t.clone() for t in self.each.read([stack[layer] for stack in theirs], shapes)]
        return found

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        size = len(ours) // self.layers
        layers = [self.each.write(ours[i * size : (i + 1) * size]) for i in range(self.layers)]
        return [torch.stack([layer[part] for layer in layers]) for part in range(len(layers[0]))]


@dataclass(frozen=True)
class Constant:
    """Tensors that a format's readers expect and the model does not need: written as zeros or ones.

    shapes: their shapes in the file.
    """

    shapes: tuple[Shape, ...]
    value: float = 0.0
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return list(self.shapes)

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        return []

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        return [torch.full(shape, self.value) for shape in self.shapes]


@dataclass(frozen=True)
class Unit:
    """A layer that the file omits because it changes nothing: the identity matrix with a zero bias."""

    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return []

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        import torch

        return [torch.eye(shape[0]) if len(shape) == 2 else torch.zeros(shape) for shape in ours]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        return []
