"""Options for opening a data set, with their defaults."""

from dataclasses import dataclass

from patchword.errors import DataError, SettingsError
from patchword.images.limits import MAX_PIXELS

# Field → its command-line option, for options that apply to one kind of data only.
TABLE_OPTIONS = {
    "image_column": "--image-column",
    "label_column": "--label-column",
    "split_column": "--split-column",
    "label_separator": "--label-separator",
    "target_column": "--target-column",
    "group_column": "--group-column",
}
# Of a table, those that say something about classes or numbers of complete images.
CLASS_OPTIONS = {name: TABLE_OPTIONS[name] for name in ("label_separator", "target_column", "group_column")}
FOLDER_OPTIONS = {"class_level": "--class-level"}
BOX_OPTIONS = {"annotations": "--annotations", "box_format": "--box-format"}


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """split: hold out a fifth if the data has no split; if False, one split "all".

    split_seed: another number gives another split; the seed of the training changes nothing, so that two
    trainings on the same data hold out the same images. image_column, label_column, split_column: of a table;
    None takes the usual names. label_column: several columns of 0 and 1, separated by commas, give images any number
    of classes; so does label_separator, which separates the classes in a cell. target_column: numbers instead of
    classes, from one column or several, separated by commas. labels: a table that labels the images of a folder
    without class folders. ignore_unknown_classes: leave images out of the evaluation split whose class
    training has not, instead of refusing. class_level: how many folders deep the class folders lie, below the data
    or their split folder; None finds out, and refuses what can be read in two ways. max_pixels: larger images are
    refused. val: other data, whose images become the evaluation split. folds, fold: split all images into so many
    folds, and hold out fold number `fold`, from 1. group_column: of a table; images with the same value, such as one
    patient's, are held out together. without_labels: any images, whose labels are not read (`without_labels.py`).
    boxes: read data with boxes around objects too; if False, they are refused. annotations: patterns such as
    "yolo/*" for the annotation files that are read, where there are several sets; a text is one of them. box_format: how the four numbers
    of a box are meant, where it is not as the format says (`boxes/forms.py`).
    """

    split: bool = True
    split_seed: int = 0
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    label_separator: str | None = None
    target_column: str | None = None
    labels: str | None = None
    ignore_unknown_classes: bool = False
    class_level: int | None = None
    max_pixels: int = MAX_PIXELS
    val: str | None = None
    folds: int | None = None
    fold: int = 1
    group_column: str | None = None
    without_labels: bool = False
    boxes: bool = False
    annotations: str | tuple[str, ...] | None = None
    box_format: str | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the annotation files; none if all that belong together are read."""
        given = (self.annotations,) if isinstance(self.annotations, str) else self.annotations or ()
        return tuple(dict.fromkeys(given))

    def __post_init__(self) -> None:
        if not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise SettingsError(f"max_pixels is {self.max_pixels!r}", "give a whole number from 1")
        if self.label_separator is not None and not self.label_separator:
            raise SettingsError("--label-separator is empty", "give the text between two classes, e.g. ';'")
        if self.target_column is not None:
            other = (self.label_column is not None and "--label-column") or (
                self.label_separator and "--label-separator"
            )
            if other:
                raise SettingsError(
                    f"--target-column gives numbers and {other} gives classes", "remove one of them"
                )
        if self.folds is not None and (not isinstance(self.folds, int) or self.folds < 2):
            raise SettingsError(f"--folds is {self.folds!r}", "give a whole number from 2, such as 5")
        if self.folds is not None and self.val is not None:
            raise SettingsError(
                "--val cannot be combined with --folds, which holds out each image of DATA once",
                "remove --val or --folds",
            )
        if self.folds is not None and not 1 <= self.fold <= self.folds:
            raise SettingsError(f"fold is {self.fold!r}", f"give a number from 1 to {self.folds}")


class NotApplicable(DataError):
    """Options that apply to another kind of data. fields: of `OpenRequest`."""

    def __init__(self, message: str, fix: str = "", fields: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix)
        self.fields = fields

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # type: ignore[override]
        return type(self), (self.message, self.fix, self.fields)


def refuse_table_options(request: OpenRequest, what: str) -> None:
    """what: the data, for data that are no table. Raises: DataError naming options that would do nothing."""
    _refuse(request, TABLE_OPTIONS, what, "tables")


def refuse_folder_options(request: OpenRequest, what: str) -> None:
    """As `refuse_table_options`, for data that are no class folders."""
    _refuse(request, FOLDER_OPTIONS, what, "class folders")


def refuse_class_options(request: OpenRequest, what: str) -> None:
    """As `refuse_table_options`, for tables of boxes."""
    _refuse(request, CLASS_OPTIONS, what, "images with classes")


def refuse_box_options(request: OpenRequest, what: str) -> None:
    """As `refuse_table_options`, for data without boxes."""
    _refuse(request, BOX_OPTIONS, what, "boxes")


def _refuse(request: OpenRequest, options: dict[str, str], what: str, kind: str) -> None:
    fields = tuple(field for field in options if getattr(request, field) is not None)
    given = [options[field] for field in fields]
    if given:
        applies = "applies" if len(given) == 1 else "apply"
        raise NotApplicable(
            f"{what}, and {', '.join(given)} {applies} to {kind} only",
            f"remove {'it' if len(given) == 1 else 'them'}",
            fields,
        )
