"""CSV, TSV and JSON lines as columns."""

import csv
import io
import json
from collections.abc import Callable

from patchword.data.sources.table_columns import Columns
from patchword.data.sources.table_paths import is_image_name
from patchword.errors import DataError, plural

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# First bytes of files that are not text despite their extension.
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel workbook or a zip",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
}


def parse_text(name: str, content: bytes, is_there: Callable[[str], bool]) -> Columns:
    """is_there: whether a path names an image; with it a table without a header line is known.

    Raises: DataError that says what is wrong, and on which line.
    """
    text = _decoded(name, content)
    if name.lower().endswith((".jsonl", ".ndjson")):
        return _parse_json_lines(name, text)
    delimiter = "\t" if name.lower().endswith(".tsv") else _delimiter(text)
    # A blank after the comma belongs neither to a name nor to a path.
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: {error}", "check for an unclosed quote") from error
    if rows:
        _refuse_without_header(name, rows, is_there)
    if len(rows) < 2:
        raise DataError(
            f"{name} has {plural(len(rows), 'line')}, but no images",
            "give a header line and one line per image",
        )
    header = [column.strip() for column in rows[0]]
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"{name} has two columns named {twice!r}", "rename one of them")
    ragged = next((i for i, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if ragged is not None:
        raise DataError(
            f"{name}, line {ragged}: {len(rows[ragged - 1])} values, but the header has {len(header)}",
            "fix this line",
        )
    return Columns(
        names=header,
        num_rows=len(rows) - 1,
        values={c: [row[i] for row in rows[1:]] for i, c in enumerate(header)},
    )


def _decoded(name: str, content: bytes) -> str:
    if content.startswith(_UTF16):
        raise DataError(f"{name} is UTF-16 text", "save the table as UTF-8")
    for start, kind in _OTHER_KINDS.items():
        if content.startswith(start):
            raise DataError(f"{name} is {kind}, not text", "save the table as CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error})", "save the table as UTF-8") from error
    if text.lstrip()[:9].lower().startswith(("<!doctype", "<html")):
        raise DataError(f"{name} is an HTML page, not a table", "download the table itself")
    return text


def _refuse_without_header(name: str, rows: list[list[str]], is_there: Callable[[str], bool]) -> None:
    """Raises: DataError if the first line is an image and its label already."""
    for place, cell in enumerate(rows[0]):
        text = cell.strip()
        spellings = (text, text.replace("\\", "/"), text.split(" ")[0])
        below = [row[place] for row in rows[1:3] if place < len(row)]
        if any(is_image_name(s) and is_there(s) for s in spellings):
            what = f"the path of an existing image ({text})"
        elif is_image_name(text) and below and all(is_image_name(b.strip()) for b in below):
            what = f"the path of an image ({text})"
        else:
            continue
        columns = {1: "image", 2: "image,label", 3: "image,label,extra"}.get(len(rows[0]), "image,label,…")
        raise DataError(
            f"{name}: the first line holds {what}, so the table has no header line",
            f"add a header line with the column names, e.g. {columns}",
        )


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t|", key=header.count)


def _parse_json_lines(name: str, text: str) -> Columns:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if text.lstrip().startswith("["):
                raise DataError(
                    f"{name} is one JSON list, not one object per line",
                    'write {"image": …, "label": …} on each line',
                ) from error
            raise DataError(f"{name}, line {number} is not valid JSON ({error})", "fix this line") from error
        if not isinstance(row, dict):
            raise DataError(f"{name}, line {number} is not a JSON object", 'write {"image": …, "label": …}')
        rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        raise DataError(f"{name} has no rows", "give one JSON object per line")
    return Columns(names=names, num_rows=len(rows), values={c: [row.get(c) for row in rows] for c in names})
