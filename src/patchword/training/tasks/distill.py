"""Distillation: classification that also learns a trained model's answers to the same views.

Source: Touvron et al. 2021 (arXiv 2012.12877), section 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from patchword.errors import CheckpointError, UserError
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.training import losses
from patchword.training.augment.geometry import resize
from patchword.training.config import Precision, TrainSettings
from patchword.training.precision import autocast
from patchword.training.task import Batch
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.tasks.settings import ClassifySettings
from patchword.training.teacher import read_teacher
from patchword.weights.native import fill

DISTILLATION = "distillation"


class Teacher:
    """Logits of training views. Not a part of what learns: neither averaged nor saved."""

    def __init__(
        self,
        vit: nn.Module,
        preprocess: Preprocess,
        rows: Sequence[int],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.vit, self.device, self.precision = vit.to(device).eval().requires_grad_(False), device, precision
        self.size = preprocess.image_size
        self.rows = torch.tensor(rows, device=device)
        self.mean, self.std = (
            torch.tensor(values, device=device).float().view(1, -1, 1, 1)
            for values in (preprocess.mean, preprocess.std)
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """images [B, C, h, w] in 0..1 → logits [B, classes], in the order of the student's classes.

        In the training precision on a GPU, in float32 on a CPU.
        """
        views = (resize(images, self.size) - self.mean) / self.std
        with autocast(self.device, self.precision, enabled=self.device.type == "cuda"):
            logits: Tensor = self.vit(views)
        return logits.float()[:, self.rows]


def load_teacher(settings: TrainSettings, classes: Sequence[str], device: torch.device) -> Teacher:
    """The teacher of the settings, ready to teach. Raises: UserError if its weights are not those the run began with."""
    assert isinstance(settings.task, ClassifySettings)
    name, sha256 = settings.task.distill.teacher, settings.task.distill.sha256
    try:
        teaching = read_teacher(name, classes, offline=True)
    except CheckpointError:
        teaching = read_teacher(name, classes)
    if teaching.sha256 != sha256:
        raise UserError(
            f"the teacher {name} has changed since the run was started: its weights have another sha256",
            "restore its weights, or start a new run",
        )
    with torch.device("meta"):
        vit = ViT(teaching.card.config)
    fill(vit, {key: tensor.float() for key, tensor in teaching.source.tensors.items()}, name)
    return Teacher(vit, teaching.card.preprocess, teaching.rows, device, settings.run.precision)


class Student(Classifier):
    """A classifier taught by labels and by a teacher. targets: "classes" and "teacher", the teacher's logits [B, classes].

    A distilled head learns the teacher's answers and the class head the labels; a model without one learns both in its
    only head. Predictions are the mean of both heads (model/vit.py).
    """

    def forward(self, images: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        heads = self.vit.logits_by_head(images)
        logits, taught = heads["class"], heads.get("distillation", heads["class"])
        distill, teacher = self.settings.distill, targets["teacher"]
        if distill.method == "hard":
            answers = losses.hard_distillation(taught, teacher)
        else:
            answers = losses.soft_distillation(taught, teacher, distill.temperature)
        labels = self.label_loss(logits, targets["classes"])
        return {self.settings.loss: (1 - distill.alpha) * labels, DISTILLATION: distill.alpha * answers}


class Distill(Classify):
    """Classification with a teacher, which sees the same augmented and mixed view at its own size and normalisation."""

    def __init__(self, *parts: Any, teacher: Teacher) -> None:
        super().__init__(*parts)
        self.teacher = teacher

    def views(self, batch: Batch) -> Batch:
        """Images normalised, targets {"classes": [B, classes], "teacher": [B, classes]}."""
        images, classes = self.mixed(batch)
        targets = {"classes": classes, "teacher": self.teacher(images)}
        return replace(batch, images=self.normalised(images), targets=targets)

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {**super().counts(batch), DISTILLATION: len(batch)}
