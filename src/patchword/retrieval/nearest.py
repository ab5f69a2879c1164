"""Exact nearest neighbours of vectors, by blocked matrix products.

A product in float32 finds the candidates: all rows that its rounding error could let into the top. Their scores are then
computed in float64, row by row, so the result depends on neither the block size nor the number of threads.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "dot", "l2"]
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
Vectors = NDArray[np.float32]
# Scores of one block: queries x rows in float32, 256 MB.
_BLOCK = 1 << 26
_RESCORED = 1 << 15
_UNIT_ROUNDOFF = 2.0**-24


class Nearest(NamedTuple):
    """indices [Q, k] int64: rows, nearest first. scores [Q, k] float64: cosine, dot product or Euclidean distance."""

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]


def nearest(
    queries: Vectors,
    rows: Vectors,
    top: int,
    metric: Metric = "cosine",
    lengths: NDArray[np.float64] | None = None,
) -> Nearest:
    """Find the `top` rows nearest to each query: the largest cosine or dot product, or the smallest distance ("l2").

    Exact: the order is that of the scores in float64, and of equal scores the lower row comes first. The cosine of a zero
    vector is 0. queries [Q, D], rows [N, D]: finite. lengths [N]: of the rows (`lengths_of`), computed if not given.
    k is `top`, or N if that is less.
    """
    count, top = len(queries), min(top, len(rows))
    indices, scores = np.empty((count, top), np.int64), np.empty((count, top), np.float64)
    if not count or not top:
        return Nearest(indices, scores)
    lengths = lengths_of(rows) if lengths is None else lengths
    step = max(_BLOCK // len(rows), 1)
    for start in range(0, count, step):
        block = queries[start : start + step]
        rough, margins = _rough(block, rows, metric, lengths)
        for offset, (query, estimates, margin) in enumerate(zip(block, rough, margins, strict=True)):
            worst = np.partition(estimates, len(rows) - top)[len(rows) - top]
            candidates = np.flatnonzero(estimates >= worst - margin)
            exact = _exact(query, rows, candidates, metric)
            order = np.lexsort((candidates, exact if metric == "l2" else -exact))[:top]
            indices[start + offset], scores[start + offset] = candidates[order], exact[order]
    return Nearest(indices, scores)


def lengths_of(rows: Vectors) -> NDArray[np.float64]:
    """The Euclidean length of each row [N, D] → [N]."""
    found = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _RESCORED):
        part = rows[start : start + _RESCORED].astype(np.float64)
        found[start : start + _RESCORED] = np.sqrt(np.einsum("nd,nd->n", part, part))
    return found


def _rough(
    queries: Vectors, rows: Vectors, metric: Metric, lengths: NDArray[np.float64]
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """Estimates [q, N], larger is nearer, and twice the error of each query's estimates [q].

    The error of a dot product of D terms is at most about D · 2⁻²⁴ · |query| · |row| (Higham 2002, section 3.1).
    """
    own = lengths_of(queries)
    if metric == "cosine":
        queries = (queries / np.where(own, own, 1)[:, None]).astype(np.float32)
        own = np.ones(len(queries))
    longest = float(lengths.max())
    error = 2 * (rows.shape[1] + 8) * _UNIT_ROUNDOFF
    if longest * max(float(own.max()), longest, 1.0) > 1e37:  # float32 would overflow
        rough: NDArray[np.floating] = queries.astype(np.float64) @ rows.T.astype(np.float64)
    else:
        rough = queries @ rows.T
    if metric == "cosine":
        rough /= np.where(lengths, lengths, 1).astype(rough.dtype)
        return rough, np.full(len(queries), error)
    if metric == "dot":
        return rough, error * own * longest
    rough *= 2
    rough -= np.square(lengths).astype(rough.dtype)
    return rough, 2 * error * (longest**2 + 2 * own * longest)


def _exact(
    query: Vectors, rows: Vectors, candidates: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """The scores of the candidates in float64, each from its row alone."""
    one = query.astype(np.float64)
    length = np.sqrt(np.square(one).sum())
    found = np.empty(len(candidates), np.float64)
    for start in range(0, len(candidates), _RESCORED):
        part = rows[candidates[start : start + _RESCORED]].astype(np.float64)
        place = slice(start, start + len(part))
        if metric == "l2":
            found[place] = np.sqrt(np.square(part - one).sum(axis=1))
            continue
        found[place] = (part * one).sum(axis=1)
        if metric == "cosine":
            both = np.sqrt(np.square(part).sum(axis=1)) * length
            found[place] = np.clip(found[place] / np.where(both, both, 1), -1, 1)
    return found
