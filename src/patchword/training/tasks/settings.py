"""The settings of each kind of training. This module does not import torch."""

from dataclasses import dataclass
from typing import ClassVar

from patchword.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class ClassifySettings:
    """One class for each image. label_smoothing: the share of each target that is spread over all classes."""

    kind: ClassVar[str] = "classify"
    # Whether every image of a batch has the same size.
    one_size: ClassVar[bool] = True

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(
                f"task.label_smoothing is {self.label_smoothing}", "use a value from 0 to below 1"
            )


TaskSettings = ClassifySettings
