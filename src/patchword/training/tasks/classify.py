"""Classification: augmented and mixed images, a loss of their classes, top-1 on the held-out images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword import machine, metrics
from patchword.data.dataset import Split
from patchword.data.feed import stacked
from patchword.data.loader import from_split, iterate
from patchword.errors import DataError
from patchword.model.lora import merged_state
from patchword.model.memory import inference_bytes
from patchword.model.vit import ViT
from patchword.training import losses
from patchword.training.augment.mix import mix
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Scores, Tally
from patchword.training.tasks.settings import ClassifySettings
from patchword.weights.card import ModelCard

# Share of the available memory for cached evaluation images.
EVALUATION_SHARE = 0.1
EVALUATION_BATCH, EVALUATION_BATCH_GPU = 64, 256
# Its images are large, and few neighbours have the same size.
EVALUATION_BATCH_DETR = 4


class Classifier(nn.Module):
    """A ViT and its loss. images [B, C, h, w] normalised; targets {"classes": [B, classes]}, whose rows sum to 1.

    The weight of an image is the mean of its classes' weights by their shares. A weighted loss is divided by the number of
    images, as torch does for targets that are probabilities: the weights have the mean 1 over the training images.
    """

    weights: Tensor
    prior: Tensor

    def __init__(self, vit: ViT, settings: ClassifySettings | None = None) -> None:
        super().__init__()
        self.vit, self.settings = vit, settings or ClassifySettings()
        # [classes]; they follow from the data, so they are no part of the state.
        device, num_classes = next(vit.parameters()).device, vit.config.head.num_classes
        self.register_buffer("weights", torch.ones(num_classes, device=device), persistent=False)
        self.register_buffer("prior", torch.zeros(num_classes, device=device), persistent=False)

    def balance(self, counts: NDArray[np.int64]) -> None:
        """Balance the loss for classes of so many training images [classes], as the settings say."""
        balance, strength = self.settings.balance, self.settings.balance_strength
        numbers = torch.from_numpy(counts)
        if balance == "loss":
            self.weights.copy_(losses.class_weights(numbers, strength))
        if balance == "logits":
            self.prior.copy_(losses.log_prior(numbers, strength))

    def forward(self, images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.settings.loss: self.label_loss(self.vit(images), targets["classes"])}

    def label_loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The sum over the batch. logits, classes [B, classes]."""
        settings = self.settings
        weights = classes @ self.weights if settings.balance == "loss" else None
        targets = losses.smoothed(classes, settings.label_smoothing)
        if settings.loss == "cross_entropy":
            if settings.balance == "logits":
                logits = logits.float() + self.prior
            return losses.cross_entropy(logits, targets, weights)
        if settings.target_threshold is not None:
            targets = losses.above(targets, settings.target_threshold)
        return losses.binary_cross_entropy(logits, targets, weights)


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
        assert isinstance(settings.task, ClassifySettings)
        self.settings, self.module, self.classes = settings, module, classes
        self.task = settings.task
        self.labels = torch.from_numpy(training.labels)
        self.class_counts = np.asarray(training.counts(settings.vit.head.num_classes), np.int64)
        module.balance(self.class_counts)
        self.held_out = HeldOut(settings, evaluation, next(module.parameters()).device, workers)
        self.augment = Augment(settings.augment, settings.view_size)
        channels = settings.vit.image.channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1)
            for v in (settings.preprocess.mean, settings.preprocess.std)
        )

    def begin(self, epoch: int) -> None:
        """Every epoch is the same."""

    def sample_weights(self) -> NDArray[np.float64] | None:
        """How often each training image is drawn, relative to the mean: [images], or None if equally often."""
        task = self.task
        if task.balance != "sample":
            return None
        weights = losses.class_weights(torch.from_numpy(self.class_counts), task.balance_strength)
        drawn: NDArray[np.float64] = weights.double()[self.labels].numpy()
        return drawn

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """images [B, C, h, w], labels [B]."""
        return stacked(pixels), self.labels[torch.tensor(rows)]

    def views(self, batch: Batch) -> Batch:
        """Images normalised, targets {"classes": [B, classes]}."""
        images, classes = self.mixed(batch)
        return replace(batch, images=self.normalised(images), targets={"classes": classes})

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Augmented and mixed images [B, C, h, w] in 0..1, and each class's share of them [B, classes].

        Pixels arrive as uint8, a quarter of the bytes of float32.
        """
        images = self.augment(batch.images, batch.draws)
        classes = losses.one_hot(batch.targets, self.settings.vit.head.num_classes)
        return mix(images, classes, self.settings.augment.mixing, batch.draws)

    def normalised(self, images: Tensor) -> Tensor:
        """images [B, C, h, w] in 0..1, as the model takes them."""
        return images.sub(self.mean.to(images.device)).div_(self.std.to(images.device))

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {self.task.loss: len(batch)}

    def tally(self) -> Tally:
        return ClassTally()

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        return self.held_out.batches(ranks)

    def card(self, scores: Mapping[str, float]) -> ModelCard:
        return ModelCard(config=self.settings.vit, preprocess=self.settings.preprocess, classes=self.classes)

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
                targets=_as_tensor(self.split.targets.rows(rows)),
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
        (height, width), channels = self.settings.preprocess.image_size, self.settings.preprocess.in_channels
        needed = 4 * len(split) * channels * height * width
        if needed > EVALUATION_SHARE * machine.memory_limit_bytes():
            return pairs
        self._kept = list(pairs)
        return self._kept

    def _batch_size(self) -> int:
        """Smaller than usual only if a batch of very large images would not fit into memory."""
        config = self.settings.model
        if config is None:
            return EVALUATION_BATCH_DETR
        if self.device.type == "cuda":
            return EVALUATION_BATCH_GPU
        each = inference_bytes(config, config.image.size, 1) - inference_bytes(config, config.image.size, 0)
        return max(min(EVALUATION_BATCH, machine.memory_limit_bytes() // (4 * each)), 1)


def _as_tensor(targets: Any) -> Any:
    """Boxes stay a list: images have different numbers of them."""
    return torch.from_numpy(targets) if isinstance(targets, np.ndarray) else targets


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
