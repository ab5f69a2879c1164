"""Parquet with image bytes in it: labels at once, images a row group at a time."""

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from patchword.data.sources.table_columns import Columns
from patchword.data.stamps import Stamp, file_stamp
from patchword.errors import DataError, ImageError

# Row groups that stay in memory; images are read in order or nearly so.
KEPT_GROUPS = 4


def read_parquet(path: str) -> Columns:
    """All columns but image bytes and records. Raises: DataError if the file is not valid Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
        schema = file.schema_arrow
        kinds = {name: schema.field(name).type for name in schema.names}
        pictures = [name for name, kind in kinds.items() if _holds_bytes(kind)]
        # Lists of plain values may be the classes of an image; lists of records are not.
        lists = [
            name
            for name, kind in kinds.items()
            if pa.types.is_nested(kind) and not _is_plain_list(kind) and name not in pictures
        ]
        plain = [name for name in kinds if name not in pictures and name not in lists]
        table = file.read(columns=plain)
        examples = {name: _first(file, name) for name in lists}
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read it", "change its permissions") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet ({error})", "create or download it again"
        ) from error
    return Columns(
        names=schema.names,
        num_rows=file.metadata.num_rows,
        values={name: table.column(name).to_pylist() for name in plain},
        lists=examples,
        pictures={name: RowGroups(path, name) for name in pictures},
        class_names=_class_names(schema.metadata),
    )


def _is_plain_list(kind: Any) -> bool:
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    # Floats are rather embeddings or boxes.
    return bool(is_list and (pa.types.is_string(kind.value_type) or pa.types.is_integer(kind.value_type)))


def _first(file: Any, name: str) -> str:
    """The first value of a column of lists, as text."""
    for batch in file.iter_batches(
        batch_size=1, row_groups=[0] if file.num_row_groups else [], columns=[name]
    ):
        text = repr(batch.column(0)[0].as_py())
        return text if len(text) <= 60 else text[:60] + "…"
    return "[]"


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names that Hugging Face's datasets write next to each ClassLabel column."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        # A Sequence of ClassLabels keeps them one level deeper.
        inner = {c: f.get("feature", f) if isinstance(f, dict) else f for c, f in features.items()}
        found = {c: f["names"] for c, f in inner.items() if isinstance(f, dict) and "names" in f}
        return {column: [str(name) for name in names] for column, names in found.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


class RowGroups:
    """The image bytes at a row, or its path if it has no bytes; keeps the last few row groups, safe in threads."""

    def __init__(self, path: str, column: str) -> None:
        self.path, self.column = path, column
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._file: Any = None
        self._starts: Any = None
        self._is_complete: bool | None = None

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.column)

    def __call__(self, row: int) -> bytes | str:
        with self._lock:
            values, start = self._group_of(row)
        value = values[row - start].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data and isinstance(value, dict) and value.get("path"):
            return str(Path(self.path).parent / value["path"])
        if not data:
            raise ImageError(f"{self.path}, row {row}: no image bytes", "remove this row")
        return bytes(data)

    def stamp(self, row: int) -> Stamp | None:
        """Of the whole file, whatever the row; None if rows may name other files."""
        if self._is_complete is None:
            with self._lock:
                self._is_complete = self._has_all_bytes()
        return file_stamp(self.path) if self._is_complete else None

    def _has_all_bytes(self) -> bool:
        """Whether the file's statistics say that no row lacks the bytes of its image."""
        metadata = self._opened().metadata
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            for column in columns:
                if column.path_in_schema in (self.column, f"{self.column}.bytes"):
                    statistics = column.statistics
                    if statistics is None or not statistics.has_null_count or statistics.null_count:
                        return False
        return True

    def _opened(self) -> Any:
        if self._file is None:
            import pyarrow.parquet as pq

            self._file = pq.ParquetFile(self.path, memory_map=True)
            metadata = self._file.metadata
            counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._starts = np.concatenate([[0], np.cumsum(counts)])
        return self._file

    def _group_of(self, row: int) -> tuple[Any, int]:
        file = self._opened()
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group not in self._groups:
            self._groups[group] = file.read_row_group(group, columns=[self.column]).column(0)
            if len(self._groups) > KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(group)
        return self._groups[group], int(self._starts[group])
