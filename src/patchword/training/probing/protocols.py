"""The published linear protocols by name, and what of them the data change.

MAE: He et al. 2022 (arXiv 2111.06377, table 10); facebookresearch/mae, main_linprobe.py and LINEAR_PROBE.md.
DINO: Caron et al. 2021 (arXiv 2104.14294); facebookresearch/dino, eval_linear.py.
"""

from dataclasses import dataclass
from typing import Literal

from patchword.probes.kinds import ProbeKind
from patchword.training.schedule import ScheduleSettings

# Both were made for so many images.
IMAGENET = 1_281_167
# An epoch has at least so many steps, unless its batches would be smaller than this.
LEAST_STEPS, LEAST_BATCH = 16, 64


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A linear probe on augmented views: crops of 0.08 to 1 of the area, mirrored half of the time.

    lr: for 256 images; the peak is in proportion to the published batch. batch_norm: standardise the features before the linear layer.
    init: the deviation of the initial weights. crop: how the published code resamples its crops.
    """

    name: ProbeKind
    source: str
    method: Literal["lars", "sgd"]
    lr: float
    batch: int
    epochs: int
    warmup_epochs: float
    batch_norm: bool
    init: float
    crop: str


MAE_LINEAR = Protocol(
    name="mae-linear",
    source="He et al. 2022 (arXiv 2111.06377), facebookresearch/mae main_linprobe.py",
    method="lars",
    lr=0.1,
    batch=16384,
    epochs=90,
    warmup_epochs=10.0,
    batch_norm=True,
    init=0.01,
    crop="bicubically",
)
DINO_LINEAR = Protocol(
    name="dino-linear",
    source="Caron et al. 2021 (arXiv 2104.14294), facebookresearch/dino eval_linear.py",
    method="sgd",
    lr=0.001,
    batch=1024,
    epochs=100,
    warmup_epochs=0.0,
    batch_norm=False,
    init=0.01,
    crop="bilinearly",
)
PROTOCOLS: dict[ProbeKind, Protocol] = {"mae-linear": MAE_LINEAR, "dino-linear": DINO_LINEAR}


@dataclass(frozen=True, kw_only=True)
class LinearPlan:
    """A protocol on these data. lr: the peak rate. scaled: one line for each departure from what is published."""

    protocol: Protocol
    num_images: int
    batch: int
    lr: float
    schedule: ScheduleSettings
    scaled: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as "mae-linear", or "mae-linear, 10 of 90 epochs"."""
        epochs, of = self.schedule.epochs, self.protocol.epochs
        return self.protocol.name if epochs == of else f"{self.protocol.name}, {epochs} of {of} epochs"

    @property
    def views(self) -> int:
        """The number of views that pass through the encoder."""
        return self.schedule.epochs * self.num_images


def linear_plan(protocol: Protocol, num_images: int, epochs: int | None = None) -> LinearPlan:
    """Smaller batches for fewer images, at the published peak rate; a shorter run warms up shorter.

    The published code scales the rate with the batch. With few images, that leaves the head as it was drawn: LARS moves it in
    proportion to its own norm, whatever the batch. On 5 Gaussian classes of 300 vectors, 90 epochs of batch 75 score 23 % with
    MAE's rate scaled to 0.03 and 92 % with 6.4.
    """
    count = protocol.epochs if epochs is None else epochs
    batch = min(protocol.batch, max(num_images // LEAST_STEPS, LEAST_BATCH), num_images)
    # The encoder runs on parts of the batch.
    batch -= batch % LEAST_BATCH if batch > LEAST_BATCH else 0
    scaled = [] if protocol.crop == "bilinearly" else [f"crops sampled bilinearly, not {protocol.crop}"]
    if batch != protocol.batch:
        scaled.append(
            f"batch {batch} instead of {protocol.batch:,} at the same peak learning rate, for {num_images:,} training images"
        )
        steps = count * (num_images // batch)
        of = protocol.epochs * (IMAGENET // protocol.batch)
        scaled.append(f"{steps:,} steps instead of {of:,} on ImageNet-1k")
    warmup = protocol.warmup_epochs * count / protocol.epochs
    if count != protocol.epochs:
        scaled.append(f"{count} epochs instead of {protocol.epochs}")
        if warmup:
            scaled.append(f"warm-up over {warmup:.3g} instead of {protocol.warmup_epochs:g} epochs")
    return LinearPlan(
        protocol=protocol,
        num_images=num_images,
        batch=batch,
        lr=protocol.lr * protocol.batch / 256,
        schedule=ScheduleSettings(epochs=count, warmup_epochs=warmup, final_lr=0.0),
        scaled=tuple(scaled),
    )
