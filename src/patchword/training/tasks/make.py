"""The table of tasks."""

from typing import cast

import torch
from torch import nn

from patchword.data.dataset import Dataset, Split
from patchword.model.mae import MAE
from patchword.model.vit import ViT
from patchword.training.chance import seed_of
from patchword.training.config import TrainSettings
from patchword.training.task import Task
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.tasks.detect import Detect
from patchword.training.tasks.detect_settings import DetectSettings
from patchword.training.tasks.detectors import TrainedDetr, TrainedVitDet, TrainedYolos, make_on_vit
from patchword.training.tasks.distill import Distill, Student, load_teacher
from patchword.training.tasks.mae import Pretrain
from patchword.training.tasks.multilabel import MultiLabel, MultiLabeller
from patchword.training.tasks.regress import Regress, Regressor
from patchword.training.tasks.settings import (
    ClassifySettings,
    MAESettings,
    MultiLabelSettings,
    RegressSettings,
)

# What a training starts from: the backbone, or all of DETR.
Begun = ViT | TrainedDetr


def make_module(settings: TrainSettings, model: Begun) -> nn.Module:
    """What learns: the backbone with the losses of the task, and whatever else the task trains. model: of `setup.new_model`."""
    if isinstance(model, TrainedDetr):
        return model
    task, vit = settings.task, model
    if isinstance(task, MultiLabelSettings):
        return MultiLabeller(vit, task)
    if isinstance(task, MAESettings):
        generator = torch.Generator().manual_seed(seed_of(settings.run.seed, "decoder"))
        return MAE(vit, task.decoder, generator)
    if isinstance(task, RegressSettings):
        return Regressor(vit, task)
    if isinstance(task, DetectSettings):
        return make_on_vit(
            settings, vit, torch.Generator().manual_seed(seed_of(settings.run.seed, "detector"))
        )
    kind = Student if task.distill.teacher else Classifier
    return kind(vit, task)


def make_task(
    settings: TrainSettings, module: nn.Module, dataset: Dataset, evaluation: Split, workers: int
) -> Task:
    """The task around a module of `make_module`. evaluation: the images that may be scored.

    Raises: UserError if the teacher is not the one the run began with; CheckpointError if it cannot be read.
    """
    rest = (dataset.training, evaluation, dataset.outputs, workers)
    if isinstance(module, MAE):
        return cast(Task, Pretrain(settings, module, dataset.training, evaluation, workers))
    if isinstance(module, MultiLabeller):
        return cast(Task, MultiLabel(settings, module, *rest))
    if isinstance(module, Regressor):
        return cast(Task, Regress(settings, module, *rest))
    if isinstance(module, TrainedVitDet | TrainedDetr | TrainedYolos):
        return cast(Task, Detect(settings, module, *rest))
    assert isinstance(settings.task, ClassifySettings)
    parts = (settings, cast(Classifier, module), *rest)
    if not settings.task.distill.teacher:
        return cast(Task, Classify(*parts))
    device = next(module.parameters()).device
    return cast(Task, Distill(*parts, teacher=load_teacher(settings, dataset.classes, device)))
