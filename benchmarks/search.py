"""Time exact search in 100,000 vectors of 384, and compare what it finds with float64 arithmetic on all of them.

    python benchmarks/search.py

The vectors are random clusters, closer together than random directions, so that near ties occur. The time is that of one query
after loading, from its vector to the ten nearest rows; embedding the image is not part of it (see predict.py).
"""

import argparse
import os
import statistics
import sys
import time

import numpy as np
from numpy.typing import NDArray

from common import write_result
from patchword.retrieval.nearest import METRICS, Metric, lengths_of, nearest

LIMIT_SECONDS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--queries", type=int, default=50)
    chosen = parser.parse_args()
    drawn = np.random.default_rng(0)
    rows = clustered(drawn, chosen.vectors, chosen.width)
    queries = clustered(drawn, chosen.queries, chosen.width)
    lengths = lengths_of(rows)
    lines = ["| metric | ms for one query, median | slowest | recall |", "|---|---|---|---|"]
    seconds: dict[str, list[float]] = {}
    recall: dict[str, float] = {}
    for metric in METRICS:
        nearest(queries[:1], rows, chosen.top, metric, lengths)
        seconds[metric], right = [], 0
        for query in queries:
            start = time.perf_counter()
            found = nearest(query[None], rows, chosen.top, metric, lengths)
            seconds[metric].append(time.perf_counter() - start)
            right += len(set(found.indices[0]) & set(expected(query, rows, chosen.top, metric)))
        recall[metric] = right / (chosen.top * len(queries))
        median, slowest = statistics.median(seconds[metric]), max(seconds[metric])
        lines.append(f"| {metric} | {1000 * median:.1f} | {1000 * slowest:.1f} | {recall[metric]:.4f} |")
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    lines += [
        "",
        f"{chosen.vectors:,} vectors of {chosen.width}, top {chosen.top}, {chosen.queries} queries one at a time, {threads} threads. "
        f"Goal: under {1000 * LIMIT_SECONDS:.0f} ms, recall 1. Command: `python {' '.join(sys.argv)}`.",
    ]
    table = "\n".join(lines)
    print(table)
    print(write_result("search", {"seconds": seconds, "recall": recall}, table))


def clustered(drawn: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    centres = np.random.default_rng(1).standard_normal((100, width))
    points = centres[drawn.integers(0, 100, count)] + 0.3 * drawn.standard_normal((count, width))
    return points.astype(np.float32)


def expected(query: NDArray[np.float32], rows: NDArray[np.float32], top: int, metric: Metric) -> list[int]:
    """The nearest rows by a plain computation in float64."""
    one, all_rows = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        scores = -np.linalg.norm(all_rows - one, axis=1)
    else:
        scores = all_rows @ one
        if metric == "cosine":
            scores /= np.linalg.norm(all_rows, axis=1) * np.linalg.norm(one)
    return np.argsort(-scores, kind="stable")[:top].tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
