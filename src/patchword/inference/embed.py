"""Write the embeddings of many images to one file while they are computed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, OutputError, SettingsError, escape_surrogates, near_text, plural
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.engine import SameAnswers
from patchword.inference.failures import Failures
from patchword.inference.model import Feature, Model
from patchword.inference.output import NewFile, check_place

_HEADER_BYTES = 128
ENDINGS = (".npy", ".parquet")


class Sink(Protocol):
    """Receives vectors. close: the file appears under its name. discard: delete it unless it was closed."""

    def add(self, name: str, vector: NDArray[np.float32]) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class Embedded:
    """The outcome of embedding a stream of images: their number, the failures, and identical outputs."""

    def __init__(self) -> None:
        self.count = 0
        self.failures = Failures()
        self.same = SameAnswers()

    def check(self) -> None:
        """Raises: PartialFailure listing the images that could not be read."""
        self.failures.check(self.count, "embedded")

    @property
    def failed(self) -> int:
        return self.failures.count


def embed_to(
    model: Model,
    sources: Iterable[Any],
    output: Path,
    *,
    feature: Feature = "embedding",
    batch_size: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Any = None,
) -> Embedded:
    """Write the vectors of all readable images to `output`, in order, using constant memory.

    .npy: [images, D] float32 (tokens: [images, N, D]); line i of NAME.names.txt next to it names row i.
    .parquet: columns file and vector. Unreadable images have no row.
    Raises: OutputError; SettingsError for another file type; DataError if no image could be read.
    """
    compute = model.feature(feature)
    sink = _sink(output)
    done = Embedded()
    try:
        for answer in model.answers(
            sources, compute, batch_size=batch_size, max_pixels=max_pixels, value_range=value_range
        ):
            done.count += 1
            if answer.values is None:
                assert answer.error is not None
                done.failures.add(answer.name, answer.error)
            else:
                done.same.add(answer)
                sink.add(answer.name, answer.values)
            if progress is not None:
                progress(answer.index + 1)
        if done.count == done.failed:
            raise DataError(
                f"cannot read any of the {plural(done.count, 'image')}: {done.failures.listed}",
                done.failures.fix,
            )
        sink.close()
    finally:
        sink.discard()
    return done


def check_output(output: Path) -> None:
    """Raises: SettingsError for an unsupported file extension; OutputError if the place is not writable."""
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        problem = f"unknown file extension {ending!r}" if ending else "no file extension"
        raise SettingsError(f"{output}: {problem}{near_text(ending, ENDINGS)}", "use .npy or .parquet")
    check_place(output)


def _sink(output: Path) -> Sink:
    check_output(output)
    return NpySink(output) if output.suffix.lower() == ".npy" else ParquetSink(output)


class NpySink:
    """Writes rows as they come; the header in front of them is written last, once their number is known."""

    def __init__(self, path: Path) -> None:
        self.rows = NewFile(path)
        self.rows.stream.write(bytes(_HEADER_BYTES))
        try:
            self.names = NewFile(path.with_suffix(".names.txt"), text=True)
        except OutputError:
            self.rows.discard()
            raise
        self.shape: tuple[int, ...] | None = None
        self.count = 0

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
        self.shape = self.shape or vector.shape
        if vector.shape != self.shape:
            raise DataError(
                f"{name}: its tokens have shape {list(vector.shape)}, but those of earlier images have "
                f"{list(self.shape)}; all rows of one array must have the same shape",
                "use the feature 'embedding', or embed images of each size separately",
            )
        self.rows.stream.write(vector.astype("<f4", copy=False).tobytes())
        # Escape line breaks in file names, so that each row has exactly one line.
        self.names.stream.write(name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n")
        self.count += 1

    def close(self) -> None:
        shape = (self.count, *(self.shape or ()))
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
        space = _HEADER_BYTES - 10 - len(text) - 1
        self.rows.stream.seek(0)
        length = (_HEADER_BYTES - 10).to_bytes(2, "little")
        self.rows.stream.write(b"\x93NUMPY\x01\x00" + length + text + b" " * space + b"\n")
        self.rows.close()
        self.names.close()

    def discard(self) -> None:
        self.rows.discard()
        self.names.discard()


class ParquetSink:
    """Writes a column of file names and a column of vectors."""

    ROWS = 1024

    def __init__(self, path: Path) -> None:
        self.file = NewFile(path)
        self.writer: Any = None
        self.names: list[str] = []
        self.vectors: list[NDArray[np.float32]] = []

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
        if vector.ndim != 1:
            raise SettingsError(
                "Parquet output holds one vector per image, but tokens are one matrix per image", "use .npy"
            )
        self.names.append(escape_surrogates(name))
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
        self.writer = self.writer or pq.ParquetWriter(self.file.stream, table.schema)
        self.writer.write_table(table)
        self.names, self.vectors = [], []

    def close(self) -> None:
        self._flush()
        if self.writer is not None:
            self.writer.close()
        self.file.close()

    def discard(self) -> None:
        self.file.discard()
