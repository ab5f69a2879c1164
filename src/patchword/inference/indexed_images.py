"""The images of an index, read again to be shown."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from patchword.data.loader import Named
from patchword.errors import DataError, ImageError
from patchword.images.decode import Source
from patchword.inference.sources import expand
from patchword.retrieval.index import Index


class IndexedImages:
    """Finds the images of an index again: by path, in the folder where `embed` ran, or in the data sets that were given to it."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def source(self, name: str) -> Source | None:
        """The image of this name; None if it is no longer there."""
        for path in (name, os.path.join(self.index.card.folder, name)):
            if os.path.isfile(path):
                return path
        named = self._listed.get(name)
        try:
            return None if named is None else named.fetch()
        except (ImageError, DataError, OSError):
            return None

    @cached_property
    def _listed(self) -> Mapping[str, Named]:
        """Members of zips and rows of tables, by name."""
        found: dict[str, Named] = {}
        for file in self.index.card.files:
            path = next(
                (p for p in (file, os.path.join(self.index.card.folder, file)) if os.path.exists(p)), None
            )
            if path is None or Path(path).is_dir():
                continue
            try:
                found |= {item.name: item for item in expand([path]) if isinstance(item, Named)}
            except (DataError, ImageError):
                continue
        return found
