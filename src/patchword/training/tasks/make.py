"""The table of tasks."""

from typing import Any

from torch import nn

from patchword.data.dataset import Dataset, Split
from patchword.model.vit import ViT
from patchword.training.config import TrainSettings
from patchword.training.task import Task
from patchword.training.tasks.classify import Classifier, Classify

# Kind of the settings → what learns, and the task around it.
TASKS: dict[str, tuple[Any, Any]] = {"classify": (Classifier, Classify)}


def make_module(settings: TrainSettings, vit: ViT) -> nn.Module:
    """What learns: the backbone with the losses of the task, and whatever else the task trains."""
    module, _ = TASKS[settings.task.kind]
    made: nn.Module = module(vit)
    return made


def make_task(
    settings: TrainSettings, module: nn.Module, dataset: Dataset, evaluation: Split, workers: int
) -> Task:
    """The task around a module of `make_module`. evaluation: the images that may be scored."""
    _, task = TASKS[settings.task.kind]
    made: Task = task(settings, module, dataset.training, evaluation, dataset.classes, workers)
    return made
