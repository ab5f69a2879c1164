"""Writers of predictions: readable lines, JSON, CSV and Parquet, to standard output or atomically to a file."""

import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from patchword.cli.console import percent
from patchword.errors import SettingsError, escape_surrogates, near_text, one_line, plural
from patchword.inference.prediction import Prediction
from patchword.inference.target_scores import DEFAULT_THRESHOLD, Thresholds
from patchword.settings import to_json

FORMATS = ("txt", "json", "jsonl", "csv", "parquet")
_LONGEST_NAME = 48


@dataclass(frozen=True, kw_only=True)
class Several:
    """How a model of several classes is written. thresholds: from which a class is present. separator: between the classes in a cell."""

    thresholds: Thresholds = DEFAULT_THRESHOLD
    separator: str = ";"


def several_of(classes: Sequence[str], thresholds: Thresholds) -> Several:
    """With a separator that is in no class name."""
    free = (s for s in (";", "|", "\t") if not any(s in name for name in classes))
    return Several(thresholds=thresholds, separator=next(free, "\x1f"))


class Writer(Protocol):
    def add(self, prediction: Prediction) -> None: ...

    def close(self) -> None: ...


def format_of(output: str) -> str:
    """The format for a file's ending. Raises: SettingsError that lists the supported endings."""
    ending = Path(output).suffix.lower().lstrip(".")
    if ending not in FORMATS:
        problem = f"unknown ending '.{ending}'" if ending else "the name has no ending"
        raise SettingsError(
            f"--out {output}: {problem}{near_text(ending, FORMATS)}",
            f"use one of: {', '.join('.' + f for f in FORMATS)}",
        )
    return ending


def make_writer(
    kind: str,
    stream: IO[Any],
    top: int,
    name_width: int,
    *,
    with_truth: bool = False,
    numbers: Sequence[str] = (),
    several: Several | None = None,
) -> Writer:
    """numbers: the names of what a model of numbers predicts. several: of a model of several classes. with_truth: tables get the columns true and correct; the other formats show them if a prediction has them."""
    present = several or Several()
    if kind == "json":
        return JsonWriter(stream, top, present.thresholds)
    if kind == "jsonl":
        return JsonLinesWriter(stream, top, present.thresholds)
    if kind in ("csv", "parquet"):
        types = columns(top, numbers, with_truth=with_truth, several=several is not None)
        make = CsvWriter if kind == "csv" else ParquetWriter
        return make(stream, top, types, present)
    return LinesWriter(stream, top, name_width, present.thresholds)


class LinesWriter:
    """One line per image, best class first, in columns. Long names are shortened on a terminal, never in a pipe or file."""

    def __init__(
        self, stream: IO[str], top: int, name_width: int, thresholds: Thresholds = DEFAULT_THRESHOLD
    ) -> None:
        self.stream, self.top, self.thresholds = stream, top, thresholds
        self.width, self.cuts = min(name_width, _LONGEST_NAME), stream.isatty()
        self.colour = stream.isatty() and not os.environ.get("NO_COLOR")

    def add(self, prediction: Prediction) -> None:
        name = one_line(prediction.name)
        if self.cuts and len(name) > self.width:
            name = "…" + name[1 - self.width :]
        if prediction.numbers is not None:
            result = "   ".join(f"{one_line(n)} {v:.4g}" for n, v in prediction.numbers.items())
        elif prediction.probabilities is None:
            result = self._paint(f"error: {one_line(prediction.error)}", "31")
        elif prediction.thresholds is not None:
            result = self._several(prediction)
        else:
            found = prediction.top(self.top)
            best, *others = (f"{one_line(label)} {percent(share)}" for label, share in found)
            result = "   ".join([self._paint(best, "1"), *others])
        if prediction.correct is not None:
            verdict = "correct" if prediction.correct else f"wrong: {one_line(prediction.true or '')}"
            result += "   " + self._paint(verdict, "32" if prediction.correct else "31")
        if prediction.true_classes is not None:
            result += f"   true: {', '.join(map(one_line, prediction.true_classes)) or 'none'}"
        if prediction.true_numbers is not None:
            true = "   ".join(f"{one_line(n)} {v:.4g}" for n, v in prediction.true_numbers.items())
            result += f"   true: {true}"
        self.stream.write(f"{name:<{self.width}}   {result}\n")

    def _several(self, prediction: Prediction) -> str:
        """All classes that are present; then, in brackets, others up to `top`."""
        present = set(prediction.present(self.thresholds))
        every = prediction.top(len(prediction.classes))
        texts = [(label in present, f"{one_line(label)} {percent(share)}") for label, share in every]
        there = [self._paint(text, "1") for is_there, text in texts if is_there]
        absent = [f"({text})" for is_there, text in texts if not is_there]
        return "   ".join([*(there or [self._paint("none", "1")]), *absent[: max(self.top - len(there), 0)]])

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def close(self) -> None:
        self.stream.flush()


class JsonLinesWriter:
    def __init__(self, stream: IO[str], top: int, thresholds: Thresholds = DEFAULT_THRESHOLD) -> None:
        self.stream, self.top, self.thresholds = stream, top, thresholds

    def add(self, prediction: Prediction) -> None:
        self.stream.write(to_json(prediction.to_dict(self.top, self.thresholds)) + "\n")
        self.stream.flush()  # a program that reads the pipe gets each line as it arrives

    def close(self) -> None:
        self.stream.flush()


