"""The kinds of data that patchword reads, in the order in which they are asked.

A new kind is a file next to this one with `DESCRIPTION`, `recognises(path)` and
`read(path, request)`, and a line here.
"""

from typing import Protocol

from patchword.data.dataset import Dataset
from patchword.data.request import OpenRequest
from patchword.data.sources import digits, folder, table, zipped


class DataSource(Protocol):
    DESCRIPTION: str

    def recognises(self, path: str) -> bool: ...

    def read(self, path: str, request: OpenRequest) -> Dataset: ...


SOURCES: tuple[DataSource, ...] = (digits, folder, zipped, table)
