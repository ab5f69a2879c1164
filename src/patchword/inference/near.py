"""Near duplicates of a data set by the embeddings of a model."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from patchword.data.check import CheckReport
from patchword.data.loader import Named
from patchword.data.near import NearDuplicates, near_by_vectors
from patchword.images.preprocess import ValueRange
from patchword.inference.model import Model
from patchword.inference.parts import choose_part


def near_by_model(
    report: CheckReport,
    model: Model,
    *,
    value_range: ValueRange | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Embed the readable images of a report that was made with `thumbs`, and compare them.

    Images that became unreadable since, or exceed the model's limits, are not compared and counted.
    """
    readable = [look for look in report.looks if not look.reason]
    splits = report.dataset.splits
    compute = model.part(choose_part(model.config))

    def sources() -> Iterator[Named]:
        for look in readable:
            split = splits[look.split]
            yield Named(name=split.names[look.index], source=partial(split.source, look.index))

    kept, rows = [], []
    most = max((split.max_pixels for split in splits.values()), default=1)
    for answer in model.answers(
        sources(), compute, count=len(readable), value_range=value_range, max_pixels=most
    ):
        if answer.values is not None:
            kept.append(readable[answer.index])
            rows.append(answer.values)
        if progress is not None:
            progress(answer.index + 1, len(readable))
    vectors = np.stack(rows) if rows else np.empty((0, 1), np.float32)
    return near_by_vectors(kept, vectors, not_compared=len(readable) - len(kept))
