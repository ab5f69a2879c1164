"""Threads that each augment a part of a batch on one core."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

T = TypeVar("T")


class Workers:
    """`count` threads in which each operation of torch uses one core.

    Augmentation is many short operations. torch would share each of them among its threads and wait for the slowest;
    while other threads decode images, that takes several times as long as one thread alone.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "augment")
        ready = Barrier(count)

        def start() -> None:
            torch.set_num_threads(1)
            ready.wait()

        before = torch.get_num_threads()
        for future in [self._pool.submit(start) for _ in range(count)]:
            future.result()
        # The number is each thread's own, but torch gives threads that start later the one that was set last.
        torch.set_num_threads(before)

    def map(self, function: Callable[[slice], T], parts: list[slice]) -> list[T]:
        return list(self._pool.map(function, parts))
