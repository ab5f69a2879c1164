"""Distillation: classification that also learns a trained model's answers to the same views.

Source: Touvron et al. 2021 (arXiv 2012.12877), section 4.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from patchword.training import losses
from patchword.training.task import Batch
from patchword.training.tasks.classify import Classifier, Classify
from patchword.training.teacher import Teacher

DISTILLATION = "distillation"


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
