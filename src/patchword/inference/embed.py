"""Write the embeddings of many images to one file while they are computed."""

import os
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, OutputError, SettingsError, escape_surrogates, near_text, plural
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.engine import SameAnswers
from patchword.inference.failures import Failures
from patchword.inference.model import Model
from patchword.inference.output import NewFile, check_place
from patchword.inference.parts import ChosenPart, choose_part, weights_sha256
from patchword.retrieval.card import (
    CARD_ENDING,
    CARD_KEY,
    NAMES_ENDING,
    VECTOR_PARTS,
    EmbeddingCard,
    Part,
    card_text,
    name_line,
)

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
    part: Part = "pooled",
    layer: int | None = None,
    norm: bool | None = None,
    weights: str = "",
    files: Sequence[str] = (),
    batch_size: int | None = None,
    value_range: ValueRange | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Any = None,
) -> Embedded:
    """Write the vectors of all readable images to `output`, in order, using constant memory.

    part, layer, norm: as in `Model.embed`. weights, files: the model and the images as the user gave them, for the card.
    .npy: [images, D] float32 (other parts: see `part_function`); line i of NAME.names.txt next to it names row i, and
    NAME.card.json says how the vectors were made (`EmbeddingCard`).
    .parquet: columns file and vector; the card is in the file's metadata. Unreadable images have no row.
    Raises: OutputError; SettingsError for another file type, or a part that the model does not have; DataError if no image
        could be read.
    """
    chosen = choose_part(model.config, part, layer, norm)
    compute = model.part(chosen)
    check_output(output, part)
    card = card_for(model, chosen, weights=weights, files=files, value_range=value_range)
    sink = NpySink(output, card) if output.suffix.lower() == ".npy" else ParquetSink(output, card)
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


def check_output(output: Path, part: str = "pooled") -> None:
    """Raises: SettingsError for an unsupported file extension; OutputError if the place is not writable."""
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        problem = f"unknown file extension {ending!r}" if ending else "no file extension"
        raise SettingsError(f"{output}: {problem}{near_text(ending, ENDINGS)}", "use .npy or .parquet")
    if ending == ".parquet" and part not in VECTOR_PARTS:
        raise SettingsError(f"Parquet output holds one vector per image, but {part} is several", "use .npy")
    check_place(output)


def card_for(
    model: Model,
    chosen: ChosenPart,
    *,
    weights: str = "",
    files: Sequence[str] = (),
    value_range: ValueRange | None = None,
) -> EmbeddingCard:
    """The card of vectors that `model` makes now. It hashes the weights."""
    return EmbeddingCard(
        part=chosen.part,
        layer=chosen.layer,
        norm=chosen.norm,
        weights=weights or str(model.report.path),
        weights_sha256=weights_sha256(model.vit),
        config=model.config,
        preprocess=model.preprocess.with_range(value_range),
        files=tuple(files),
        folder=os.getcwd(),
        patchword=metadata.version("patchword"),
    )


class NpySink:
    """Writes rows as they come; the header in front of them is written last, once their number is known."""

    def __init__(self, path: Path, card: EmbeddingCard) -> None:
        self.rows = NewFile(path)
        self.rows.stream.write(bytes(_HEADER_BYTES))
        self.texts: list[NewFile] = []
        try:
            for ending in (NAMES_ENDING, CARD_ENDING):
                self.texts.append(NewFile(path.with_suffix(ending), text=True))
            self.names, about = self.texts
            about.stream.write(card_text(card) + "\n")
        except OutputError:
            self.discard()
            raise
        self.shape: tuple[int, ...] | None = None
        self.count = 0

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
        self.shape = self.shape or vector.shape
        if vector.shape != self.shape:
            raise DataError(
                f"{name}: its tokens have shape {list(vector.shape)}, but those of earlier images have "
                f"{list(self.shape)}; all rows of one array must have the same shape",
                "use the part 'pooled', or embed images of each size separately",
            )
        self.rows.stream.write(vector.astype("<f4", copy=False).tobytes())
        self.names.stream.write(name_line(name) + "\n")
        self.count += 1

    def close(self) -> None:
        shape = (self.count, *(self.shape or ()))
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
        space = _HEADER_BYTES - 10 - len(text) - 1
        self.rows.stream.seek(0)
        length = (_HEADER_BYTES - 10).to_bytes(2, "little")
        self.rows.stream.write(b"\x93NUMPY\x01\x00" + length + text + b" " * space + b"\n")
        self.rows.close()
        for file in self.texts:
            file.close()

    def discard(self) -> None:
        for file in (self.rows, *self.texts):
            file.discard()


class ParquetSink:
    """Writes a column of file names and a column of vectors."""

    ROWS = 1024

    def __init__(self, path: Path, card: EmbeddingCard) -> None:
        self.file, self.card = NewFile(path), card
        self.writer: Any = None
        self.names: list[str] = []
        self.vectors: list[NDArray[np.float32]] = []

    def add(self, name: str, vector: NDArray[np.float32]) -> None:
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
        table = table.replace_schema_metadata({CARD_KEY: card_text(self.card)})
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
