"""Writers of detected boxes: readable lines, JSON, CSV and Parquet, to standard output or to a file."""

import csv
import os
from typing import IO, Any, Protocol

from patchword.errors import escape_surrogates, one_line, plural
from patchword.inference.detections import SIDES, Detections
from patchword.settings import to_json

# A row for each box. Read as annotations, rows without a box are images without objects.
COLUMNS = {
    "file": "string",
    "error": "string",
    "width": "int32",
    "height": "int32",
    "class": "string",
    "id": "int64",
    "score": "double",
    **dict.fromkeys(SIDES, "double"),
}
_LONGEST_NAME = 32


class BoxWriter(Protocol):
    def add(self, found: Detections) -> None: ...

    def close(self) -> None: ...


def make_box_writer(kind: str, stream: IO[Any]) -> BoxWriter:
    match kind:
        case "json":
            return _Json(stream)
        case "jsonl":
            return _JsonLines(stream)
        case "csv":
            return _Csv(stream)
        case "parquet":
            return _Parquet(stream)
        case _:
            return _Lines(stream)


class _Lines:
    """The image on one line, then each of its boxes: class, score, left, top, right, bottom."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.colour = stream.isatty() and not os.environ.get("NO_COLOR")

    def add(self, found: Detections) -> None:
        name = self._paint(one_line(found.name), "1")
        if found.size is None:
            self.stream.write(f"{name}   {self._paint(f'error: {one_line(found.error)}', '31')}\n")
            return
        height, width = found.size
        self.stream.write(f"{name}   {width} x {height}   {plural(len(found), 'object')}\n")
        names = list(map(one_line, found.names))
        room = min(max(map(len, names), default=0), _LONGEST_NAME)
        for label, score, box in zip(names, found.scores.tolist(), found.boxes.tolist(), strict=True):
            sides = " ".join(f"{side:8.1f}" for side in box)
            self.stream.write(f"  {label:<{room}}  {score:.2f}  {sides}\n")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def close(self) -> None:
        self.stream.flush()


class _JsonLines:
    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def add(self, found: Detections) -> None:
        self.stream.write(to_json(found.to_dict()) + "\n")
        self.stream.flush()  # a program that reads the pipe gets each line as it arrives

    def close(self) -> None:
        self.stream.flush()


class _Json:
    """One JSON array, written incrementally, so that memory stays constant."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.begun = stream, False

    def add(self, found: Detections) -> None:
        self.stream.write((",\n " if self.begun else "[\n ") + to_json(found.to_dict()))
        self.begun = True

    def close(self) -> None:
        self.stream.write("\n]\n" if self.begun else "[]\n")
        self.stream.flush()


def rows_of(found: Detections) -> list[dict[str, Any]]:
    """A row for each box; of an image without boxes, or one that could not be read, a single row without a box."""
    plain = found.to_dict()
    image: dict[str, Any] = {"file": found.name, "error": found.error}
    if found.size is not None:
        image |= {"width": plain["width"], "height": plain["height"]}
    return [image | one for one in plain.get("objects", [])] or [image]


class _Csv:
    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.table = csv.DictWriter(stream, list(COLUMNS), restval="", lineterminator="\n")
        self.table.writeheader()

    def add(self, found: Detections) -> None:
        for row in rows_of(found):
            if self.stream.isatty():  # files and pipes get the exact names
                row = {k: one_line(v) if isinstance(v, str) else v for k, v in row.items()}
            self.table.writerow(row)

    def close(self) -> None:
        self.stream.flush()


class _Parquet:
    """Rows written in groups, so that memory stays constant."""

    ROWS = 8192

    def __init__(self, stream: IO[bytes]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
        self.table = pq.ParquetWriter(stream, self.schema)
        self.rows: list[dict[str, Any]] = []

    def add(self, found: Detections) -> None:
        for row in rows_of(found):
            self.rows.append({k: escape_surrogates(v) if isinstance(v, str) else v for k, v in row.items()})
        if len(self.rows) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self.table.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows.clear()

    def close(self) -> None:
        self._flush()
        self.table.close()
