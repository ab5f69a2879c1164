"""Files next to the images that describe them: tables of labels, and boxes of detection data sets."""

import re
from pathlib import PurePosixPath
from posixpath import basename, splitext

from patchword.data.sources.listing import Folder, Head, Tree
from patchword.data.sources.split_names import words
from patchword.errors import DataError, ImageError

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
LOOKED_AT = 1 << 16
MAX_FILES = 20


def labelling_table(tree: Tree) -> str | None:
    """The table that lists most of the images, by the names in its first lines; None if none lists any."""
    tables = [file for folder in tree.root.walk() for file in folder.others if file.lower().endswith(TABLES)]
    if not tables:
        return None
    names = {basename(image) for image in tree.root.all_images()}
    names |= {splitext(name)[0] for name in names}
    # What labels the training images comes first; a list of the test images is there for answers.
    tables = sorted(tables, key=lambda file: (file.count("/"), file))[:MAX_FILES]
    counts = {file: _count_listed(tree.head, file, names) for file in tables}
    best = max(tables, key=lambda file: (counts[file] > 0, not _is_of_tests(file), counts[file]))
    return best if counts[best] else None


def _is_of_tests(table: str) -> bool:
    return any(word in ("submission", "test") for word in words(PurePosixPath(table).stem))


def _count_listed(head: Head, file: str, names: set[str]) -> int:
    """How many images that are there a table's first rows name; 0 if fewer than half of the rows name one of its own."""
    lines = _text(head, file).splitlines()[:2000]
    if not file.lower().endswith((".jsonl", ".ndjson")):
        lines = lines[1:]
    cells = [re.split(r'[,;\t|"]+', line) for line in lines]
    listed = {
        name for row in cells for cell in row if (name := re.split(r"[\\/]", cell.strip())[-1]) in names
    }
    return len(listed) if 2 * len(listed) >= len(lines) else 0


class DetectionData(DataError):
    """Data of boxes, opened as images with one class each."""


def refuse_detection(tree: Tree, path: str) -> None:
    """Raises: DetectionData if there are boxes next to the images."""
    boxes = _boxes(tree)
    if boxes is None:
        return
    read = (
        "export its boxes as COCO JSON, Pascal VOC or YOLO"
        if boxes.startswith("LabelMe")
        else "check its boxes with `patchword check`"
    )
    raise DetectionData(
        f"{path} is a detection data set ({boxes}), but patchword classifies complete images",
        f"give a folder for each class, or a table with one image and class per row; {read}",
    )


def _boxes(tree: Tree) -> str | None:
    """The layout of boxes and one of its files, if there are such."""
    others = [file for folder in tree.root.walk() for file in folder.others]
    stems = {splitext(basename(image))[0] for image in tree.root.all_images()}
    for suffix, pattern, name in (
        (".txt", r"\A\d+( +[-+.\deE]+){4,}\s*$", "YOLO"),
        (".xml", r"<annotation|<object>", "VOC"),
        (".json", r'"shapes"', "LabelMe"),
    ):
        files = [f for f in others if f.lower().endswith(suffix) and PurePosixPath(f).stem in stems]
        if 2 * len(files) < len(stems):
            continue
        if any(re.search(pattern, _text(tree.head, file), re.MULTILINE) for file in files[:MAX_FILES]):
            return f"{name}, e.g. {files[0]}"
    for file in [f for f in others if f.lower().endswith(".json")][:MAX_FILES]:
        if re.search(r'"(annotations|categories|bbox)"\s*:', _text(tree.head, file)):
            return f"COCO, e.g. {file}"
    return None


def archives(folder: Folder) -> list[str]:
    """Archives found instead of images."""
    endings = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
    return [file for place in folder.walk() for file in place.others if file.lower().endswith(endings)]


def _text(head: Head, file: str) -> str:
    try:
        return head(file, LOOKED_AT).decode("utf-8-sig", "replace")
    except (OSError, ImageError):
        return ""
