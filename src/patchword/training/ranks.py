"""The processes of one training. One process is the default; starting several is left to a launcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process and how many there are. Every method is a collective: each process must call it.

    A global batch is cut into even, contiguous slices, so that mixing partners (neighbours at an even position) are in the
    same slice whatever the number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """The positions of this process in a global batch of `count` images."""
        pairs = -(-count // 2)
        first, last = (pairs * r // self.world for r in (self.rank, self.rank + 1))
        return slice(min(2 * first, count), min(2 * last, count))

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in order."""
        if self.world == 1:
            return [value]
        import torch.distributed as distributed

        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over the processes, in place and in one exchange."""
        if self.world == 1 or not tensors:
            return
        import torch
        import torch.distributed as distributed

        joined = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(joined)
        parts = torch.split(joined, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
