"""Numbers for each image, normalised by their training mean and deviation; the error on the held-out images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.dataset import Split
from patchword.data.targets import Numbers
from patchword.metrics.regression import number_scores
from patchword.model.vit import ViT
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Scores, Tally
from patchword.training.tasks.settings import RegressSettings
from patchword.training.tasks.views import Views
from patchword.weights.card import ModelCard

_LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


class Regressor(nn.Module):
    """A ViT and its loss. images [B, C, h, w] normalised; targets {"numbers": [B, T]} with mean 0 and deviation 1."""

    def __init__(self, vit: ViT, settings: RegressSettings) -> None:
        super().__init__()
        self.vit, self.settings = vit, settings

    def forward(self, images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum over the batch of the mean over the T numbers, in float32."""
        terms = _LOSSES[self.settings.loss](self.vit(images).float(), targets["numbers"], reduction="none")
        return {self.settings.loss: terms.mean(1).sum()}


class Regress(Views):
    """Numbers as a task of the loop. Images are not mixed: half of each of two objects has no measure between them."""

    def __init__(
        self,
        settings: TrainSettings,
        module: Regressor,
        training: Split,
        evaluation: Split,
        names: tuple[str, ...],
        workers: int,
    ) -> None:
        assert isinstance(settings.task, RegressSettings) and isinstance(training.targets, Numbers)
        super().__init__(settings, training, evaluation, next(module.parameters()).device, workers)
        self.module, self.names, self.task = module, names, settings.task
        self.target_mean = torch.tensor(self.task.mean)
        self.target_std = torch.tensor(self.task.std)

    def views(self, batch: Batch) -> Batch:
        """Images and targets {"numbers": [B, T]} normalised."""
        images = self.augment(batch.images, batch.draws)
        mean, std = self.target_mean.to(images.device), self.target_std.to(images.device)
        numbers = (batch.targets - mean) / std
        return replace(batch, images=self.normalised(images), targets={"numbers": numbers})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {self.task.loss: len(batch)}

    def tally(self) -> Tally:
        return NumberTally(self.task.mean, self.task.std)

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        return self.held_out.batches(ranks)

    def card(self, scores: Mapping[str, float]) -> ModelCard:
        return ModelCard(
            config=self.settings.vit,
            preprocess=self.settings.preprocess,
            classes=self.names,
            task="number",
            mean=self.task.mean,
            std=self.task.std,
        )


@dataclass
class Collected:
    """outputs, truth [N, T], normalised."""

    outputs: NDArray[np.float32]
    truth: NDArray[np.float32]


class NumberTally:
    """Collects the outputs of the evaluation images. mean, std: of the training images, by which they are normalised."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = np.array(mean), np.array(std)
        self.parts: list[Collected] = []

    def add(self, module: nn.Module, batch: Batch) -> None:
        outputs = module.get_submodule("vit")(batch.images).float().cpu().numpy()
        truth = (batch.targets.cpu().numpy() - self.mean) / self.std
        self.parts.append(Collected(outputs, truth.astype(np.float32)))

    def state(self) -> Any:
        return self.parts

    def merged(self, states: Sequence[list[Collected]]) -> Scores:
        parts = [part for state in states for part in state]
        outputs, truth = np.concatenate([p.outputs for p in parts]), np.concatenate([p.truth for p in parts])
        loss = float(((outputs.astype(np.float64) - truth) ** 2).mean())
        values = {"val_loss": loss}
        if np.isfinite(outputs).all():
            found = number_scores(outputs * self.std + self.mean, truth * self.std + self.mean, repeats=0)
            if all(score.r2 is not None for score in found):
                values["val_r2"] = float(np.mean([score.r2 for score in found]))
            if len(found) == 1:
                values["val_mae"] = found[0].mae
        constant = len(outputs) > 1 and bool((np.ptp(outputs, axis=0) == 0).all())
        return Scores(values=values, best="val_loss", higher_is_better=False, constant=constant)
