"""Stream predictions, and report failures and warnings at the end."""

from collections.abc import Iterable, Iterator
from typing import Any

from patchword.images.limits import MAX_PIXELS
from patchword.images.preprocess import ValueRange
from patchword.inference.engine import SameAnswers
from patchword.inference.failures import Failures
from patchword.inference.model import Model
from patchword.inference.prediction import Prediction


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
