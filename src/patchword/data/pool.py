"""An ordered, bounded thread pool. Pillow releases the GIL while it decodes.

Threads instead of processes: nothing is pickled, no memory is copied, nothing hangs under
spawn, and Ctrl-C stops them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """Yield `work(item)` in the order of the items, with at most `ahead` of them running or waiting.

    `items` may be endless or lazy. Exceptions from `work` are raised here, in their place.
    """
    pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="patchword-decode")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=False, cancel_futures=True)
