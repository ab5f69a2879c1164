"""A file of embeddings in memory, with names and card, for exact search."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, SettingsError, is_out_of_memory, near_text, plural
from patchword.retrieval.card import (
    CARD_ENDING,
    CARD_KEY,
    NAMES_ENDING,
    VECTOR_PARTS,
    EmbeddingCard,
    card_of,
    name_of_line,
)
from patchword.retrieval.nearest import METRICS, Metric, Nearest, Vectors, lengths_of, nearest

_AGAIN = "write the file again with `patchword embed`"


@dataclass(frozen=True, kw_only=True)
class Index:
    """Vectors of images: vectors [N, D] float32, the name of each image, and how they were made."""

    path: Path
    names: tuple[str, ...]
    vectors: Vectors
    card: EmbeddingCard

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}: {plural(len(self), 'vector')} of {self.vectors.shape[1]}, {self.card.described})"

    @classmethod
    def read(cls, path: str | Path) -> "Index":
        """Read what `patchword embed` wrote: .npy with its .names.txt and .card.json, or .parquet.

        Raises: DataError if the file is not an index, is truncated or empty, holds several vectors per image, or NaN.
        """
        file = Path(path)
        if not file.is_file():
            raise _missing(file)
        try:
            if file.suffix.lower() == ".npy":
                names, vectors, card = _read_npy(file)
            elif file.suffix.lower() == ".parquet":
                names, vectors, card = _read_parquet(file)
            else:
                raise DataError(
                    f"{file}: not an index, which is an .npy or .parquet file of `patchword embed`",
                    "give the file after --out of `patchword embed`",
                )
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})", _AGAIN) from error
        _check(file, names, vectors, card)
        return cls(path=file, names=names, vectors=np.ascontiguousarray(vectors), card=card)

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        return lengths_of(self.vectors)

    def nearest(self, queries: Vectors, top: int = 10, metric: Metric = "cosine") -> Nearest:
        """The rows nearest to each query [Q, D], exactly; equal scores in the order of the file. See `retrieval.nearest`.

        Raises:
            DataError: for queries of another width, with NaN, or of length 0 (which has no cosine).
            SettingsError: for an unknown metric, or `top` below 1 or above the number of vectors.
        """
        if metric not in METRICS:
            raise SettingsError(
                f"unknown metric {metric!r}{near_text(str(metric), METRICS)}",
                f"use one of: {', '.join(METRICS)}",
            )
        self.check_top(top)
        queries = np.ascontiguousarray(queries, np.float32)
        width = self.vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != width:
            raise DataError(
                f"the query has shape {list(queries.shape)}, but the vectors of {self.path} have width {width}",
                f"give queries [Q, {width}] made as the index was: {self.card.described}",
            )
        if not np.isfinite(queries).all():
            raise DataError("the query contains NaN or infinite values", "compute its vector again")
        if metric == "cosine" and not queries.any(axis=1).all():
            raise DataError("the query is a zero vector, which has no cosine", "use --metric l2 or dot")
        return nearest(queries, self.vectors, top, metric, self._lengths)

    def check_top(self, top: int) -> None:
        """Raises: SettingsError if there are no `top` vectors."""
        if not 1 <= top <= len(self):
            raise SettingsError(
                f"--top is {top}, but {self.path} has {plural(len(self), 'vector')}",
                f"use --top {len(self)}" if top > len(self) else "use --top 1 or more",
            )


def _missing(file: Path) -> DataError:
    if file.is_dir():
        return DataError(
            f"{file}: a folder, not an index", "give an .npy or .parquet file of `patchword embed`"
        )
    try:
        near = near_text(file.name, [p.name for p in file.parent.iterdir()])
    except OSError:
        near = ""
    return DataError(f"{file} does not exist{near}", "give an .npy or .parquet file of `patchword embed`")


def _read_npy(file: Path) -> tuple[tuple[str, ...], Vectors, EmbeddingCard]:
    beside = {ending: file.with_suffix(ending) for ending in (CARD_ENDING, NAMES_ENDING)}
    for ending, what in ((CARD_ENDING, "how the vectors were made"), (NAMES_ENDING, "the names")):
        if not beside[ending].is_file():
            raise DataError(
                f"{file}: not an index: {beside[ending].name}, with {what}, is not next to it", _AGAIN
            )
    try:
        vectors = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{file}: not a complete .npy file ({error})", _AGAIN) from error
    try:
        card = card_of(beside[CARD_ENDING].read_text(encoding="utf-8"), str(file))
        lines = beside[NAMES_ENDING].read_text(encoding="utf-8", errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: its card is not text", _AGAIN) from error
    return tuple(name_of_line(line) for line in lines.split("\n")[:-1]), vectors, card


def _read_parquet(file: Path) -> tuple[tuple[str, ...], Vectors, EmbeddingCard]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except pa.ArrowException as error:
        raise DataError(
            f"{file}: not a complete Parquet file ({str(error).splitlines()[0]})", _AGAIN
        ) from error
    text = (table.schema.metadata or {}).get(CARD_KEY.encode())
    if text is None or not {"file", "vector"} <= set(table.column_names):
        raise DataError(f"{file}: not an index: it has no card of `patchword embed`", _AGAIN)
    card = card_of(text.decode("utf-8", "replace"), str(file))
    column = table["vector"].combine_chunks()
    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise DataError(f"{file}: its column vector is {column.type}, not one vector per image", _AGAIN)
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    return tuple(table["file"].to_pylist()), vectors, card


def _check(file: Path, names: tuple[str, ...], vectors: Vectors, card: EmbeddingCard) -> None:
    if card.part not in VECTOR_PARTS:
        raise DataError(
            f"{file}: holds several vectors per image (part {card.part}), but search compares one",
            "embed the images again with --part pooled, class or mean",
        )
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise DataError(
            f"{file}: {vectors.dtype} of shape {list(vectors.shape)}, not float32 [images, width]", _AGAIN
        )
    if not vectors.size:
        raise DataError(f"{file}: an index without vectors", _AGAIN)
    if len(names) != len(vectors):
        raise DataError(f"{file}: {plural(len(vectors), 'vector')}, but {plural(len(names), 'name')}", _AGAIN)
    bad = _not_finite(vectors)
    if bad is not None:
        raise DataError(
            f"{file}: the vector of {names[bad]} (row {bad}) contains NaN or infinite values", _AGAIN
        )


def _not_finite(vectors: Vectors, step: int = 1 << 16) -> int | None:
    """The first row with NaN or infinity."""
    for start in range(0, len(vectors), step):
        good = np.isfinite(vectors[start : start + step]).all(axis=1)
        if not good.all():
            return start + int(np.flatnonzero(~good)[0])
    return None
