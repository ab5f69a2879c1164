"""How a data set should be opened: what a user may choose, with its defaults."""

from dataclasses import dataclass

from patchword.images.limits import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """split: hold out a fifth where the data has no split; else one split "all".

    split_seed: another number gives another split; the seed of the training changes nothing, so that two
    trainings on the same data hold out the same images. image_column, label_column, split_column: of a table;
    None takes the usual names. ignore_unknown_classes: leave images out of the evaluation split whose class
    training has not, instead of refusing. max_pixels: larger images are refused.
    """

    split: bool = True
    split_seed: int = 0
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    ignore_unknown_classes: bool = False
    max_pixels: int = MAX_PIXELS