class JsonWriter:
    """One JSON array, written incrementally, so that memory stays constant."""

    def __init__(self, stream: IO[str], top: int, thresholds: Thresholds = DEFAULT_THRESHOLD) -> None:
        self.stream, self.top, self.thresholds, self.begun = stream, top, thresholds, False

    def add(self, prediction: Prediction) -> None:
        self.stream.write(",\n " if self.begun else "[\n ")
        self.begun = True
        self.stream.write(to_json(prediction.to_dict(self.top, self.thresholds)))

    def close(self) -> None:
        self.stream.write("\n]\n" if self.begun else "[]\n")
        self.stream.flush()


def columns(
    top: int, numbers: Sequence[str] = (), *, with_truth: bool, several: bool = False
) -> dict[str, str]:
    """The columns of a table, each with its type as Arrow names it."""
    found = {"file": "string", "error": "string"}
    if numbers:
        truth = [f"true_{name}" for name in numbers] if with_truth else []
        return {**found, **dict.fromkeys([*truth, *numbers], "float")}
    if with_truth:
        found |= {"true": "string"} if several else {"true": "string", "correct": "bool"}
    if several:
        found["present"] = "string"
    types = {"class": "string", "index": "int32", "probability": "float"}
    return found | {f"{part}_{rank}": kind for rank in range(1, top + 1) for part, kind in types.items()}


def row(prediction: Prediction, top: int, several: Several) -> dict[str, Any]:
    found: dict[str, Any] = {"file": prediction.name, "error": prediction.error}
    if prediction.true is not None:
        found["true"] = prediction.true
    if prediction.correct is not None:
        found["correct"] = prediction.correct
    if prediction.true_classes is not None:
        found["true"] = several.separator.join(prediction.true_classes)
    for name, value in (prediction.true_numbers or {}).items():
        found[f"true_{name}"] = value
    if prediction.numbers is not None:
        return {**found, **prediction.numbers}
    if prediction.thresholds is not None and prediction.probabilities is not None:
        found["present"] = several.separator.join(prediction.present(several.thresholds))
    if prediction.probabilities is not None:
        for rank, (index, share) in enumerate(prediction.ranked(top), 1):
            found |= {
                f"class_{rank}": prediction.classes[index],
                f"index_{rank}": index,
                f"probability_{rank}": share,
            }
    return found


class CsvWriter:
    def __init__(self, stream: IO[str], top: int, types: Mapping[str, str], several: Several) -> None:
        self.stream, self.top, self.several = stream, top, several
        self.table = csv.DictWriter(stream, list(types), restval="", lineterminator="\n")
        self.table.writeheader()

    def add(self, prediction: Prediction) -> None:
        values = row(prediction, self.top, self.several)
        if "correct" in values:
            values["correct"] = "true" if values["correct"] else "false"
        if self.stream.isatty():  # files and pipes get the exact names
            values = {k: one_line(v) if isinstance(v, str) else v for k, v in values.items()}
        self.table.writerow(values)

    def close(self) -> None:
        self.stream.flush()


class ParquetWriter:
    """Rows written in groups, so that memory stays constant."""

    ROWS = 2048

    def __init__(self, stream: IO[bytes], top: int, types: Mapping[str, str], several: Several) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [(name, pa.type_for_alias(kind)) for name, kind in types.items()]
        self.schema, self.top, self.several = pa.schema(fields), top, several
        self.table = pq.ParquetWriter(stream, self.schema)
        self.rows: list[dict[str, Any]] = []

    def add(self, prediction: Prediction) -> None:
        found = row(prediction, self.top, self.several)
        self.rows.append({k: escape_surrogates(v) if isinstance(v, str) else v for k, v in found.items()})
        if len(self.rows) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self.table.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows.clear()

    def close(self) -> None:
        self._flush()
        self.table.close()


_SHOWN_EVERY_S = {"terminal": 0.2, "file": 30.0}


class Progress:
    """Progress on standard error: in place on a terminal, else an occasional line."""

    def __init__(self, total: int | None, *, quiet: bool = False) -> None:
        import time

        self.clock = time.monotonic
        self.total, self.quiet, self.count = total, quiet, 0
        self.terminal = sys.stderr.isatty()
        self.every_s = _SHOWN_EVERY_S["terminal" if self.terminal else "file"]
        self.started = self.shown = self.clock()

    def step(self) -> None:
        self.count += 1
        now = self.clock()
        if self.quiet or now - self.shown < self.every_s:
            return
        self.shown = now
        rate = self.count / (now - self.started)
        of = f" of {self.total}" if self.total else ""
        images = plural(self.total or self.count, "image").partition(" ")[2]
        text = f"{self.count}{of} {images}, {rate:.1f} images/s"
        if self.total:
            text += f", {(self.total - self.count) / rate:.0f} s left"
        sys.stderr.write(f"\r\x1b[K{text}" if self.terminal else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self.terminal and self.shown > self.started:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
