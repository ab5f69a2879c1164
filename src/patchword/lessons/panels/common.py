"""What several panels need."""

from typing import Any

from patchword.lessons.panel import NotForThisModel
from patchword.lessons.subject import Subject
from patchword.lessons.words import Text, same

IMAGE = Text("image", "图片")
PATCHES = Text("patches", "patch")
TOKENS = Text("tokens", "token")
LOGITS = Text("logits", "logits")
BLOCK = Text("block", "block")
CHOOSE = Text("Choose a patch", "选一个 patch")
DISTANCE = Text("distance in patches", "距离(patch)")


def shape(x: Any) -> str:
    """ "[1, 16, 48]" """
    return "[" + ", ".join(map(str, x.shape)) + "]"


def need_answers(subject: Subject) -> None:
    """Raises: NotForThisModel without a trained head."""
    if not subject.has_answers:
        raise NotForThisModel(
            Text("The model has no trained classification head.", "这个模型没有训练好的分类头。")
        )


def need_grid(subject: Subject, fewest: int = 4) -> None:
    """Raises: NotForThisModel for fewer patches."""
    patches = subject.vit.layout(subject.image).num_patches
    if patches < fewest:
        raise NotForThisModel(
            Text(f"The image has only {patches} patches.", f"这张图片只有 {patches} 个 patch。")
        )


def some_patches(subject: Subject, most: int = 16) -> list[tuple[int, Text]]:
    """Up to `most` patches, evenly spaced in the grid: the index of each among all, and its name."""
    rows, columns = subject.vit.layout(subject.image).grid
    side = max(int(most**0.5), 1)
    down, across = -(-rows // side), -(-columns // side)
    places = [
        (row, column)
        for row in range(down // 2, rows, down)
        for column in range(across // 2, columns, across)
    ]
    return [(row * columns + column, same(f"patch ({row}, {column})")) for row, column in places]


def middle_patch(subject: Subject) -> int:
    """The index, among the patches, of the one in the middle of the image."""
    rows, columns = subject.vit.layout(subject.image).grid
    return rows // 2 * columns + columns // 2
