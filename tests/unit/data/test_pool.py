"""Working ahead: in order, and only so far."""

import time
from collections.abc import Iterator

from patchword.data.pool import in_order


def test_no_more_items_are_taken_than_may_wait() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    found = in_order(lambda item: -item, items(), workers=2, ahead=5)
    for number in range(20):
        assert next(found) == -number
        assert taken <= number + 5


def test_answers_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.01 * (item == 0))
        return item

    assert list(in_order(work, range(8), workers=4, ahead=8)) == list(range(8))
