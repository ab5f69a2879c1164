"""Choose the image, label and split columns of a table."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchword.data.dataset import Problem, Reader, TakenColumns
from patchword.data.request import OpenRequest
from patchword.data.sources.split_names import SPLITS
from patchword.errors import DataError, near_text

# Names as `plain_name` gives them, the first that is there wins.
IMAGE_COLUMNS = (
    *(
        "image",
        "path",
        "file",
        "filename",
        "filepath",
        "imagepath",
        "imagefile",
        "imagename",
        "img",
        "imgpath",
    ),
    *("imgname", "imgfile", "images", "imageid", "imageindex", "imgid", "picture", "photo", "files"),
    *("filenames", "filepaths", "paths", "jpg", "jpeg", "png", "webp", "imagejpg", "imagejpeg", "imagepng"),
)
LABEL_COLUMNS = (
    *("label", "class", "classname", "category", "target", "species", "finelabel", "labels", "classes"),
    *("labelname", "categoryname", "cls", "clsname", "breed", "diagnosis", "dx", "tag", "tags", "categories"),
    *("classlabel", "imagelabel", "groundtruth", "classid", "labelid", "categoryid", "variety"),
)
# These often hold something else (a box's height, a pet's name), so they count only where nothing else is left.
LAST_RESORT_IMAGE = ("id", "name", "key")
LAST_RESORT_LABEL = ("name", "y", "id")
SPLIT_COLUMNS = (
    *(
        "split",
        "subset",
        "set",
        "dataset",
        "partition",
        "phase",
        "usage",
        "fold",
        "folds",
        "kfold",
        "foldname",
    ),
    *("splits", "datasplit", "traintest", "trainval", "trainvaltest"),
)
TRAIN_FLAGS, VAL_FLAGS, TEST_FLAGS = (
    ("istrain", "istraining"),
    ("isvalid", "isval", "isvalidation"),
    ("istest",),
)
FLAGS = (*TRAIN_FLAGS, *VAL_FLAGS, *TEST_FLAGS)
_WORDS = {word: split for split, words in SPLITS.items() for word in words}
# Kaggle's FER2013 calls them PublicTest and PrivateTest.
_WORDS |= {"eval": "val", "evaluation": "val", "publictest": "val", "privatetest": "test"}
_YES, _NO = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n")
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A table as columns; names has all of them.

    values: of the columns that hold a value a row. lists: of those that hold lists or records, an example.
    pictures: columns of image bytes, each with its reader. class_names: by column, for labels that are numbers, as
    Hugging Face's metadata give them.
    """

    names: Sequence[str]
    num_rows: int
    values: Mapping[str, Sequence[Any]]
    lists: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Reader] = field(default_factory=dict)
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """taken: by name. labels: the columns that label the images, several of 0 and 1 or of numbers. splits: of each row, "" where it has none; None if the table has no split."""

    taken: TakenColumns
    labels: tuple[str, ...]
    splits: Sequence[str] | None
    problems: tuple[Problem, ...]


def plain_name(name: str) -> str:
    """ "Data set", "data_set" and "dataset" are one name."""
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def choose_columns(path: str, columns: Columns, request: OpenRequest) -> Choice:
    """The user's columns, else those with usual names.

    Raises: DataError if a column does not exist or the choice is ambiguous; it lists all columns.
    """
    image = image_column(path, columns, request.image_column)
    labels = _labels(path, columns, request, image)
    for label in labels:
        if label in columns.lists:
            raise DataError(
                f"{path}: column {label} holds records, e.g. {columns.lists[label]}, not classes",
                "pass a column of classes, or of lists of classes, with --label-column",
            )
    split, splits = _split(path, columns, request.split_column, (image, *labels))
    problems = _unused_splits(path, columns, (image, *labels), split)
    # Flags such as is_train and is_test are read together.
    used = {image, *labels, *split}
    others = tuple(name for name in columns.names if name not in used)
    taken = TakenColumns(
        image=image, label=", ".join(labels), split=" and ".join(split) or None, others=others
    )
    return Choice(taken=taken, labels=labels, splits=splits, problems=tuple(problems))


