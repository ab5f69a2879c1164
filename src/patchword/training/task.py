"""What one kind of training brings to the loop: batches, losses, evaluation and the score that decides "best"."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.training.chance import Draws
from patchword.training.ranks import Ranks
from patchword.weights.card import ModelCard
from patchword.weights.detector_card import DetectorCard


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some images of a step.

    images [B, C, h, w]: uint8, or float32 in 0..1 from the feed; normalised floats after `Task.views`.
    targets: what the task made of the labels: a tensor [B, …], or lists and dicts of tensors, or None.
    names: of the images, for messages. draws: the random numbers of each image.
    """

    images: Tensor
    targets: Any
    names: tuple[str, ...]
    draws: Draws

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "Batch":
        return replace(self, images=moved(self.images, device), targets=moved(self.targets, device))

    def part(self, rows: slice) -> "Batch":
        """The images of `rows` alone, as a micro-batch."""
        return Batch(
            images=self.images[rows],
            targets=_part(self.targets, rows),
            names=self.names[rows],
            draws=self.draws.part(rows),
        )


def moved(value: Any, device: torch.device) -> Any:
    """Tensors, also in lists and dicts, copied to the device; from pinned memory, without waiting for the copy."""
    if isinstance(value, Tensor):
        if device.type == "cuda" and not value.is_cuda:
            value = value.pin_memory()
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: moved(part, device) for name, part in value.items()}
    return [moved(part, device) for part in value] if isinstance(value, list) else value


def _part(targets: Any, rows: slice) -> Any:
    if isinstance(targets, Mapping):
        return {name: _part(value, rows) for name, value in targets.items()}
    return None if targets is None else targets[rows]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of the averaged weights.

    values: as metrics.jsonl names them. best: the one that chooses best.safetensors.
    constant: every image was given the same answer, which an untrained model does too. what: that in words.
    """

    values: Mapping[str, float]
    best: str
    higher_is_better: bool = True
    constant: bool = False
    what: str = "all held-out images are predicted as one class"

    def beats(self, other: float | None) -> bool:
        value = self.values[self.best]
        return other is None or (value > other if self.higher_is_better else value < other)


class Tally(Protocol):
    """Counts over evaluation batches. `state` is small and travels between processes; images never do."""

    def add(self, module: nn.Module, batch: Batch) -> None: ...

    def state(self) -> Any: ...

    def merged(self, states: Sequence[Any]) -> Scores: ...


class Task(Protocol):
    """A kind of training.

    module: everything that learns. Its `forward(images, targets)` returns losses by name, each a sum over the batch.
        What must not learn (a teacher) has requires_grad False, and is neither averaged nor saved. The backbone is its `vit`.
    """

    module: nn.Module

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Any]:
        """Images and targets of a batch. pixels: [C, h, w] each, uint8 or float; rows: of the training split."""
        ...

    def begin(self, epoch: int) -> None:
        """Called before the first step of each epoch, and after a resume within one."""
        ...

    def sample_weights(self) -> NDArray[np.float64] | None:
        """How often each training image is drawn, relative to the mean: [images]; None for each once an epoch."""
        ...

    def views(self, batch: Batch) -> Batch:
        """Training views of a batch, on its device: augmented, normalised, mixed or masked, all from `batch.draws`."""
        ...

    def counts(self, batch: Batch) -> Mapping[str, float]:
        """For each loss, what its sum over the batch is divided by: images, boxes. Summed over micro-batches and processes."""
        ...

    def tally(self) -> Tally: ...

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        """The evaluation batches of this process. Each image is in exactly one batch of one process."""
        ...

    def card(self, scores: Mapping[str, float]) -> ModelCard | DetectorCard:
        """The card of the saved weights, without provenance."""
        ...

    def shipped(self, module: nn.Module) -> Mapping[str, Tensor]:
        """The tensors that a weights file holds; a teacher or a decoder stays behind."""
        ...


class Fed(Protocol):
    """A batch as the feed delivers it. step: of the epoch; samples [B]: the number of each image, for its random numbers."""

    @property
    def step(self) -> int: ...

    @property
    def images(self) -> Tensor: ...

    @property
    def targets(self) -> Any: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def samples(self) -> NDArray[np.int64]: ...


class Feed(Protocol):
    """Where batches come from. waited_s: how long `epoch` was waited for."""

    @property
    def waited_s(self) -> float: ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time of each stage, summed over its threads."""
        ...

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Fed]:
        """The batches of this process, from step `start` of the epoch."""
        ...
