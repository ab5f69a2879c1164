"""How a data set should be opened: what a user may choose, with its defaults."""

from dataclasses import dataclass

from patchword.errors import SettingsError
from patchword.images.limits import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """split: make an 80/20 split by `seed` where the data has none; else one split "all".

    image_column, label_column: of a table; None takes the usual names. ignore_unknown_classes:
    leave images out of the evaluation split whose class training has not, instead of refusing.
    max_pixels: larger images are refused.
    """

    split: bool = True
    seed: int = 0
    image_column: str | None = None
    label_column: str | None = None
    ignore_unknown_classes: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise SettingsError(f"max_pixels is {self.max_pixels}", "give a whole number from 1")
