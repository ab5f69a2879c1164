"""Several classes for each image: each class is a question of its own; mean average precision on the held-out images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.dataset import Split
from patchword.data.targets import MultiLabels
from patchword.metrics.multilabel import f1_scores, mean_average_precision
from patchword.model.vit import ViT
from patchword.training import losses
from patchword.training.augment.mix import mix
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Scores, Tally
from patchword.training.tasks.settings import MultiLabelSettings
from patchword.training.tasks.views import Views
from patchword.weights.card import ModelCard


class MultiLabeller(nn.Module):
    """A ViT and its loss. images [B, C, h, w] normalised; targets {"classes": [B, classes]} in 0..1, after mixing."""

    positive: Tensor

    def __init__(self, vit: ViT, settings: MultiLabelSettings) -> None:
        super().__init__()
        self.vit, self.settings = vit, settings
        # [classes]: the weight of a positive; it follows from the data, so it is no part of the state.
        ones = torch.ones(vit.config.head.num_classes, device=next(vit.parameters()).device)
        self.register_buffer("positive", ones, persistent=False)

    def balance(self, counts: NDArray[np.int64], images: int) -> None:
        """Weight positives so that each class's weigh as much as its negatives. counts [classes]: positives."""
        if self.settings.balance == "loss":
            rare = (images - counts) / np.maximum(counts, 1)
            weights = np.clip(rare, 1.0, None) ** self.settings.balance_strength
            self.positive.copy_(torch.from_numpy(weights).float())

    def forward(self, images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, classes = self.vit(images), targets["classes"]
        if self.settings.loss == "focal":
            found = losses.focal(logits, classes, self.settings.gamma, self.positive)
        else:
            found = losses.multi_label(logits, classes, self.positive)
        return {self.settings.loss: found}


class MultiLabel(Views):
    """Several classes as a task of the loop. training: only its targets are read. classes: in the order of the head."""

    def __init__(
        self,
        settings: TrainSettings,
        module: MultiLabeller,
        training: Split,
        evaluation: Split,
        classes: tuple[str, ...],
        workers: int,
    ) -> None:
        assert isinstance(settings.task, MultiLabelSettings) and isinstance(training.targets, MultiLabels)
        super().__init__(settings, training, evaluation, next(module.parameters()).device, workers)
        self.module, self.classes, self.task = module, classes, settings.task
        counts = np.asarray(training.counts(len(classes)), np.int64)
        module.balance(counts, len(training))

    def views(self, batch: Batch) -> Batch:
        """Images normalised, targets {"classes": [B, classes]}."""
        images, classes = mix(
            self.augment(batch.images, batch.draws),
            batch.targets.float(),
            self.settings.augment.mixing,
            batch.draws,
        )
        return replace(batch, images=self.normalised(images), targets={"classes": classes})

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {self.task.loss: len(batch)}

    def tally(self) -> Tally:
        return MultiLabelTally()

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        return self.held_out.batches(ranks)

    def card(self, scores: Mapping[str, float]) -> ModelCard:
        return ModelCard(
            config=self.settings.vit,
            preprocess=self.settings.preprocess,
            classes=self.classes,
            task="multi",
        )


@dataclass
class Collected:
    """logits [N, C] float32 and truth [N, C]: two numbers for each image and class, since the score is of the ranking."""

    logits: NDArray[np.float32]
    truth: NDArray[np.bool_]


class MultiLabelTally:
    """Collects the outputs of the evaluation images."""

    def __init__(self) -> None:
        self.parts: list[Collected] = []

    def add(self, module: nn.Module, batch: Batch) -> None:
        logits = module.get_submodule("vit")(batch.images).float().cpu().numpy()
        self.parts.append(Collected(logits, batch.targets.cpu().numpy()))

    def state(self) -> Any:
        return self.parts

    def merged(self, states: Sequence[list[Collected]]) -> Scores:
        parts = [part for state in states for part in state]
        logits, truth = np.concatenate([p.logits for p in parts]), np.concatenate([p.truth for p in parts])
        # Softplus without overflow.
        loss = np.logaddexp(0, logits.astype(np.float64)) - truth * logits
        values = {"val_loss": float(loss.mean())}
        if not np.isfinite(logits).all():
            return Scores(values={**values, "val_map": 0.0}, best="val_map")
        found, f1 = mean_average_precision(logits, truth, repeats=0), f1_scores(logits >= 0, truth)
        values |= {"val_map": found.macro or 0.0, "val_f1": f1.micro or 0.0}
        constant = len(logits) > 1 and bool((np.ptp(logits, axis=0) == 0).all())
        return Scores(values=values, best="val_map", constant=constant)
