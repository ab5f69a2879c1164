"""Vectors of many pictures into one file, as they are computed."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, OutputError, SettingsError, near_text
from patchword.images.limits import MAX_PIXELS
from patchword.inference.answers import SameAnswers
from patchword.inference.model import Feature, Model
from patchword.inference.predict import raise_failures
from patchword.settings import as_utf8

_HEADER_BYTES = 128
ENDINGS = (".npy", ".parquet")


class Sink(Protocol):
    """close: the file appears under its name. discard: what was not closed leaves no trace."""

    def add(self, name: str, vector: NDArray[np.float32]) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class Embedded:
    """What became of a stream of pictures: how many, how many failed, and what to say of it."""

    def __init__(self) -> None:
        self.count = self.failed = 0
        self.first_failures: list[str] = []
        self.same = SameAnswers()

    def check(self) -> None:
        """Raises: PartialFailure naming the pictures that could not be read."""
        raise_failures(self.failed, self.count, self.first_failures)


def embed_to(
    model: Model,
    sources: Iterable[Any],
    output: Path,
    *,
    feature: Feature = "embedding",
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Any = None,
) -> Embedded:
    """Write the vectors of all readable pictures to `output`, in order; memory stays flat.

    .npy: [images, D] float32 (tokens: [images, N, D]) and beside it NAME.names.txt, whose line i
    names row i. .parquet: columns file and vector. A picture that cannot be read has no row.
    Raises: OutputError, SettingsError for another ending, DataError where no picture could be read.
    """
    compute = model.feature(feature)
    sink = _sink(output)
    done = Embedded()
    try:
        for answer in model.answers(sources, compute, batch_size=batch_size, max_pixels=max_pixels):
            done.count += 1
            if answer.values is None:
                done.failed += 1
                assert answer.error is not None
                done.first_failures += [answer.error.message] if len(done.first_failures) < 3 else []
            else:
                done.same.add(answer)
                sink.add(answer.name, answer.values)
            if progress is not None:
                progress(answer.index + 1)
        if done.count == done.failed:
            raise DataError(
                f"none of the {done.count} images could be read"
                + (f": {done.first_failures[0]}" if done.first_failures else ""),
                "`patchword predict` says for each what is wrong",
            )
        sink.close()
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error})", "make room, or choose another place"
        ) from error
    finally:
        sink.discard()
    return done


def check_ending(output: Path) -> None:
    """Raises: SettingsError where the file's ending is none that can be written."""
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise SettingsError(
            f"{output}: unknown ending {ending!r}{near_text(ending, ENDINGS)}", "end it in .npy or .parquet"
        )


def _sink(output: Path) -> Sink:
    check_ending(output)
    try:
        return NpySink(output) if output.suffix.lower() == ".npy" else ParquetSink(output)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror or error})", "make room, or choose another place"
        ) from error


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _drop(file: IO[Any], path: Path) -> None:
    with suppress(OSError):  # what it still holds need find no room
        file.close()
    with suppress(OSError):
        _part(path).unlink()


class NpySink:
    """Rows behind a header that is written last, when their number is known."""

    def __init__(self, path: Path) -> None:
        self.path, self.names_path = path, path.with_suffix(".names.txt")
        self.rows = _part(path).open("wb")
        self.rows.write(bytes(_HEADER_BYTES))
        self.names = _part(self.names_path).open("w", encoding="utf-8", errors="surrogateescape")
        self.shape: tuple[int, ...] | None = None
        self.count = 0

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
        self.shape = self.shape or vector.shape
        if vector.shape != self.shape:
            raise DataError(
                f"{name}: {list(vector.shape)} tokens, the images before have {list(self.shape)}; one array "
                "holds only equal ones",
                "use --feature embedding, or one call for each size of image",
            )
        self.rows.write(vector.astype("<f4", copy=False).tobytes())
        # One line a row, whatever a file is called.
        self.names.write(name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n")
        self.count += 1

    def close(self) -> None:
        shape = (self.count, *(self.shape or ()))
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
        space = _HEADER_BYTES - 10 - len(text) - 1
        self.rows.seek(0)
        length = (_HEADER_BYTES - 10).to_bytes(2, "little")
        self.rows.write(b"\x93NUMPY\x01\x00" + length + text + b" " * space + b"\n")
        for file, path in ((self.rows, self.path), (self.names, self.names_path)):
            file.close()
            os.replace(_part(path), path)

    def discard(self) -> None:
        for file, path in ((self.rows, self.path), (self.names, self.names_path)):
            _drop(file, path)


class ParquetSink:
    ROWS = 1024

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = _part(path).open("wb")
        self.writer: Any = None
        self.names: list[str] = []
        self.vectors: list[NDArray[np.float32]] = []

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
        if vector.ndim != 1:
            raise SettingsError(
                "tokens are a table for each image, which Parquet's rows do not hold", "use .npy"
            )
        self.names.append(as_utf8(name))
        self.vectors.append(vector)
        if len(self.names) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.names:
            return
        stacked = np.stack(self.vectors)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked.shape[1])
        table = pa.table({"file": pa.array(self.names, pa.string()), "vector": vectors})
        self.writer = self.writer or pq.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)
        self.names, self.vectors = [], []

    def close(self) -> None:
        self._flush()
        if self.writer is not None:
            self.writer.close()
        self.file.close()
        os.replace(_part(self.path), self.path)

    def discard(self) -> None:
        _drop(self.file, self.path)
