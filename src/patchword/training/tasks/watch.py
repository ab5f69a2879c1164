"""The k-NN accuracy of frozen features on labelled images, watched while an encoder learns without labels."""

import numpy as np
import torch
from torch import nn

from patchword.data.dataset import Dataset, Split
from patchword.data.open import open_data
from patchword.errors import DataError
from patchword.model.vit import ViT
from patchword.probes.features import features
from patchword.probes.knn import default_k, knn_votes
from patchword.training.config import TrainSettings
from patchword.training.tasks.settings import MAESettings

KNN = "val_knn"
# Images that are watched at most: each evaluation computes the features of all of them.
MOST_KNOWN, MOST_SCORED = 2000, 1000


class Watch:
    """The images of `task.watch`: neighbours from its training split, scored on its evaluation split.

    Raises: DataError if it has no classes.
    """

    def __init__(self, settings: TrainSettings, workers: int) -> None:
        assert isinstance(settings.task, MAESettings)
        dataset = open_watched(settings.task.watch)
        self.settings, self.workers = settings, workers
        self.known = _at_most(dataset.training, MOST_KNOWN)
        self.scored = _at_most(dataset.evaluation, MOST_SCORED)
        self.num_classes = len(dataset.classes)

    @property
    def text(self) -> str:
        return f"{len(self.scored)} images of {self.scored.name} by their neighbours among {len(self.known)}"

    def score(self, vit: nn.Module) -> float:
        """The share of the scored images whose neighbours vote for their class."""
        assert isinstance(vit, ViT)
        known, scored = (
            features(
                vit,
                self.settings.preprocess,
                split,
                workers=self.workers,
                device=next(vit.parameters()).device,
            )
            for split in (self.known, self.scored)
        )
        votes = knn_votes(
            known.values, known.labels, scored.values, self.num_classes, k=default_k(known.labels)
        )
        return float((votes.argmax(1) == scored.labels).mean())


def open_watched(path: str) -> Dataset:
    """The labelled images to watch. Raises: DataError if the path has none, or not one class for each."""
    dataset = open_data(path)
    if dataset.task_kind != "single" or len(dataset.classes) < 2:
        raise DataError(
            f"--watch {path}: the k-NN probe needs images of at least two classes, one for each image",
            "give class folders, a zip of them, or a table",
        )
    if not (len(dataset.training) and len(dataset.evaluation)):
        raise DataError(f"--watch {path}: no images to compare with or to score", "give more images")
    return dataset


def _at_most(split: Split, most: int) -> Split:
    """All images of the split, or `most` at even distances."""
    if len(split) <= most:
        return split
    return split.subset(torch.linspace(0, len(split) - 1, most).round().numpy().astype(np.int64))
