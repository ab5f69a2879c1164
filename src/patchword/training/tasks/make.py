"""The table of tasks."""

from typing import cast

from torch import nn

from patchword.data.dataset import Dataset, Split
from patchword.model.vit import ViT
from patchword.training.config import TrainSettings
from patchword.training.task import Task
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.tasks.distill import Distill, Student, load_teacher


def make_module(settings: TrainSettings, vit: ViT) -> nn.Module:
    """What learns: the backbone with the losses of the task, and whatever else the task trains."""
    kind = Student if settings.task.distill.teacher else Classifier
    return kind(vit, settings.task)


def make_task(
    settings: TrainSettings, module: nn.Module, dataset: Dataset, evaluation: Split, workers: int
) -> Task:
    """The task around a module of `make_module`. evaluation: the images that may be scored.

    Raises: UserError if the teacher is not the one the run began with; CheckpointError if it cannot be read.
    """
    parts = (settings, cast(Classifier, module), dataset.training, evaluation, dataset.classes, workers)
    if not settings.task.distill.teacher:
        return cast(Task, Classify(*parts))
    device = next(module.parameters()).device
    return cast(Task, Distill(*parts, teacher=load_teacher(settings, dataset.classes, device)))
