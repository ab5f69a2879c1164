"""A task of one linear layer, so that the loop's decisions can be tested without training anything."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchword.training.chance import Draws
from patchword.training.ema import AveragedWeights
from patchword.training.loop import Events, Loop
from patchword.training.optim import make_optimiser
from patchword.training.overlay import PATHS, make_overlay
from patchword.training.precision import LossScale
from patchword.training.progress import Silent
from patchword.training.ranks import Ranks
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from patchword.training.state import TrainingState
from patchword.training.task import Batch, Scores


class FakeModule(nn.Module):
    """factors: of the loss, and so of the gradient, one for each step; the last one for all further steps."""

    def __init__(self, factors: Sequence[float]) -> None:
        super().__init__()
        self.vit = nn.Linear(3, 1)
        self.factors = factors

    def forward(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        step = int(targets[0])
        factor = self.factors[min(step, len(self.factors) - 1)]
        return {"squares": factor * (self.vit(images) - 1).square().sum()}


@dataclass
class FakeTally:
    task: "FakeTask"

    def add(self, module: nn.Module, batch: Batch) -> None:
        self.task.scored.append(module)

    def state(self) -> None:
        return None

    def merged(self, states: Sequence[Any]) -> Scores:
        return self.task.scores.pop(0)


def score(value: float, constant: bool = False, higher_is_better: bool = True) -> Scores:
    return Scores(
        values={"val_fake": value}, best="val_fake", constant=constant, higher_is_better=higher_is_better
    )


@dataclass
class FakeTask:
    """scores: one for each epoch. scored: the models that were evaluated."""

    scores: list[Scores]
    factors: Sequence[float] = (1.0,)
    scored: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.module = FakeModule(self.factors)

    def sample_weights(self) -> None:
        return None

    def begin(self, epoch: int) -> None:
        pass

    def views(self, batch: Batch) -> Batch:
        return batch

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {"squares": len(batch)}

    def tally(self) -> FakeTally:
        return FakeTally(self)

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        yield Batch(images=torch.ones(2, 3), targets=None, names=("a", "b"), draws=Draws(0, 0, np.arange(2)))


@dataclass
class FakeFeed:
    """steps_per_epoch batches of two images; the targets are the step's number over all epochs, from 0."""

    steps_per_epoch: int = 1
    waited_s: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for step in range(start, self.steps_per_epoch):
            at = epoch * self.steps_per_epoch + step
            yield SimpleNamespace(
                step=step,
                images=torch.ones(2, 3),
                targets=torch.full((2, 1), at),
                names=(f"a{at}", f"b{at}"),
                samples=np.arange(2),
            )


@dataclass
class Seen:
    """What the loop did; takes the part of the checkpointer."""

    best: list[bool] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    warned_after: list[int] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    broke: list[Any] = field(default_factory=list)

    def epoch(self, state: TrainingState, is_best: bool, scores: Mapping[str, float]) -> None:
        self.best.append(is_best)

    def diverged(self, state: TrainingState, found: Any) -> None:
        self.broke.append(found)


def run_loop(
    task: FakeTask, *, steps_per_epoch: int = 1, **settings: dict[str, float]
) -> tuple[TrainingState, Seen]:
    """Train to the end of the task's scores. settings: changes of a part, as optim={"clip_grad": 0.1}."""
    facts = DataFacts(num_images=8, num_classes=2, channels=1, size=(8, 8), mean=(0.3,), std=(0.4,))
    chosen, _ = recipe_named("scratch")(
        facts, make_overlay(None, [(PATHS["epochs"], "epochs", len(task.scores))])
    )
    parts = {name: dataclasses.replace(getattr(chosen, name), **new) for name, new in settings.items()}
    chosen = dataclasses.replace(chosen, **parts)
    seen = Seen()
    optim = dataclasses.replace(chosen.optim, method="adamw")
    state = TrainingState(
        task.module,
        AveragedWeights(task.module, 0.9),
        make_optimiser(task.module, optim),
        LossScale(torch.device("cpu")),
    )

    def warn(text: str) -> None:
        seen.warned.append(text)
        seen.warned_after.append(state.epoch)

    events = Events(record=seen.records.append, warn=warn, progress=Silent())
    Loop(chosen, task, FakeFeed(steps_per_epoch), state, seen, events).run()  # type: ignore[arg-type]
    return state, seen
