"""The small models of `patchword learn`, made on the spot from the built-in digits, each when it is first asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.data.request import OpenRequest
from patchword.data.sources.digits import read
from patchword.data.targets import Labels
from patchword.images.prepare import prepare
from patchword.images.preprocess import Preprocess
from patchword.lessons.resnet import SmallResNet
from patchword.lessons.scene import STEPS, compose, trained_detector
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.detr.model import DETR
from patchword.model.mae import MAE
from patchword.model.matching import Targets
from patchword.model.vit import ViT

DIGITS = tuple(str(digit) for digit in range(10))
# Mean and deviation of the training scans, of values 0 to 1.
PREPROCESS = Preprocess.simple(8, in_channels=1, mean=(0.305,), std=(0.376,))
SMALL_VIT = ViTConfig(
    image=ImageConfig(size=(8, 8), channels=1),
    patch=PatchConfig(size=(2, 2)),
    dim=48,
    depth=4,
    attention=AttentionConfig(num_heads=4),
    mlp=MLPConfig(hidden=96),
    head=HeadConfig(num_classes=10),
)
DECODER = DecoderConfig(dim=32, depth=1, num_heads=4, norm_targets=False, mask_ratio=0.75)
BATCH = 32
EPOCHS = 12


@dataclass(frozen=True, kw_only=True)
class Scans:
    """images [n, 1, 8, 8] as the models take them, and labels [n]."""

    images: Tensor
    labels: Tensor


class Laboratory:
    """Digits, and small models trained on them. The same seed gives the same models on the same machine.

    epochs: of every training; 12 are enough for digits, and with 0 all weights are random.
    """

    def __init__(self, seed: int = 0, epochs: int = EPOCHS) -> None:
        self.seed, self.epochs = seed, epochs

    @cached_property
    def training(self) -> Scans:
        return _scans("train")

    @cached_property
    def test(self) -> Scans:
        return _scans("test")

    @cached_property
    def untrained(self) -> ViT:
        """A ViT with random weights: 8 x 8 pixels, patches of 2 x 2, width 48, 4 blocks of 4 heads."""
        return ViT(SMALL_VIT, self.generator(1)).eval()

    @cached_property
    def vit(self) -> ViT:
        """The same ViT, trained."""
        vit = ViT(SMALL_VIT, self.generator(1))
        train_classifier(vit, self.training, self.generator(2), self.epochs)
        return vit.eval()

    @cached_property
    def random_cnn(self) -> SmallResNet:
        """A ResNet with random weights."""
        return SmallResNet(generator=self.generator(3)).eval()

    @cached_property
    def cnn(self) -> SmallResNet:
        """The same ResNet, trained as the ViT: the same images in the same order, views, steps and schedule."""
        cnn = SmallResNet(generator=self.generator(3))
        train_classifier(cnn, self.training, self.generator(2), self.epochs)
        return cnn.eval()

    @cached_property
    def mae(self) -> MAE:
        """A masked autoencoder of the same ViT; three of four patches are hidden."""
        generator = self.generator(4)
        mae = MAE(ViT(SMALL_VIT, generator), DECODER, generator)

        def loss(images: Tensor, _: Tensor) -> Tensor:
            noise = torch.rand(len(images), SMALL_VIT.num_tokens - 1, generator=generator)
            return mae.errors(images, noise).mean()

        fit(mae, self.training, loss, generator, epochs=self.epochs)
        return mae.eval()

    @cached_property
    def scene(self) -> tuple[Tensor, Targets]:
        """A picture with three digits, and its objects."""
        return compose(self.test.images, self.test.labels)

    @cached_property
    def detr(self) -> DETR:
        """A small DETR that knows the scene by heart; with no epochs, one with random weights."""
        return trained_detector(*self.scene, self.generator(6), STEPS if self.epochs else 0)

    def generator(self, what: int) -> torch.Generator:
        """The source of one thing's randomness."""
        return torch.Generator().manual_seed(1000 * self.seed + what)


def train_classifier(
    model: nn.Module, scans: Scans, generator: torch.Generator, epochs: int = EPOCHS
) -> list[float]:
    """Train on digits; return the loss of each step. Ends in training mode."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels)

    return fit(model, scans, loss, generator, epochs=epochs)


def fit(
    model: nn.Module,
    scans: Scans,
    loss: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
    *,
    epochs: int,
    rate: float = 3e-3,
) -> list[float]:
    """AdamW with a linear warm-up over a fifth of the steps and a cosine decay. loss(images, labels) → scalar."""
    model.train()
    if not epochs:
        return []
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05, fused=True)
    steps = epochs * (len(scans.images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.2)
    losses: list[float] = []
    while len(losses) < steps:
        order = torch.randperm(len(scans.images), generator=generator)
        for rows in torch.split(order, BATCH)[: len(scans.images) // BATCH]:
            value = loss(scans.images[rows], scans.labels[rows])
            optimiser.zero_grad()
            torch.autograd.backward(value)
            optimiser.step()
            schedule.step()
            losses.append(value.item())
    return losses


def digit_images(preprocess: Preprocess, count: int) -> Tensor:
    """The first test scans as any model takes them: [count, C, H, W]; grey is repeated for colour channels."""
    split = read("digits", OpenRequest()).splits["test"]
    found = []
    for row in split.rows[:count]:
        scan = np.repeat(np.asarray(split.reader(int(row))), preprocess.in_channels, axis=2)
        found.append(prepare(preprocess, scan, f"digits/{row}"))
    return torch.from_numpy(np.stack(found))


def _scans(name: str) -> Scans:
    split = read("digits", OpenRequest()).splits[name]
    images = np.stack([prepare(PREPROCESS, np.asarray(split.reader(int(row))), "") for row in split.rows])
    assert isinstance(split.targets, Labels)
    return Scans(images=torch.from_numpy(images), labels=torch.from_numpy(split.targets.values))
