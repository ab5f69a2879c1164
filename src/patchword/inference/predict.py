"""Predictions one after the other, with what must be said at the end of all of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from patchword.errors import PartialFailure, counted
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.answers import SameAnswers
from patchword.inference.model import Model
from patchword.inference.prediction import Prediction

_NAMED_AT_MOST = 3


class Predictions:
    """Iterate it once: a Prediction for every source, in order, the unreadable among them.

    Afterwards: `count`, `failed` (how many had no answer), `notice` (a model that says the same
    of every picture, or ""), and `check` for the exit code. Memory stays flat.
    """

    def __init__(
        self,
        model: Model,
        sources: Iterable[Any],
        *,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._found = model.answer_each(
            sources, value_range=value_range, batch_size=batch_size, max_pixels=max_pixels
        )
        self._same = SameAnswers()
        self._first_failures: list[str] = []
        self.count = self.failed = 0

    def __iter__(self) -> Iterator[Prediction]:
        for answer, prediction in self._found:
            self.count += 1
            self._same.add(answer)
            if prediction.error:
                self.failed += 1
                if len(self._first_failures) < _NAMED_AT_MOST:
                    self._first_failures.append(f"{prediction.name}: {prediction.error}")
            yield prediction

    @property
    def notice(self) -> str:
        return self._same.notice

    def check(self) -> None:
        """Raises: PartialFailure naming the pictures that could not be read."""
        raise_failures(self.failed, self.count, self._first_failures)


def raise_failures(failed: int, count: int, reasons: list[str], done: str = "answered") -> None:
    """Raises: PartialFailure if any failed; `reasons` holds the first few. done: what became of the others."""
    if not failed:
        return
    more = f"; and {failed - len(reasons)} more" if failed > len(reasons) else ""
    others = f"; the others are {done}" if failed < count else ""
    raise PartialFailure(
        f"{failed} of {counted(count, 'image')} could not be read: {'; '.join(reasons)}{more}",
        f"fix or remove {'this file' if failed == 1 else 'these files'}{others}",
    )
