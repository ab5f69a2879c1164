"""Predictions one after the other, with what must be said at the end of all of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from patchword.errors import PartialFailure, PatchwordError, plural
from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.engine import SameAnswers
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
        self._failures = Failures()
        self.count = 0

    def __iter__(self) -> Iterator[Prediction]:
        for answer, prediction in self._found:
            self.count += 1
            self._same.add(answer)
            if answer.error is not None:
                self._failures.add(answer.name, answer.error)
            yield prediction

    @property
    def failed(self) -> int:
        return self._failures.count

    @property
    def notice(self) -> str:
        return self._same.notice

    def check(self) -> None:
        """Raises: PartialFailure naming the pictures that could not be read."""
        self._failures.check(self.count, "answered")


class Failures:
    """How many images had no answer, and the first few of them by name."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._fixes: list[str] = []

    def add(self, name: str, error: PatchwordError) -> None:
        self.count += 1
        if len(self._first) < _NAMED_AT_MOST:
            self._first.append(f"{name}: {error.reason(name)}")
            if error.fix and error.fix not in self._fixes:
                self._fixes.append(error.fix)

    def check(self, of: int, done: str) -> None:
        """Raises: PartialFailure if there are any. done: what became of the others."""
        if not self.count:
            return
        raise PartialFailure(
            f"{self.count} of {plural(of, 'image')} could not be read: {self.listed}",
            self.fix + (f"; the others are {done}" if self.count < of else ""),
        )

    @property
    def listed(self) -> str:
        """The first few with their reasons."""
        rest = self.count - len(self._first)
        return "; ".join(self._first) + (f"; and {rest} more" if rest else "")

    @property
    def fix(self) -> str:
        """What to do about those."""
        return "; ".join(self._fixes) or "fix or replace these files"
