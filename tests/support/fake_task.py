"""A task of one linear layer, so that the loop's decisions can be tested without training anything."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from patchword.data.batches import TrainingBatch
from patchword.training.ema import AveragedWeights
from patchword.training.loop import Hooks, Loop
from patchword.training.optim import make_optimiser
from patchword.training.overlay import PATHS, make_overlay
from patchword.training.progress import Silent
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from patchword.training.state import TrainingState


@dataclass(frozen=True)
class FakeScores:
    top1: float
    constant: bool = False

    def as_record(self) -> dict[str, float]:
        return {"val_top1": self.top1}


@dataclass
class FakeTask:
    """scores: one for each epoch. factor: of the loss, and so of the gradient."""

    scores: list[FakeScores]
    factor: float = 1.0

    def inputs(self, batch: TrainingBatch, generator: Generator) -> tuple[Tensor, Tensor]:
        return batch.images, batch.labels

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return self.factor * (model(images) - targets).square().mean()

    def evaluate(self, model: nn.Module) -> FakeScores:
        return self.scores.pop(0)


class FakeBatches:
    steps_per_epoch, waited_s = 1, 0.0

    def epoch(self, epoch: int) -> Iterator[TrainingBatch]:
        yield TrainingBatch(images=torch.ones(2, 3), labels=torch.ones(2, 1), names=["a", "b"])


@dataclass
class Seen:
    """What the loop did."""

    best: list[bool] = field(default_factory=list)
    warned: list[int] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    broke: list[Any] = field(default_factory=list)


def run_loop(task: FakeTask, **settings: dict[str, float]) -> tuple[TrainingState, Seen]:
    """Train to the end of the task's scores. settings: changes of a part, as optim={"clip_grad": 0.1}."""
    facts = DataFacts(num_images=8, num_classes=2, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))
    chosen, _ = recipe_named("scratch")(
        facts, make_overlay(None, [(PATHS["epochs"], "epochs", len(task.scores))])
    )
    parts = {name: dataclasses.replace(getattr(chosen, name), **new) for name, new in settings.items()}
    chosen = dataclasses.replace(chosen, **parts)
    model, seen = nn.Linear(3, 1), Seen()
    optim = dataclasses.replace(chosen.optim, method="adamw")
    state = TrainingState(model, AveragedWeights(model, 0.9), make_optimiser(model, optim), Generator())
    hooks = Hooks(
        record=seen.records.append,
        keep=lambda state, is_best, scores: seen.best.append(is_best),
        keep_interrupted=lambda state: None,
        on_divergence=lambda state, found: seen.broke.append(found),
        warn=lambda text: seen.warned.append(state.epoch),
        progress=Silent(),
    )
    Loop(chosen, task, FakeBatches(), state, hooks).run()  # type: ignore[arg-type]
    return state, seen