def _labels(path: str, columns: Columns, request: OpenRequest, image: str) -> tuple[str, ...]:
    """The columns that label the images: the target columns, several of 0 and 1, or one of classes."""
    asked = request.label_column if request.target_column is None else request.target_column
    if asked is None or asked in columns.names:
        return (_label(path, columns, asked, image),)
    names = [name.strip() for name in asked.split(",")]
    found = tuple(dict.fromkeys(_asked(path, columns, name) for name in names))
    if len(found) < len(names):
        option = "--label-column" if request.target_column is None else "--target-column"
        raise DataError(f"{path}: {option} names a column twice: {asked}", "name each column once")
    if image in found:
        raise DataError(f"{path}: column {image} holds the images", f"remove {image} from the list")
    return found


def image_column(path: str, columns: Columns, asked: str | None) -> str:
    """The image column. Raises: DataError if it does not exist or the choice is ambiguous."""
    if asked is not None:
        return _asked(path, columns, asked)
    # Bytes are images beyond doubt; a path next to them says where they once were.
    candidates = list(columns.pictures) or [name for name in columns.names if name in columns.values]
    found = _by_name(candidates, IMAGE_COLUMNS)
    if found is None and len(columns.pictures) == 1:
        found = candidates[0]
    if found is None:
        found = _by_name(candidates, LAST_RESORT_IMAGE)
    if found is None:
        raise _which(path, columns, "image", "--image-column")
    return found


def _label(path: str, columns: Columns, asked: str | None, image: str) -> str:
    if asked is not None:
        return _asked(path, columns, asked)
    candidates = [name for name in columns.names if name != image and name not in columns.pictures]
    found = _by_name(candidates, LABEL_COLUMNS)
    if found is not None:
        return found
    left = [name for name in candidates if plain_name(name) not in (*SPLIT_COLUMNS, *FLAGS)]
    if len(left) == 1 and plain_name(left[0]) in LAST_RESORT_LABEL:
        return left[0]
    spread = _one_hot(columns, left)
    if spread:
        raise DataError(
            f"{path} has a column for each class ({_listed(spread)}), holding 0 or 1",
            f"pass them with --label-column {shlex.quote(','.join(spread))}",
        )
    raise _which(path, columns, "label", "--label-column")


def _one_hot(columns: Columns, candidates: Sequence[str]) -> list[str]:
    """The columns of 0 and 1 that hold a 1 in each row together; several of them, else none."""
    numbers = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}
    found = [
        name
        for name in candidates
        if name in columns.values and all(str(value).strip() in numbers for value in columns.values[name])
    ]
    rows = zip(*(columns.values[name] for name in found), strict=True)
    each = all(sum(numbers[str(value).strip()] for value in row) >= 1 for row in rows)
    return found if len(found) > 1 and each else []


def _by_name(candidates: Sequence[str], usual: Sequence[str]) -> str | None:
    by_plain = {plain_name(name): name for name in reversed(candidates)}
    return next((by_plain[name] for name in usual if name in by_plain), None)


def _asked(path: str, columns: Columns, asked: str) -> str:
    if asked in columns.names:
        return asked
    raise DataError(
        f"{path} has no column {asked!r}{near_text(asked, columns.names)}",
        f"use one of its columns: {', '.join(columns.names)}",
    )


def _which(path: str, columns: Columns, what: str, option: str) -> DataError:
    return DataError(
        f"{path}: cannot tell which column holds the {what} (columns: {', '.join(columns.names)})",
        f"pass it with {option}",
    )


