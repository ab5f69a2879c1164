"""An attentive probe: one learned query attends to the frozen patch tokens, and a linear layer reads the result.

Source: El-Nouby et al. 2024 (arXiv 2401.08541, AIM), section 4 and the repository apple/ml-aim: the tokens are standardised without
learned factors, keys and values are linear, the query is learned as it is, and there is no MLP. CAPI (Darcet et al. 2025,
arXiv 2502.08769) evaluates alike, and V-JEPA (Bardes et al. 2024, arXiv 2404.08471) adds an MLP.
Here the tokens are standardised by the mean and deviation over all training images, not over each batch, and the rates and decays
that are tried are our own.

Shapes: B images, N patch tokens, D dim, H heads, C classes, P probes that are trained side by side.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.order import order, steps_in
from patchword.errors import plural
from patchword.probes.linear import places_in_class
from patchword.training.adamw import AdamW
from patchword.training.chance import seed_of
from patchword.training.optimiser import set_lr
from patchword.training.probing.tokens import Tokens
from patchword.training.schedule import ScheduleSettings, lr_factor

SOURCE = "El-Nouby et al. 2024 (arXiv 2401.08541, AIM): one query attends to the patch tokens, then linear"
RATES, DECAYS = (3e-4, 1e-3, 3e-3), (0.01, 0.3)
# Taken if too few images can be held out to choose.
USUAL = (1e-3, 0.3)
BATCH, EPOCHS, LEAST_STEPS = 128, 20, 400
# Of each class, the second of every five images is held out.
_EVERY, _HELD = 5, 1

Report = Callable[[int, int], None]


class AttentiveProbe(nn.Module):
    """query [D], keys and values [D, D] without bias, a linear layer [C, D] with bias: all of it is trained."""

    def __init__(self, dim: int, heads: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(dim))
        self.keys = nn.Parameter(torch.empty(dim, dim))
        self.values = nn.Parameter(torch.empty(dim, dim))
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        for drawn in (self.query, self.weight):
            nn.init.trunc_normal_(drawn, std=0.02, generator=generator)
        for drawn in (self.keys, self.values):
            nn.init.xavier_uniform_(drawn, generator=generator)

    def scorer(self) -> Tensor:
        """[D, H]: tokens times this are the scaled scores.

        The query is the same for all images, so it is multiplied with the keys' weights once instead of with each key.
        """
        width = len(self.query) // self.heads
        by_head = self.keys.view(self.heads, width, -1) * self.query.view(self.heads, width, 1)
        return by_head.sum(1).T / math.sqrt(width)

    def read(self, pooled: Tensor) -> Tensor:
        """Tokens averaged by each head [B, H, D] → logits [B, C]."""
        by_head = self.values.view(self.heads, -1, self.values.shape[1])
        values = (pooled.transpose(0, 1) @ by_head.transpose(1, 2)).transpose(0, 1).flatten(1)
        return F.linear(values, self.weight, self.bias)


def logits_of(probes: Sequence[AttentiveProbe], tokens: Tensor) -> list[Tensor]:
    """Logits [B, C] of each probe for standardised tokens [B, N, D], which are read once for all of them."""
    heads = probes[0].heads
    shares = (tokens @ torch.cat([p.scorer() for p in probes], dim=1)).softmax(dim=1)
    pooled = shares.transpose(1, 2) @ tokens
    return [p.read(pooled[:, i * heads : (i + 1) * heads]) for i, p in enumerate(probes)]


@dataclass(frozen=True, kw_only=True)
class AttentiveFit:
    """probe: fitted to all training images. lr, weight_decay, held_out, losses: see `fit_attentive`."""

    probe: AttentiveProbe
    lr: float
    weight_decay: float
    batch: int
    epochs: int
    held_out: int
    seconds: float
    losses: dict[tuple[float, float], float]

    @property
    def chosen_text(self) -> str:
        if not self.held_out:
            return "not chosen: too few training images to hold some out"
        count = plural(len(self.losses), "pair")
        return f"lowest loss of {count} on {plural(self.held_out, 'held-out training image')}"


def fit_attentive(
    tokens: Tokens,
    num_classes: int,
    heads: int,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: Report | None = None,
) -> AttentiveFit:
    """Choose rate and weight decay on a fifth of the training images, then fit to all of them.

    tokens: of the training images, of at least two classes. heads: as many as divide D are used. epochs: None for at least
    20, and 400 steps. progress: called with (steps done, steps of both fits).
    """
    began = time.perf_counter()
    held = places_in_class(tokens.labels) % _EVERY == _HELD
    whole = np.arange(len(tokens.labels))
    pairs = [(lr, decay) for lr in RATES for decay in DECAYS]
    sums = [_steps(int((~held).sum()), epochs), _steps(len(whole), epochs)]
    losses: dict[tuple[float, float], float] = {}
    done = 0

    def report(step: int) -> None:
        if progress is not None:
            progress(done + step, sum(sums))

    train = _Trainer(tokens, num_classes, _dividing(tokens.dim, heads), seed, epochs)
    if held.any() and len(np.unique(tokens.labels[~held])) > 1:
        tried = train(whole[~held], pairs, report)
        losses = dict(zip(pairs, held_out_losses(tried, tokens, whole[held]), strict=True))
    done = sums[0]
    lr, decay = min(losses, key=lambda pair: losses[pair]) if losses else USUAL
    (probe,) = train(whole, [(lr, decay)], report)
    batch, count = _schedule(len(whole), epochs)
    return AttentiveFit(
        probe=probe,
        lr=lr,
        weight_decay=decay,
        batch=batch,
        epochs=count,
        held_out=int(held.sum()) if losses else 0,
        losses=losses,
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def predict_attentive(probe: AttentiveProbe, tokens: Tokens, like: Tokens) -> NDArray[np.float32]:
    """Logits [M, C] of the images of `tokens`, standardised as the training images' tokens `like`."""
    found = [np.empty((0, len(probe.bias)), np.float32)]
    for rows in _chunks(np.arange(len(tokens.labels))):
        (logits,) = logits_of([probe], like.standardised(tokens.batch(rows)))
        found.append(logits.cpu().numpy())
    return np.concatenate(found)


