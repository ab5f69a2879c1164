"""Classification: augmented and mixed images, smoothed cross-entropy, top-1 on the held-out images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword import machine, metrics
from patchword.checkpoints.card import ModelCard
from patchword.data.dataset import Split
from patchword.data.feed import stacked
from patchword.data.loader import from_split, iterate
from patchword.errors import DataError
from patchword.model.lora import merged_state
from patchword.model.memory import inference_bytes
from patchword.model.vit import ViT
from patchword.training.augment.mix import mix
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.losses import soft_cross_entropy, soft_targets
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Scores, Tally

# Share of the available memory for cached evaluation images.
EVALUATION_SHARE = 0.1
EVALUATION_BATCH, EVALUATION_BATCH_GPU = 64, 256


class Classifier(nn.Module):
    """A ViT and its loss. images [B, C, h, w] normalised, targets [B, classes]."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"cross_entropy": soft_cross_entropy(self.vit(images), targets)}


class Classify:
    """Classification as a task of the loop.

    training, evaluation: the splits; only labels are read from the first. classes: in the order of the head.
    """

    def __init__(
        self,
        settings: TrainSettings,
        module: Classifier,
        training: Split,
        evaluation: Split,
        classes: tuple[str, ...],
        workers: int,
    ) -> None:
        self.settings, self.module, self.classes = settings, module, classes
        self.labels = torch.from_numpy(training.labels)
        self.held_out = HeldOut(settings, evaluation, next(module.parameters()).device, workers)
        self.augment = Augment(settings.augment, settings.view_size)
        channels = settings.model.image.channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1)
            for v in (settings.preprocess.mean, settings.preprocess.std)
        )

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """images [B, C, h, w], labels [B]."""
        return stacked(pixels), self.labels[torch.tensor(rows)]

    def views(self, batch: Batch) -> Batch:
        """Images normalised, targets [B, classes]. Pixels arrive as uint8, a quarter of the bytes of float32."""
        images = self.augment(batch.images, batch.draws)
        images = images.sub_(self.mean.to(images.device)).div_(self.std.to(images.device))
        smoothing = self.settings.task.label_smoothing
        targets = soft_targets(batch.targets, self.settings.model.head.num_classes, smoothing)
        images, targets = mix(images, targets, self.settings.augment.mixing, batch.draws)
        return replace(batch, images=images, targets=targets)

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {"cross_entropy": len(batch)}

    def tally(self) -> Tally:
        return ClassTally()

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        return self.held_out.batches(ranks)

    def card(self, scores: Mapping[str, float]) -> ModelCard:
        return ModelCard(
            config=self.settings.model, preprocess=self.settings.preprocess, classes=self.classes
        )

    def shipped(self, module: nn.Module) -> Mapping[str, Tensor]:
        return merged_state(module.get_submodule("vit"))


class HeldOut:
    """The evaluation images of a split as a model takes them, kept if they need little memory.

    They are prepared by the same code as in `evaluate`. Every task whose targets are labels can use them.
    """

    def __init__(self, settings: TrainSettings, split: Split, device: torch.device, workers: int) -> None:
        self.settings, self.split, self.device, self.workers = settings, split, device, workers
        self._kept: list[tuple[Tensor, NDArray[np.int64]]] | None = None

    def batches(self, ranks: Ranks) -> Iterator[Batch]:
        """Raises: DataError if none of the images of this process can be read."""
        found = 0
        for images, rows in self._prepared(ranks):
            found += len(rows)
            yield Batch(
                images=images,
                targets=torch.from_numpy(self.split.labels[rows]),
                names=tuple(self.split.names[row] for row in rows),
                draws=Draws(0, 0, rows),
            )
        if not found and len(self.split):
            raise DataError(
                f"none of the {len(self.split)} images of {self.split.name} can be read any more",
                "fix or replace the images",
            )

    def _prepared(self, ranks: Ranks) -> Iterable[tuple[Tensor, NDArray[np.int64]]]:
        if self._kept is not None:
            return self._kept
        mine = np.arange(ranks.rank, len(self.split), ranks.world)
        split = self.split.subset(mine)
        batches = iterate(
            from_split(split), self.settings.preprocess, self._batch_size(), self.workers, split.max_pixels
        )
        pairs = ((b.images, mine[np.asarray(b.indices)]) for b in batches if b.indices)
        height, width = self.settings.model.image.size
        needed = 4 * len(split) * self.settings.model.image.channels * height * width
        if needed > EVALUATION_SHARE * machine.memory_limit_bytes():
            return pairs
        self._kept = list(pairs)
        return self._kept

    def _batch_size(self) -> int:
        """Smaller than usual only if a batch of very large images would not fit into memory."""
        if self.device.type == "cuda":
            return EVALUATION_BATCH_GPU
        config = self.settings.model
        each = inference_bytes(config, config.image.size, 1) - inference_bytes(config, config.image.size, 0)
        return max(min(EVALUATION_BATCH, machine.memory_limit_bytes() // (4 * each)), 1)


@dataclass
class Counted:
    """Sums over scored images. labels, predicted: which classes occurred, to notice a constant answer."""

    images: int = 0
    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    num_classes: int = 0
    labels: frozenset[int] = frozenset()
    predicted: frozenset[int] = frozenset()


class ClassTally:
    """Counts of right answers."""

    def __init__(self) -> None:
        self.counted = Counted()

    def add(self, module: nn.Module, batch: Batch) -> None:
        logits = module.get_submodule("vit")(batch.images).float().cpu().numpy()
        labels = batch.targets.cpu().numpy()
        ranks, counted = metrics.ranks(logits, labels), self.counted
        self.counted = Counted(
            images=counted.images + len(labels),
            loss=counted.loss + float(metrics.cross_entropy(logits, labels).sum(dtype=np.float64)),
            top1=counted.top1 + int((ranks == 0).sum()),
            top5=counted.top5 + int((ranks < 5).sum()),
            num_classes=logits.shape[1],
            labels=counted.labels | set(labels.tolist()),
            predicted=counted.predicted | set(logits.argmax(1).tolist()),
        )

    def state(self) -> Any:
        return self.counted

    def merged(self, states: Sequence[Counted]) -> Scores:
        images = max(sum(s.images for s in states), 1)
        values = {
            "val_loss": sum(s.loss for s in states) / images,
            "val_top1": sum(s.top1 for s in states) / images,
        }
        if max(s.num_classes for s in states) > 5:  # else it means little
            values["val_top5"] = sum(s.top5 for s in states) / images
        labels, predicted = (
            frozenset().union(*(getattr(s, n) for s in states)) for n in ("labels", "predicted")
        )
        return Scores(values=values, best="val_top1", constant=len(labels) > 1 and len(predicted) == 1)
