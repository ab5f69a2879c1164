"""The settings of each kind of training. This module does not import torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.decoder import DecoderConfig
from patchword.training.tasks.detect_settings import DetectSettings

Balance = Literal["none", "loss", "sample", "logits"]


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Learning from the answers of a trained model as well (Touvron et al. 2021, arXiv 2012.12877).

    Args:
        teacher: the model, as `patchword.load` accepts it; "" for none. The following apply only with one.
        sha256: of the teacher's weights, filled in at the start, so that a run goes on with the same teacher only.
        method: "hard" learns the teacher's first class, "soft" its probabilities at `temperature`.
        alpha: the loss is (1 - alpha) · loss of the labels + alpha · loss of the teacher's answers.

    A model with a distilled head learns the teacher's answers there, any other model in its only head.
    """

    teacher: str = ""
    sha256: str = ""
    method: Literal["hard", "soft"] = "hard"
    alpha: float = 0.5
    temperature: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise SettingsError(
                f"task.distill.alpha is {self.alpha}", "use a value from above 0 to 1, such as 0.5"
            )
        if not 0 < self.temperature <= 100:
            raise SettingsError(
                f"task.distill.temperature is {self.temperature}",
                "use a value from above 0 to 100, such as 3",
            )


@dataclass(frozen=True, kw_only=True)
class ClassifySettings:
    """One class for each image.

    Args:
        loss: "binary_cross_entropy" asks about each class on its own (Wightman et al. 2021, arXiv 2110.00476).
        label_smoothing: the share of each target that is spread over all classes.
        target_threshold: for binary cross-entropy: a class is present if its share of a mixed image is larger; None
            keeps the shares.
        balance: what is done about classes of unequal size. "loss" weights each image by its class, "sample" draws
            images of small classes more often, "logits" adds the log of the class's share to its logit in training
            (Menon et al. 2021, arXiv 2007.07314).
        balance_strength: 1 balances completely, a smaller number in part: the exponent of the number of images in
            weights and draws, the factor of the logarithm.
        distill: learning from a teacher.
    """

    kind: ClassVar[str] = "classify"
    # Whether every image of a batch has the same size.
    one_size: ClassVar[bool] = True

    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    label_smoothing: float = 0.1
    target_threshold: float | None = None
    balance: Balance = "none"
    balance_strength: float = 1.0
    distill: DistillSettings = field(default_factory=DistillSettings)

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(
                f"task.label_smoothing is {self.label_smoothing}", "use a value from 0 to below 1"
            )
        if not 0 < self.balance_strength <= 2:
            raise SettingsError(
                f"task.balance_strength is {self.balance_strength}", "use a value from above 0 to 2"
            )
        if self.balance == "none" and self.balance_strength != 1:
            raise SettingsError(
                f"task.balance_strength is {self.balance_strength}, but task.balance is 'none'",
                "set task.balance to loss, sample or logits, or remove task.balance_strength",
            )
        self._check_binary()

    def _check_binary(self) -> None:
        if self.loss == "binary_cross_entropy":
            # A share of smoothing above the threshold would make every class present.
            lowest = self.label_smoothing / 2
            if self.target_threshold is not None and not lowest <= self.target_threshold < 1:
                raise SettingsError(
                    f"task.target_threshold is {self.target_threshold}",
                    f"use a value from {lowest:g} (half of task.label_smoothing) to below 1, such as 0.2",
                )
            if self.balance == "logits":
                raise SettingsError(
                    "task.balance is 'logits', which task.loss 'binary_cross_entropy' does not support",
                    "use task.balance=loss or sample, or task.loss=cross_entropy",
                )
        elif self.target_threshold is not None:
            raise SettingsError(
                f"task.target_threshold is {self.target_threshold}, but task.loss is {self.loss!r}",
                "set task.loss=binary_cross_entropy, or remove task.target_threshold",
            )


@dataclass(frozen=True, kw_only=True)
class MultiLabelSettings:
    """Any number of classes for each image.

    Args:
        loss: binary cross-entropy of each class, or focal (Lin et al. 2017, arXiv 1708.02002), which weighs what is
            learned already less.
        gamma: how much less, with focal.
        balance: "loss" weights the positives of rare classes by the ratio of negatives to positives.
        balance_strength: the exponent of that ratio.
    """

    kind: ClassVar[str] = "multilabel"
    one_size: ClassVar[bool] = True

    loss: Literal["binary_cross_entropy", "focal"] = "binary_cross_entropy"
    gamma: float = 2.0
    balance: Literal["none", "loss"] = "none"
    balance_strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 10:
            raise SettingsError(f"task.gamma is {self.gamma}", "use a value from 0 to 10, such as 2")
        if not 0 < self.balance_strength <= 2:
            raise SettingsError(
                f"task.balance_strength is {self.balance_strength}", "use a value from above 0 to 2"
            )


@dataclass(frozen=True, kw_only=True)
class RegressSettings:
    """Numbers for each image.

    Args:
        loss: "l2" (squared), "l1" (absolute) or "smooth_l1", of numbers normalised by mean and std.
        mean, std: of the training numbers, one for each column; filled in from the data.
    """

    kind: ClassVar[str] = "regress"
    one_size: ClassVar[bool] = True

    loss: Literal["l2", "l1", "smooth_l1"] = "smooth_l1"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(0 < value < float("inf") for value in self.std):
            raise SettingsError(
                f"task.mean is {self.mean} and task.std is {self.std}",
                "give a mean and a positive deviation for each number, or remove both",
            )


@dataclass(frozen=True, kw_only=True)
class MAESettings:
    """Hidden patches are predicted from visible ones (He et al. 2022, arXiv 2111.06377); no labels.

    Args:
        decoder: its blocks, what it predicts, and the share of hidden patches.
        freeze_epochs: the encoder learns only after so many epochs, so that a new decoder does not disturb trained weights.
        watch: labelled images whose k-NN accuracy on frozen features decides which weights are best; "" for none.
    """

    kind: ClassVar[str] = "mae"
    one_size: ClassVar[bool] = True
    loss: ClassVar[str] = "pixels"

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    freeze_epochs: float = 0.0
    watch: str = ""

    def __post_init__(self) -> None:
        if self.freeze_epochs < 0:
            raise SettingsError(f"task.freeze_epochs is {self.freeze_epochs}", "use 0 or more")


TaskSettings = ClassifySettings | MultiLabelSettings | RegressSettings | MAESettings | DetectSettings
