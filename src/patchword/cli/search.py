"""`patchword search`: find the nearest images in an index."""

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from patchword import machine
from patchword.cli.console import say
from patchword.cli.given_images import Images
from patchword.cli.loading import report_loading
from patchword.cli.model_options import given_options, model_options
from patchword.cli.options import device_option, given_reading, image_set_options, offline_option
from patchword.errors import SettingsError, escape_surrogates, near_text, one_line, plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.retrieval.found import Found

ROWS = ("txt", "json", "jsonl", "csv", "parquet")
PICTURES = ("png", "html")
COLUMNS = ("file", "error", "rank", "found", "row", "score")


@click.command()
@click.argument("index")
@click.argument("files", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Images found per image. [default: 10]")
@click.option(
    "--metric",
    type=click.Choice(("cosine", "dot", "l2")),
    default="cosine",
    show_default=True,
    help="Cosine, dot product, or Euclidean distance.",
)
@click.option("--weights", metavar="MODEL", help="Model that made INDEX. [default: as INDEX says]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print one JSON object per image as results arrive.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line, a row per image found.")
@click.option(
    "--out",
    "output",
    metavar="FILE",
    help="Write to FILE: .png or .html shows the images; or .txt, .json, .jsonl, .csv or .parquet.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images per batch. [default: chosen for the machine]"
)
@device_option
@offline_option
@model_options
@image_set_options
def search(
    index: str,
    files: tuple[str, ...],
    top: int | None,
    metric: Any,
    weights: str | None,
    as_json: bool,
    as_jsonl: bool,
    as_csv: bool,
    output: str | None,
    batch_size: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Find the images of INDEX that are nearest to each image given.

    \b
    INDEX   a file of `patchword embed` (.npy or .parquet)
    FILES…  images, folders, zips, tables (CSV, TSV, JSONL, Parquet), patterns,
            lists of paths (.txt); - reads paths or one image from standard input

    \b
    patchword embed runs/flowers garden/ --out garden.npy
    patchword search garden.npy photo.jpg --top 5 --out found.png

    Images are embedded as INDEX was: same weights, part, layer, norm and preprocessing. Every vector is
    compared. An unreadable image gets a row with the reason; the exit code is then 3.
    """
    machine.start_sampling()
    kind = _kind({"json": as_json, "jsonl": as_jsonl, "csv": as_csv}, output)
    given = Images(files, given_reading())
    machine.tune_allocator()
    from patchword.inference.search import model_of_index, search_each
    from patchword.retrieval.index import Index

    stored = Index.read(index)
    top = min(10, len(stored)) if top is None else top
    stored.check_top(top)
    model = model_of_index(stored, weights, device=device, options=given_options(), offline=offline)
    report_loading(model.report)
    found = Counted(
        search_each(
            stored,
            model,
            given.known_to(model),
            top=top,
            metric=metric,
            value_range=value_range,
            batch_size=batch_size,
            max_pixels=given.reading.opening.max_pixels,
        )
    )
    if kind in PICTURES:
        _picture(stored, found, Path(str(output)), value_range)
    else:
        _rows(found, kind, output)
    found.check()


class Counted:
    """Passes results on, and counts the images that could not be read."""

    def __init__(self, found: "Iterable[Found]") -> None:
        from patchword.inference.failures import Failures

        self._found, self._failures, self._count = found, Failures(), 0

    def __iter__(self) -> "Iterator[Found]":
        for one in self._found:
            self._count += 1
            if one.failure is not None:
                self._failures.add(one.name, one.failure)
            yield one

    def check(self) -> None:
        """Raises: PartialFailure."""
        self._failures.check(self._count, "searched for")


def _kind(asked: dict[str, bool], output: str | None) -> str:
    """The format. Raises: SettingsError for two, or for an ending that no format has; OutputError."""
    kinds = [kind for kind, is_asked in asked.items() if is_asked]
    if len(kinds) > 1 or (kinds and output is not None):
        names = [f"--{kind}" for kind in kinds] + (["--out"] if output is not None else [])
        raise SettingsError(f"{' and '.join(names)} select different outputs", "give only one of them")
    if output is None:
        return kinds[0] if kinds else "txt"
    from patchword.inference.output import check_place

    ending = Path(output).suffix.lower().lstrip(".")
    if ending not in (*PICTURES, *ROWS):
        problem = f"unknown ending '.{ending}'" if ending else "the name has no ending"
        raise SettingsError(
            f"--out {output}: {problem}{near_text(ending, (*PICTURES, *ROWS))}",
            f"use one of: {', '.join('.' + kind for kind in (*PICTURES, *ROWS))}",
        )
    check_place(Path(output))
    return ending


def _picture(
    index: Any, found: "Iterable[Found]", path: Path, value_range: tuple[float, float] | None
) -> None:
    from patchword.inference.indexed_images import IndexedImages
    from patchword.reports.search_page import SearchPage

    page = SearchPage(index, IndexedImages(index).source, value_range)
    for one in found:
        page.add(one)
    page.write(path)
    say(f"{plural(len(page.results), 'image')} and what was found: {path}")
    if page.left_out:
        say(f"note: {plural(page.left_out, 'more image')} not drawn; use --out FILE.csv for all")
    if page.unread:
        say(
            f"warning: {plural(page.unread, 'image')} of the index cannot be opened here; only the names are shown"
        )


def _rows(found: "Iterable[Found]", kind: str, output: str | None) -> None:
    from patchword.inference.output import whole_file

    with ExitStack() as stack:
        stream: IO[Any] = sys.stdout
        if output is not None:
            stream = stack.enter_context(whole_file(Path(output), text=kind != "parquet"))
        _WRITERS[kind](found, stream)
        stream.flush()


def _write_text(found: "Iterable[Found]", stream: IO[str]) -> None:
    for one in found:
        stream.write(f"{one_line(one.name)}\n")
        if one.error:
            stream.write(f"  error: {one_line(one.error)}\n")
        for hit in one.hits:
            stream.write(f"{hit.rank:>4}  {hit.score:>8.4f}  {one_line(hit.name)}\n")


def _write_json(found: "Iterable[Found]", stream: IO[str]) -> None:
    begun = False
    for one in found:
        stream.write((",\n " if begun else "[\n ") + to_json(one.to_dict()))
        begun = True
    stream.write("\n]\n" if begun else "[]\n")


def _write_jsonl(found: "Iterable[Found]", stream: IO[str]) -> None:
    for one in found:
        stream.write(to_json(one.to_dict()) + "\n")
        stream.flush()  # a program that reads the pipe gets each line as it arrives


def _table(found: "Iterable[Found]") -> Iterator[dict[str, Any]]:
    for one in found:
        if one.error:
            yield {"file": one.name, "error": one.error}
        for hit in one.hits:
            yield {"file": one.name, "rank": hit.rank, "found": hit.name, "row": hit.row, "score": hit.score}


def _write_csv(found: "Iterable[Found]", stream: IO[str]) -> None:
    table = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    for row in _table(found):
        if stream.isatty():  # files and pipes get the exact names
            row = {k: one_line(v) if isinstance(v, str) else v for k, v in row.items()}
        table.writerow(row)


def _write_parquet(found: "Iterable[Found]", stream: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"rank": pa.int32(), "row": pa.int64(), "score": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    rows = [
        {k: escape_surrogates(v) if isinstance(v, str) else v for k, v in row.items()}
        for row in _table(found)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), stream)


_WRITERS: dict[str, Any] = {
    "txt": _write_text,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
