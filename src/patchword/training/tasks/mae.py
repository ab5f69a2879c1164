"""Pre-training without labels: the hidden patches of an image are predicted from the visible ones.

Source: He et al. 2022 (arXiv 2111.06377).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, float64, nn

from patchword.data.dataset import Split
from patchword.model.baselines import baseline_errors
from patchword.model.mae import MAE
from patchword.training.chance import Draws
from patchword.training.config import TrainSettings
from patchword.training.ranks import Ranks
from patchword.training.task import Batch, Scores, Tally
from patchword.training.tasks.settings import MAESettings
from patchword.training.tasks.views import Views
from patchword.training.tasks.watch import KNN, Watch
from patchword.weights.card import ModelCard

PIXELS = "val_pixels"


class Pretrain(Views):
    """Masked autoencoding as a task of the loop: cropped and mirrored views, masks from the draws of each image.

    The evaluation images have the same masks in every epoch and run, so that their losses can be compared.
    """

    def __init__(
        self, settings: TrainSettings, module: MAE, training: Split, evaluation: Split, workers: int
    ) -> None:
        assert isinstance(settings.task, MAESettings)
        super().__init__(settings, training, evaluation, next(module.parameters()).device, workers)
        self.module, self.task = module, settings.task
        self.num_patches = settings.vit.grid_size[0] * settings.vit.grid_size[1]
        self.watch = Watch(settings, workers) if self.task.watch else None

    def begin(self, epoch: int) -> None:
        self.module.encoder_frozen = epoch < self.task.freeze_epochs

    def views(self, batch: Batch) -> Batch:
        """Images augmented and normalised; targets: the noise [B, N] that decides which patches are hidden."""
        images = self.normalised(self.augment(batch.images, batch.draws))
        noise = batch.draws.stream("mask").uniform(self.num_patches).to(images.device)
        return replace(batch, images=images, targets=noise)

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return {self.task.loss: len(batch)}

    def tally(self) -> Tally:
        return PixelTally(self.watch)

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        for batch in self.held_out.batches(ranks):
            yield replace(batch, targets=evaluation_noise(batch.draws, self.num_patches))

    def card(self, scores: Mapping[str, float]) -> ModelCard:
        return ModelCard(
            config=self.settings.vit, preprocess=self.settings.preprocess, decoder=self.task.decoder
        )

    def shipped(self, module: nn.Module) -> Mapping[str, Tensor]:
        """The encoder, and the decoder as `decoder.…`, so that the file can be explained and trained further."""
        decoder = module.get_submodule("decoder").state_dict(prefix="decoder.")
        return {**super().shipped(module), **decoder}


def evaluation_noise(draws: Draws, num_patches: int) -> Tensor:
    """[B, N]: fixed noise for evaluation images, by their numbers."""
    return Draws(0, 0, draws.samples).stream("evaluation mask").uniform(num_patches)


class PixelTally:
    """Sums the errors of the model and of what it is to be compared with, over the evaluation images."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch, self.vit = watch, nn.Module()
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.images = 0

    def add(self, module: nn.Module, batch: Batch) -> None:
        assert isinstance(module, MAE)
        self.vit = module.vit
        self.sums[PIXELS] += float(module.errors(batch.images, batch.targets).sum(dtype=float64))
        masking, size = module.masking(batch.targets), module.vit.config.patch.size
        found = baseline_errors(batch.images, masking, size, module.config.norm_targets)
        for name, errors in found.items():
            self.sums[f"val_{name}"] += float(errors.sum(dtype=float64))
        self.images += len(batch)

    def state(self) -> Any:
        return dict(self.sums), self.images

    def merged(self, states: Sequence[tuple[Mapping[str, float], int]]) -> Scores:
        """The means; with labelled images to watch, their k-NN accuracy decides which weights are best."""
        images = max(sum(count for _, count in states), 1)
        values = {name: sum(sums[name] for sums, _ in states) / images for name in self.sums}
        values["val_images"] = images
        if self.watch is None:
            return Scores(values=values, best=PIXELS, higher_is_better=False)
        values[KNN] = self.watch.score(self.vit)
        return Scores(values=values, best=KNN)
