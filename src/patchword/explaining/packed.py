"""Several tensors of each image as one vector, because predictions and explanations share one path from file to output."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.explaining.methods.base import Maps, Method

Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A map in the vector: whose it is, and the names of the numbers that follow it."""

    method: Method
    label: str
    signed: bool
    channels: int
    elsewhere: tuple[str, ...]
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """values [h, w] or [h, w, 3]; elsewhere and facts by name."""

    slot: Slot
    values: Vector
    elsewhere: dict[str, float]
    facts: dict[str, float]


class Packing:
    """Every batch of a run has the same maps, so what they are is kept once; grid and size may differ between images."""

    def __init__(self) -> None:
        self.slots: tuple[Slot, ...] = ()

    def pack(
        self, answers: Tensor, maps: list[tuple[Method, Maps]], grid: tuple[int, int], images: Tensor | None
    ) -> Tensor:
        """[B, …]: grid, image size, answers, maps with their numbers, pixels (if `images` are given)."""
        self.slots = tuple(_slot(method, found) for method, found in maps)
        size = (0, 0) if images is None else tuple(images.shape[-2:])
        parts = [answers.new_tensor((*grid, *size)).float().expand(len(answers), -1), answers.float()]
        for _, found in maps:
            parts.append(found.values.flatten(1).float())
            parts += [each[:, None].float() for each in (*found.elsewhere.values(), *found.facts.values())]
        if images is not None:
            parts.append(images.flatten(1).float())
        return torch.cat(parts, 1)

    def unpack(self, vector: Vector, outputs: int) -> tuple[Vector, list[Unpacked], Vector | None]:
        """The answer [outputs], the maps, and the image [C, H, W] if there is one."""
        down, across, height, width = vector[:4].astype(int).tolist()
        answer, at = vector[4 : 4 + outputs], 4 + outputs
        found = []
        for slot in self.slots:
            count = down * across * slot.channels
            shape = (down, across, 3) if slot.channels == 3 else (down, across)
            values, at = vector[at : at + count].reshape(shape), at + count
            numbers, at = (
                vector[at : at + len(slot.elsewhere) + len(slot.facts)].tolist(),
                at + len(slot.elsewhere) + len(slot.facts),
            )
            shares, facts = numbers[: len(slot.elsewhere)], numbers[len(slot.elsewhere) :]
            found.append(
                Unpacked(
                    slot=slot,
                    values=values,
                    elsewhere=dict(zip(slot.elsewhere, shares, strict=True)),
                    facts=dict(zip(slot.facts, facts, strict=True)),
                )
            )
        return answer, found, vector[at:].reshape(-1, height, width) if height else None


def _slot(method: Method, maps: Maps) -> Slot:
    return Slot(
        method=method,
        label=maps.label,
        signed=maps.signed,
        channels=3 if maps.values.ndim == 4 else 1,
        elsewhere=tuple(maps.elsewhere),
        facts=tuple(maps.facts),
    )