@torch.no_grad()
def held_out_losses(probes: Sequence[AttentiveProbe], tokens: Tokens, rows: NDArray[np.int64]) -> list[float]:
    """The mean cross-entropy of each probe over these images; infinite for a probe that diverged."""
    sums = torch.zeros(len(probes), dtype=torch.float64)
    for chunk in _chunks(rows):
        labels = torch.from_numpy(tokens.labels[chunk]).to(tokens.device)
        for i, logits in enumerate(logits_of(probes, tokens.standardised(tokens.batch(chunk)))):
            sums[i] += float(F.cross_entropy(logits, labels, reduction="sum"))
    return [float(s) / len(rows) if s.isfinite() else math.inf for s in sums]


class _Trainer:
    """Trains probes side by side on some of the images, from the same weights and in the same order each time."""

    def __init__(self, tokens: Tokens, num_classes: int, heads: int, seed: int, epochs: int | None) -> None:
        self.tokens, self.num_classes, self.heads = tokens, num_classes, heads
        self.seed, self.epochs = seed, epochs

    def __call__(
        self,
        rows: NDArray[np.int64],
        pairs: Sequence[tuple[float, float]],
        report: Callable[[int], None],
    ) -> list[AttentiveProbe]:
        """rows: of the images. pairs: rate and weight decay of each probe. Vectors do not decay."""
        tokens, probes = self.tokens, [self._drawn() for _ in pairs]
        groups = [
            {"params": some, "lr_scale": lr, "weight_decay": weight}
            for probe, (lr, decay) in zip(probes, pairs, strict=True)
            for some, weight in (
                ([probe.keys, probe.values, probe.weight], decay),
                ([probe.query, probe.bias], 0.0),
            )
        ]
        optimiser = AdamW(groups, lr=1.0, betas=(0.9, 0.999))
        batch, epochs = _schedule(len(rows), self.epochs)
        per_epoch = steps_in(len(rows), batch)
        schedule = ScheduleSettings(epochs=epochs, warmup_epochs=epochs / 10, final_lr=0.0)
        for epoch in range(epochs):
            steps = order(len(rows), batch, seed_of(self.seed, "attentive"), epoch)
            for step, places in enumerate(steps, epoch * per_epoch):
                chosen = rows[places]
                labels = torch.from_numpy(tokens.labels[chosen]).to(tokens.device)
                found = logits_of(probes, tokens.standardised(tokens.batch(chosen)))
                optimiser.zero_grad()
                torch.stack([F.cross_entropy(logits, labels) for logits in found]).sum().backward()  # type: ignore[no-untyped-call]
                set_lr(optimiser, lr_factor(step, per_epoch, schedule))
                optimiser.step()
                report(step + 1)
        return probes

    def _drawn(self) -> AttentiveProbe:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "attentive weights"))
        probe = AttentiveProbe(self.tokens.dim, self.heads, self.num_classes, generator)
        return probe.to(self.tokens.device)


def _schedule(count: int, epochs: int | None) -> tuple[int, int]:
    """The batch and the number of epochs for so many images."""
    batch = max(min(BATCH, count // 8), min(count, 2))
    return batch, epochs or max(EPOCHS, math.ceil(LEAST_STEPS / steps_in(count, batch)))


def _steps(count: int, epochs: int | None) -> int:
    batch, passes = _schedule(count, epochs)
    return passes * steps_in(count, batch)


def _dividing(dim: int, heads: int) -> int:
    """The largest number of heads, up to `heads`, that divides the width."""
    return next(count for count in range(heads, 0, -1) if dim % count == 0)


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
