"""Wrong predictions worth looking at: the most confident ones, and those between classes that are often confused."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

WORST_SHOWN = 24
PAIRS_SHOWN, SHOWN_OF_A_PAIR = 5, 4
# A pair that was confused only once is chance.
FEWEST_OF_A_PAIR = 2

Entry = tuple[float, int, int, int, float]


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong prediction, with the probabilities of the predicted and the true class."""

    name: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """Two classes and their confusions: `first_as_second` of `first_images`, and the other direction.

    mistakes: the most confident ones of both directions.
    """

    first: str
    second: str
    first_as_second: int
    second_as_first: int
    first_images: int
    second_images: int
    mistakes: list[Mistake]


class Mistakes:
    """Keeps the most confident mistakes, overall and of each pair of classes; memory is bounded by the pairs."""

    def __init__(self) -> None:
        self._worst: list[Entry] = []
        self._by_pair: dict[tuple[int, int], list[Entry]] = defaultdict(list)

    def add(self, index: int, true: int, predicted: int, probability: float, true_probability: float) -> None:
        """index: of the image in the split; true, predicted: classes that differ."""
        entry = (probability, -index, true, predicted, true_probability)
        _keep(self._worst, entry, WORST_SHOWN)
        _keep(self._by_pair[min(true, predicted), max(true, predicted)], entry, SHOWN_OF_A_PAIR)

    def worst(self, shown: Callable[[Entry], Mistake]) -> list[Mistake]:
        """The most confident mistakes, most confident first. shown: makes a Mistake with its thumbnail."""
        return _shown(self._worst, shown)

    def pairs(
        self, confusion: list[list[int]], classes: tuple[str, ...], shown: Callable[[Entry], Mistake]
    ) -> list[ConfusedPair]:
        """The pairs of classes confused most often in both directions together; confusion: rows are true classes."""
        counts = {(i, j): confusion[i][j] + confusion[j][i] for i, j in self._by_pair}
        often = [pair for pair, count in counts.items() if count >= FEWEST_OF_A_PAIR]
        found = []
        for i, j in sorted(often, key=lambda pair: (-counts[pair], pair))[:PAIRS_SHOWN]:
            # The direction that happens more often is read first.
            first, second = (i, j) if confusion[i][j] >= confusion[j][i] else (j, i)
            found.append(
                ConfusedPair(
                    first=classes[first],
                    second=classes[second],
                    first_as_second=confusion[first][second],
                    second_as_first=confusion[second][first],
                    first_images=sum(confusion[first]),
                    second_images=sum(confusion[second]),
                    mistakes=_shown(self._by_pair[i, j], shown),
                )
            )
        return found


def _keep(heap: list[Entry], entry: Entry, most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def _shown(entries: Iterable[Entry], shown: Callable[[Entry], Mistake]) -> list[Mistake]:
    return [shown(entry) for entry in sorted(entries, reverse=True)]
