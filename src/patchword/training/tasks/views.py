"""What the tasks of complete images share: collating, augmenting, normalising, the evaluation images, what is saved."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.dataset import Split
from patchword.data.feed import stacked
from patchword.model.lora import merged_state
from patchword.training.augment.views import Augment
from patchword.training.config import TrainSettings
from patchword.training.tasks.classify import HeldOut


class Views:
    """training, evaluation: the splits; only targets are read from the first."""

    def __init__(
        self,
        settings: TrainSettings,
        training: Split,
        evaluation: Split,
        device: torch.device,
        workers: int,
    ) -> None:
        self.settings = settings
        self.targets = torch.from_numpy(training.image_targets.values)
        self.held_out = HeldOut(settings, evaluation, device, workers)
        self.augment = Augment(settings.augment, settings.view_size)
        channels = settings.vit.image.channels
        self.mean, self.std = (
            torch.tensor(np.broadcast_to(v, channels).copy()).float().view(1, channels, 1, 1)
            for v in (settings.preprocess.mean, settings.preprocess.std)
        )

    def begin(self, epoch: int) -> None:
        """Every epoch is the same."""

    def sample_weights(self) -> NDArray[np.float64] | None:
        """None: each training image is drawn once an epoch."""
        return None

    def collate(self, pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """images [B, C, h, w], targets [B, …]."""
        return stacked(pixels), self.targets[torch.tensor(rows)]

    def normalised(self, images: Tensor) -> Tensor:
        """images [B, C, h, w] in 0..1, as the model takes them."""
        return images.sub(self.mean.to(images.device)).div_(self.std.to(images.device))

    def shipped(self, module: nn.Module) -> Mapping[str, Tensor]:
        return merged_state(module.get_submodule("vit"))
