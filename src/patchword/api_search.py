"""`pw.search`: find the images of an index that are nearest to others."""

from typing import TYPE_CHECKING, Any

from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.python_words import in_python
from patchword.retrieval.index import Index
from patchword.retrieval.nearest import Metric

if TYPE_CHECKING:
    from pathlib import Path

    from patchword.formats.facts import Options
    from patchword.inference.model import Model
    from patchword.retrieval.found import Found


@in_python
def search(
    index: "Index | str | Path",
    source: Any,
    *,
    top: int | None = None,
    metric: Metric = "cosine",
    weights: "Model | str | Path | None" = None,
    device: str | None = None,
    options: "Options | None" = None,
    offline: bool = False,
    split: str | None = None,
    split_seed: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_level: int | None = None,
    value_range: ValueRange | None = None,
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> "Found | list[Found]":
    """Find the images of an index that are nearest to one image (returns a Found) or to many (returns a list).

    index: a file of `patchword embed`, or `Index.read` of it, which is faster for several searches. source and the options
    of data sets: as in `Model.predict`. top: images per source; None for 10, or all of a smaller index. metric: "cosine", "dot" or
    "l2". weights: the model that made the index; None loads the one that it names, as `load` does with device, options and
    offline. value_range: of float and 16-bit sources, if it differs from the index's.
    Raises: DataError for a file that is not an index; CheckpointError if other weights made it; ImageError if a single
        image is unreadable (among many, its own Found holds the error); SettingsError for a `top` above the index.
    """
    from patchword.errors import SettingsError
    from patchword.inference.inputs import many_of
    from patchword.inference.model import Model
    from patchword.inference.search import model_of_index, search_each
    from patchword.inference.sources import reading_of

    if isinstance(weights, Model) and (device is not None or options is not None):
        raise SettingsError(
            "device and options do not apply to a model that is already loaded", "remove device and options"
        )
    stored = index if isinstance(index, Index) else Index.read(index)
    reading = reading_of(split, split_seed, image_column, label_column, split_column, class_level, max_pixels)
    model = model_of_index(stored, weights, device=device, options=options, offline=offline)
    many = many_of(source, reading, model.provenance)
    found = list(
        search_each(
            stored,
            model,
            [source] if many is None else many,
            top=min(10, len(stored)) if top is None else top,
            metric=metric,
            value_range=value_range,
            batch_size=batch_size,
            max_pixels=max_pixels,
        )
    )
    if many is not None:
        return found
    if found[0].failure is not None:
        raise found[0].failure
    return found[0]
