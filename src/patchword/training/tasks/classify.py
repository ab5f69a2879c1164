"""The classification task: augmented batches, smoothed cross-entropy, top-1 on the held-out images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from patchword import machine, metrics
from patchword.data.batches import TrainingBatch
from patchword.data.dataset import Split
from patchword.data.loader import from_split, iterate
from patchword.errors import DataError
from patchword.model.memory import inference_bytes
from patchword.training.augment.mix import mix
from patchword.training.augment.views import Augment
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.losses import soft_cross_entropy, soft_targets

# Share of the available memory for cached evaluation images.
EVALUATION_SHARE = 0.1
EVALUATION_BATCH, EVALUATION_BATCH_GPU = 64, 256


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of the averaged weights. top5: only for more than five classes; constant: one class for all images."""

    loss: float
    top1: float
    top5: float | None
    constant: bool

    def as_record(self) -> dict[str, float]:
        record = {"val_loss": self.loss, "val_top1": self.top1}
        return record if self.top5 is None else {**record, "val_top5": self.top5}


class Classify:
    """Classification as a task of the loop: inputs, loss and evaluation."""

    def __init__(
        self, settings: TrainSettings, evaluation: Split, device: torch.device, workers: int
    ) -> None:
        self.settings, self.split, self.device, self.workers = settings, evaluation, device, workers
        self.augment = Augment(settings.augment, settings.view_size)
        shape = (1, settings.model.image.channels, 1, 1)
        channels = settings.model.image.channels
        mean, std = (
            np.broadcast_to(v, channels).copy() for v in (settings.preprocess.mean, settings.preprocess.std)
        )
        self.mean = torch.tensor(mean).float().view(shape).to(device)
        self.std = torch.tensor(std).float().view(shape).to(device)
        self._prepared: list[tuple[Tensor, NDArray[np.int64]]] | None = None

    def inputs(self, batch: TrainingBatch, generator: Generator) -> tuple[Tensor, Tensor]:
        """images [B, C, h, w] normalised, targets [B, classes], both on the device.

        Copies uint8 to the device (a quarter of the float32 bytes) and augments there.
        """
        pixels, labels = self._on_device(batch.images), self._on_device(batch.labels)
        seed = int(torch.randint(2**62, (), generator=generator))
        draws = Draws(seed, 0, np.arange(len(pixels)))
        images = self.augment(pixels, draws).sub_(self.mean).div_(self.std)
        classes = self.settings.model.head.num_classes
        targets = soft_targets(labels, classes, self.settings.loss.label_smoothing)
        return mix(images, targets, self.settings.augment.mixing, draws)

    def _on_device(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            # From pinned memory, the copy overlaps the previous step.
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return soft_cross_entropy(model(images), targets)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module) -> Scores:
        """Score the readable held-out images, with the same code path as `evaluate`.

        On a GPU in the training precision; on a CPU always in float32, like `evaluate`.
        """
        logits, labels = [], []
        on_gpu = self.device.type == "cuda"
        low = on_gpu and self.settings.run.precision == "bfloat16"
        for images, some in self._evaluation_batches():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                found = model(images.to(self.device))
            logits.append(found.float().cpu().numpy())
            labels.append(some)
        if not logits:
            raise DataError(
                f"none of the {len(self.split)} images of {self.split.name} can be read any more",
                "fix or replace the images",
            )
        return _scores(np.concatenate(logits), np.concatenate(labels))

    def _evaluation_batch(self) -> int:
        """The evaluation batch size; smaller only if a batch of very large images would not fit into memory."""
        if self.device.type == "cuda":
            return EVALUATION_BATCH_GPU
        config = self.settings.model
        each = inference_bytes(config, config.image.size, 1) - inference_bytes(config, config.image.size, 0)
        return max(min(EVALUATION_BATCH, machine.memory_limit_bytes() // (4 * each)), 1)

    def _evaluation_batches(self) -> Any:
        if self._prepared is not None:
            return self._prepared
        batches = iterate(
            from_split(self.split),
            self.settings.preprocess,
            self._evaluation_batch(),
            self.workers,
            self.split.max_pixels,
        )
        pairs = ((b.images, self.split.labels[b.indices]) for b in batches if b.indices)
        height, width = self.settings.model.image.size
        needed = 4 * len(self.split) * self.settings.model.image.channels * height * width
        if needed > EVALUATION_SHARE * machine.memory_limit_bytes():
            return pairs
        self._prepared = list(pairs)
        return self._prepared


def _scores(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Scores:
    predicted = logits.argmax(axis=1)
    ranks = metrics.ranks(logits, labels)
    return Scores(
        loss=float(metrics.cross_entropy(logits, labels).mean()),
        top1=float((ranks == 0).mean()),
        top5=float((ranks < 5).mean()) if logits.shape[1] > 5 else None,
        constant=len(np.unique(labels)) > 1 and len(np.unique(predicted)) == 1,
    )
