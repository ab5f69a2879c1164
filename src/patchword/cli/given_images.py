"""The images that a command names."""

import sys
from typing import TYPE_CHECKING, Any

from patchword.cli.console import say

if TYPE_CHECKING:
    from patchword.inference.sources import Reading


class Images:
    """The images given on the command line. Errors are reported before a model is loaded, if possible.

    total: number of images, if known. width: length of the longest name.
    """

    def __init__(self, files: tuple[str, ...], reading: "Reading") -> None:
        self.files, self.reading = files, reading
        self.total: int | None = None
        self.width = 40
        self._sources = self._read() if reading.split is None else None

    def known_to(self, model: Any) -> Any:
        """The sources. With --split, the split is the one made when this model was trained; None for no model."""
        from dataclasses import replace

        if self._sources is None:
            self.reading = replace(self.reading, origin=None if model is None else model.provenance)
            self._sources = self._read()
        return self._sources

    def _read(self) -> Any:
        from patchword.inference.sources import STDIN, expand, from_stream

        if self.files != (STDIN,) or self.reading.split is not None:
            found = expand(self.files, self.reading)
            for note in found.notes:
                say(f"note: {note}")
            self.total, self.width = len(found), found.longest_name
            return found
        given = from_stream(sys.stdin.buffer)  # type: ignore[arg-type]
        if isinstance(given, bytes):
            self.total, self.width = 1, len("image")
            return [given]
        return given
