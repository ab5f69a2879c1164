"""Write what a run keeps: its last and best weights with their cards, and the state that it resumes from."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

from patchword.data.dataset import Dataset
from patchword.training import runfolder
from patchword.training.broken import Break
from patchword.training.config import TrainSettings
from patchword.training.extension import keep_plateau
from patchword.training.runfolder import RunFolder
from patchword.training.state import TrainingState
from patchword.training.task import Task
from patchword.weights.card import BROKEN, STANDS_FOR_RUN, Provenance
from patchword.weights.native import is_native_detector, read_detector, read_model, write_model

# Key in data.json: the initial weights of the run.
BEGUN_FROM = "begun_from"


class Checkpointer:
    """trained_on: the card's value, asked for when weights are written, because images are hashed as they are read."""

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        task: Task,
        folder: RunFolder,
        facts: Mapping[str, Any],
        trained_on: Callable[[], str],
    ) -> None:
        self.dataset, self.settings, self.task, self.folder, self.facts = (
            dataset,
            settings,
            task,
            folder,
            facts,
        )
        self.trained_on = trained_on
        self.broken = ""

    def epoch(self, state: TrainingState, is_best: bool, scores: Mapping[str, float]) -> None:
        """After an epoch: the last weights, the best ones if these are, and the state."""
        self._write(runfolder.LAST, state, scores)
        if is_best:
            self._write(runfolder.BEST, state, scores)
        state.save(self.folder)

    def best_before(self, state: TrainingState, scores: Mapping[str, float], what: str) -> None:
        """Before the first step: a model that is the best so far."""
        self._write(runfolder.BEST, state, scores, what)
        state.save(self.folder)

    def before_cooldown(self, state: TrainingState) -> None:
        """What a longer run goes on from."""
        keep_plateau(state, self.folder)

    def within_epoch(self, state: TrainingState) -> None:
        """The state alone: it holds the weights too."""
        state.save(self.folder)

    def interrupted(self, state: TrainingState) -> None:
        """The weights so far and the state."""
        self._write(runfolder.LAST, state, {})
        state.save(self.folder)
        self.folder.log(f"stopped in epoch {state.epoch + 1}, after step {state.step}")

    def restore(self, state: TrainingState) -> None:
        state.restore(self.folder)

    def diverged(self, state: TrainingState, found: Break) -> None:
        """Mark the saved weights as broken. If there are none, save the current ones if they are finite."""
        self.broken = str(found)
        kept = [p for p in (self.folder.path / n for n in (runfolder.LAST, runfolder.BEST)) if p.exists()]
        for path in kept:
            card, tensors = read_detector(path) if is_native_detector(path) else read_model(path)
            facts = {**card.provenance.facts, BROKEN: self.broken}
            write_model(path, tensors, replace(card, provenance=replace(card.provenance, facts=facts)))
        if not kept and all(bool(t.isfinite().all()) for t in state.average.model.parameters()):
            self._write(runfolder.LAST, state, {})

    def _write(
        self, name: str, state: TrainingState, scores: Mapping[str, float], chosen_by: str = ""
    ) -> None:
        usual = "best epoch on the evaluation images" if name == runfolder.BEST else "last epoch"
        provenance = Provenance(
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            patchword=metadata.version("patchword"),
            data=self.dataset.path,
            data_hash=str(self.facts.get("file_list_sha256", "")),
            trained_on=self.trained_on(),
            seed=self.settings.run.seed,
            recipe=self.settings.run.recipe,
            **self._origin(),
            metrics={k.removeprefix("val_"): v for k, v in scores.items()},
            facts={
                **self._split_seed(),
                "epoch": state.epoch,
                "step": state.step,
                "weights": "averaged",
                "chosen": chosen_by or usual,
                **({STANDS_FOR_RUN: True} if getattr(self.settings.task, "watch", "") else {}),
                **({BROKEN: self.broken} if self.broken else {}),
            },
        )
        card = replace(self.task.card(scores), provenance=provenance)
        shipped = self.task.shipped(state.average.model)
        tensors = {k: v.detach().cpu().contiguous() for k, v in shipped.items()}
        write_model(self.folder.path / name, tensors, card)

    def _origin(self) -> dict[str, str]:
        begun = self.facts.get(BEGUN_FROM, {})
        names = {"source": "source", "source_sha256": "sha256", "licence": "licence"}
        return {entry: str(begun.get(name, "")) for entry, name in names.items()}

    def _split_seed(self) -> dict[str, int]:
        """The seed that reproduces the held-out images of data without a split of their own."""
        return {} if self.dataset.split_seed is None else {"split_seed": self.dataset.split_seed}
