"""The boxes of a split: for each image any number of objects, each with its place and class.

Shapes: N images, M boxes of all images together, C classes. Corners are [left, top, right, bottom] in pixels of the
upright image, as floats: the left edge of the image is 0 and its right edge is its width.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[int] | NDArray[np.int64]
# Of an image, annotation or class, as its file has it.
Id = int | str


@dataclass(frozen=True, kw_only=True)
class ImageBoxes:
    """The B boxes of one image; B may be 0.

    corners [B, 4] float64, labels [B] int64 (an index into the data set's classes), crowd [B] bool (a group of objects
    in one box, which is neither an object to find nor background), difficult [B] bool (an object that is learned, but need
    not be found: VOC's `difficult`, `ignore` in COCO files), areas [B] float64 in square pixels. size: (h, w) of the upright
    image.
    """

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: tuple[Id, ...]
    size: tuple[int, int]
    image_id: Id

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unscored(self) -> NDArray[np.bool_]:
        """[B]: boxes that need not be found."""
        return self.crowd | self.difficult


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """The boxes of N images, those of one image after those of the image before.

    starts [N + 1] int64: image i has the boxes starts[i] to starts[i + 1]. corners [M, 4], labels [M], crowd [M],
    difficult [M] and areas [M] as in `ImageBoxes`; areas are those of the file (of COCO's masks), else those of the boxes.
    sizes [N, 2] int64: (h, w) of the upright images. ids [M], image_ids [N], class_ids [C]: as in the file, or counted
    from 1 where the format has none.
    """

    starts: NDArray[np.int64]
    corners: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: tuple[Id, ...]
    sizes: NDArray[np.int64]
    image_ids: tuple[Id, ...]
    class_ids: tuple[Id, ...]
    kind: Literal["boxes"] = "boxes"

    def __len__(self) -> int:
        """N."""
        return len(self.image_ids)

    def image(self, index: int) -> ImageBoxes:
        part = slice(int(self.starts[index]), int(self.starts[index + 1]))
        height, width = self.sizes[index].tolist()
        return ImageBoxes(
            corners=self.corners[part],
            labels=self.labels[part],
            crowd=self.crowd[part],
            difficult=self.difficult[part],
            areas=self.areas[part],
            ids=self.ids[part],
            size=(height, width),
            image_id=self.image_ids[index],
        )

    def per_image(self) -> NDArray[np.int64]:
        """[N]: number of boxes."""
        return np.diff(self.starts)

    def owners(self) -> NDArray[np.int64]:
        """[M]: the image of each box."""
        return np.repeat(np.arange(len(self)), self.per_image())

    def box_counts(self, num_classes: int) -> list[int]:
        """Boxes of each class, groups included."""
        return [int(count) for count in np.bincount(self.labels, minlength=num_classes)]

    def present(self, num_classes: int) -> NDArray[np.bool_]:
        """[N, C]: whether each image has each class."""
        found = np.zeros((len(self), num_classes), dtype=np.bool_)
        found[self.owners(), self.labels] = True
        return found

    def counts(self, num_classes: int) -> list[int]:
        """Images that have each class; an image of several counts for each."""
        return [int(count) for count in self.present(num_classes).sum(axis=0)]

    def subset(self, indices: Rows) -> "Boxes":
        chosen = np.asarray(indices, np.int64)
        counts = self.per_image()[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[:-1][chosen], counts)
        return self._taken(rows, starts, chosen)

    def where(self, kept: NDArray[np.bool_]) -> "Boxes":
        """All images with those boxes for which kept [M] is true."""
        counts = np.bincount(self.owners()[kept], minlength=len(self))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return self._taken(np.flatnonzero(kept), starts, np.arange(len(self)))

    def relabelled(self, new_label: NDArray[np.int64], num_classes: int) -> "Boxes":
        """The same boxes with new_label [C] for each class of before, in `num_classes` classes.

        Classes that these data do not have get ids that are free.
        """
        by_label = {int(new): self.class_ids[old] for old, new in enumerate(new_label) if new >= 0}
        free = max((one for one in self.class_ids if isinstance(one, int)), default=0) + 1
        ids: list[Id] = []
        for label in range(num_classes):
            if label not in by_label:
                by_label[label], free = free, free + 1
            ids.append(by_label[label])
        return replace(self, labels=new_label[self.labels], class_ids=tuple(ids))

    def _taken(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], images: NDArray[np.int64]
    ) -> "Boxes":
        return Boxes(
            starts=starts,
            corners=self.corners[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            difficult=self.difficult[rows],
            areas=self.areas[rows],
            ids=tuple(self.ids[i] for i in rows.tolist()),
            sizes=self.sizes[images],
            image_ids=tuple(self.image_ids[i] for i in images.tolist()),
            class_ids=self.class_ids,
        )

    def rows(self, indices: Rows) -> list[ImageBoxes]:
        """The boxes of B images, one entry each."""
        return [self.image(int(index)) for index in indices]

    def key(self, index: int) -> Hashable:
        """Equal for images with the same boxes in the same order."""
        boxes = self.image(index)
        return tuple(part.tobytes() for part in (boxes.corners, boxes.labels, boxes.crowd, boxes.difficult))

    def text(self, index: int, names: Sequence[str]) -> str:
        boxes = self.image(index)
        return "\x1f".join(
            f"{names[label]} {' '.join(f'{value:.2f}' for value in corners)}"
            for label, corners in zip(boxes.labels.tolist(), boxes.corners.tolist(), strict=True)
        )

    def strata(self) -> list[NDArray[np.int64]]:
        """The images with each class, and those without boxes: both sides of a split need some of each."""
        owners = self.owners()
        found = [np.unique(owners[self.labels == label]) for label in np.unique(self.labels)]
        return [rows for rows in (*found, np.flatnonzero(self.per_image() == 0)) if len(rows)]


def joined_boxes(parts: Sequence[Boxes]) -> Boxes:
    """The boxes of several splits of one data set, one after the other. class_ids: of the first."""
    counts = np.concatenate([part.per_image() for part in parts])
    return Boxes(
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        corners=np.concatenate([part.corners for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        difficult=np.concatenate([part.difficult for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        ids=tuple(one for part in parts for one in part.ids),
        sizes=np.concatenate([part.sizes for part in parts]),
        image_ids=tuple(one for part in parts for one in part.image_ids),
        class_ids=parts[0].class_ids,
    )
