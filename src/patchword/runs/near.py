"""The near duplicates of a data set, for `check`."""

from collections.abc import Callable
from pathlib import Path

from patchword.data.check import CheckReport
from patchword.data.near import near_by_thumbs, with_near_duplicates
from patchword.images.preprocess import ValueRange


def near_report(
    report: CheckReport,
    weights: str | Path | None,
    *,
    value_range: ValueRange | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """The report, made with `thumbs`, with its near duplicates: by thumbnails, or by the embeddings of a model.

    progress: called with (images embedded, images). Raises: CheckpointError.
    """
    if weights is None:
        return with_near_duplicates(report, near_by_thumbs(report.looks))
    from patchword.inference.load import load
    from patchword.inference.near import near_by_model

    found = near_by_model(report, load(weights), value_range=value_range, progress=progress)
    return with_near_duplicates(report, found)