def _split(
    path: str, columns: Columns, asked: str | None, used: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str] | None]:
    """The columns that say the split, and the split of each row."""
    if asked is not None:
        name = _asked(path, columns, asked)
        splits = _splits_of(name, columns.values.get(name, ()), known_alone=False) or _flagged(
            columns, [name]
        )
        if splits is None:
            raise DataError(
                f"{path}: column {name} holds {_values(columns, name)}, which does not say which rows are "
                "for training and which for validation",
                "write train and val (or test) into it",
            )
        return (name,), splits
    candidates = [name for name in columns.names if name in columns.values and name not in used]
    named = sorted(candidates, key=lambda name: plain_name(name) not in SPLIT_COLUMNS)
    for name in named:
        unsure = plain_name(name) not in SPLIT_COLUMNS
        splits = _splits_of(name, columns.values[name], known_alone=unsure)
        if splits is not None:
            return (name,), splits
    flags = [name for name in candidates if plain_name(name) in FLAGS]
    splits = _flagged(columns, flags)
    return (tuple(flags), splits) if splits is not None else ((), None)


def split_word(value: Any) -> str:
    """ "train", "val" or "test" for their usual spellings, "" for nothing, else the value itself."""
    if value is None or value != value:
        return ""
    text = str(value).strip()
    word = plain_name(text)
    return _WORDS.get(word) or _WORDS.get(word.removesuffix("set")) or text.lower()


def _splits_of(name: str, values: Sequence[Any], *, known_alone: bool) -> list[str] | None:
    """The split of each row, if there is one to train on and another; known_alone: and all are known words."""
    found = [split_word(value) for value in values]
    there = set(found) - {""}
    if "train" not in there or len(there) < 2 or (known_alone and not there <= set(SPLITS)):
        return None
    return found


def _flagged(columns: Columns, flags: Sequence[str]) -> list[str] | None:
    """The split of each row by columns such as is_valid; None if they hold anything but yes and no."""
    flagged: dict[str, list[bool | None]] = {}
    for name in flags:
        values = [_flag(value) for value in columns.values.get(name, ())]
        if plain_name(name) not in FLAGS or None in values:
            return None
        flagged[plain_name(name)] = values
    if not flagged:
        return None
    found = [
        _split_by_flags({name: values[row] for name, values in flagged.items()}) for row in range(len(values))
    ]
    return found if "train" in found and len(set(found)) > 1 else None


def _flag(value: Any) -> bool | None:
    text = str(value).strip().lower().removesuffix(".0")
    return True if text in _YES else False if text in _NO else None


def _split_by_flags(row: Mapping[str, bool | None]) -> str:
    if any(row.get(name) for name in TEST_FLAGS):
        return "test"
    if any(row.get(name) for name in VAL_FLAGS):
        return "val"
    if any(row.get(name) is False for name in TRAIN_FLAGS):
        return "test" if any(name in row for name in VAL_FLAGS) else "val"
    return "train"


def _unused_splits(
    path: str, columns: Columns, used: tuple[str, ...], split: tuple[str, ...]
) -> list[Problem]:
    """Report unused columns that look like a split."""
    problems = []
    for name in columns.names:
        if name in (*used, *split) or name not in columns.values:
            continue
        if plain_name(name) not in (*SPLIT_COLUMNS, *FLAGS) and (
            _splits_of(name, columns.values[name], known_alone=True) is None
        ):
            continue
        holds = f"{path}: column {name} holds {_values(columns, name)} and is not used"
        if split:
            message = f"{holds}: the split comes from {' and '.join(split)}"
            problems.append(
                Problem(severity="note", message=message, fix=f"pass --split-column {name!r} to use it")
            )
        else:
            message = f"{holds}: it does not say which rows are for training and which for validation"
            fix = "write train and val into a column, and pass it with --split-column"
            problems.append(Problem(severity="warning", message=message, fix=fix))
    return problems


def _values(columns: Columns, name: str) -> str:
    if name not in columns.values:
        return "images" if name in columns.pictures else "lists"
    return _listed(dict.fromkeys(map(str, columns.values[name])))


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    shown = [repr(name) for name in list(names)[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
