"""Work done a little ahead, in order, in threads: Pillow gives up Python's lock while it decodes.

Threads, not processes: nothing has to be pickled, no memory is copied, nothing hangs under
spawn, and Ctrl-C ends them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """`work` of each item, in the order of the items, at most `ahead` of them begun or waiting.

    `items` may be endless or lazy. What `work` raises is raised here, at its place.
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
