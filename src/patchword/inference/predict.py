"""Stream predictions, and report failures and warnings at the end."""

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
    """Iterate once to get a Prediction for every source, in order, including unreadable ones.

    Afterwards, `count` is the number of images, `failed` the number without a prediction, `notice` a
    warning if the model gives the same output for every image (else ""), and `check` sets the exit
    code. Memory use is constant.
    """

    def __init__(
        self,
        model: Model,
        sources: Iterable[Any],
        *,
        value_range: ValueRange | None = None,
        calibrated: bool = False,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        model.logits(calibrated)  # raises without a temperature, before any image is read
        self._found = model.answer_each(
            sources,
            value_range=value_range,
            calibrated=calibrated,
            batch_size=batch_size,
            max_pixels=max_pixels,
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
        """Raises: PartialFailure listing the images that could not be read."""
        self._failures.check(self.count, "classified")


class Failures:
    """Counts the images that failed, and lists the first few by name."""

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
        """Raises: PartialFailure if there are any. done: what was done with the other images."""
        if not self.count:
            return
        raise PartialFailure(
            f"{self.count} of {plural(of, 'image')} could not be read: {self.listed}",
            self.fix
            + (
                f"; the other {plural(of - self.count, 'image')} {'was' if of - self.count == 1 else 'were'} {done}"
                if self.count < of
                else ""
            ),
        )

    @property
    def listed(self) -> str:
        """The first few failures with their reasons."""
        rest = self.count - len(self._first)
        return "; ".join(self._first) + (f"; and {rest} more" if rest else "")

    @property
    def fix(self) -> str:
        """How to fix the listed failures."""
        return "; ".join(self._fixes) or "fix or replace these files"
