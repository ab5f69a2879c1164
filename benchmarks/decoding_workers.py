"""Compare threads and processes for decoding photographs to training views, including start-up and transfer.

    python benchmarks/decoding_workers.py --data imagenet-sample.zip [--rounds 7] [--side 160]

Each system decodes the same photographs, in order, into one uint8 array, as training fills its cache. Processes return
their pixels through a pipe (as `ProcessPoolExecutor` does) or write them into shared memory. They are started anew each
time, by fork and by spawn (the only way on macOS and Windows, and the only safe one with threads). The cost of another
pass with running workers is reported separately.
"""

import argparse
import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np

from common import compile_source, interleave, ratio_interval, write_result
from patchword.data.pool import in_order
from patchword.images.prepare import read
from patchword.images.preprocess import Preprocess
from peers import photographs

CHUNK = 16
Pixels = np.ndarray[Any, Any]


def decoded(path: str, side: int) -> Pixels:
    """[3, side, side] uint8, as `data/store.py` keeps it."""
    values = read(path, Preprocess.simple(side, mean=(0.0,), std=(1.0,)))
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


def into_shared(task: tuple[int, str], name: str, side: int, count: int) -> None:
    memory = _attached(name)
    array: Pixels = np.ndarray((count, 3, side, side), np.uint8, buffer=memory.buf)
    array[task[0]] = decoded(task[1], side)


@functools.cache
def _attached(name: str) -> SharedMemory:
    return SharedMemory(name)


def by_threads(paths: list[str], side: int, workers: int) -> Pixels:
    out = np.empty((len(paths), 3, side, side), np.uint8)
    for i, pixels in enumerate(in_order(functools.partial(decoded, side=side), paths, workers, 64)):
        out[i] = pixels
    return out


def by_pipe(pool: ProcessPoolExecutor, paths: list[str], side: int) -> Pixels:
    out = np.empty((len(paths), 3, side, side), np.uint8)
    for i, pixels in enumerate(pool.map(functools.partial(decoded, side=side), paths, chunksize=CHUNK)):
        out[i] = pixels
    return out


def by_shared_memory(pool: ProcessPoolExecutor, paths: list[str], side: int) -> Pixels:
    memory = SharedMemory(create=True, size=len(paths) * 3 * side * side)
    try:
        work = functools.partial(into_shared, name=memory.name, side=side, count=len(paths))
        for _ in pool.map(work, enumerate(paths), chunksize=CHUNK):
            pass
        found: Pixels = np.ndarray((len(paths), 3, side, side), np.uint8, buffer=memory.buf).copy()
        return found
    finally:
        memory.close()
        memory.unlink()


def started(how: str, workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(how))


def systems(
    paths: list[str], side: int, workers: int, warm: ProcessPoolExecutor
) -> Iterator[tuple[str, Any]]:
    yield "1 thread", lambda: by_threads(paths, side, 1)
    yield f"{workers} threads", lambda: by_threads(paths, side, workers)
    for how in ("fork", "spawn"):
        for name, route in (("pipe", by_pipe), ("shared memory", by_shared_memory)):

            def run(how: str = how, route: Callable[..., Pixels] = route) -> Pixels:
                with started(how, workers) as pool:
                    return route(pool, paths, side)

            yield f"{workers} processes, {how}, {name}", run
    yield f"{workers} running processes, pipe", lambda: by_pipe(warm, paths, side)
    yield f"{workers} running processes, shared memory", lambda: by_shared_memory(warm, paths, side)


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Return the CPU seconds of this process and of its child processes that have ended."""
    before = os.times()
    run()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    compile_source()
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        paths = photographs(chosen.data, Path(place))
        warm = stack.enter_context(started("spawn", chosen.workers))
        all_of_them = dict(systems(paths, chosen.side, chosen.workers, warm))
        expected = by_threads(paths, chosen.side, chosen.workers)
        for name, run in all_of_them.items():
            assert np.array_equal(run(), expected), name
        spent: dict[str, list[float]] = {name: [] for name in all_of_them}
        counted = {
            name: (lambda name=name, run=run: spent[name].append(cpu_seconds(run)))
            for name, run in all_of_them.items()
        }
        seconds = interleave(counted, chosen.rounds, warm_up=0)
    ours = seconds[f"{chosen.workers} threads"]
    rows = ["| system | images/s | takes, times our threads | CPU seconds in all |", "|---|---|---|---|"]
    for name, taken in seconds.items():
        ratio, low, high = ratio_interval(ours, taken)
        rate = len(paths) / statistics.median(taken)
        cpu = "–" if "running" in name else f"{statistics.median(spent[name]):.1f}"
        rows.append(f"| {name} | {rate:.0f} | {ratio:.2f} [{low:.2f}, {high:.2f}] | {cpu} |")
    rows += [
        "",
        f"{len(paths)} photographs to {chosen.side} x {chosen.side}; each started process imports NumPy, Pillow and "
        "the reader, but not torch.",
        f"Written {time.strftime('%Y-%m-%d')}; {chosen.rounds} rounds.",
    ]
    table = "\n".join(rows)
    print(table)
    print(
        write_result(
            "decoding-workers", {"seconds": seconds, "cpu_seconds": spent, "images": len(paths)}, table
        )
    )


if __name__ == "__main__":
    main()
