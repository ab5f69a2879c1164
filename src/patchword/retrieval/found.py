"""What a search finds."""

from dataclasses import dataclass
from typing import Any

from patchword.errors import PatchwordError
from patchword.retrieval.nearest import Metric


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An image of the index. rank: from 1. row: in the index. score: cosine or dot product, or with "l2" the distance."""

    rank: int
    name: str
    row: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The hits of one image, nearest first; without hits, `failure` is why it could not be read.

    source: the image, or a function that reads it again, if its name is not enough.
    """

    name: str
    metric: Metric
    hits: tuple[Hit, ...] = ()
    failure: PatchwordError | None = None
    source: Any = None

    @property
    def error(self) -> str:
        """The reason and its fix, or ""."""
        return "" if self.failure is None else self.failure.about(self.name)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: {"file", "metric", "hits": [{"rank", "file", "row", "score"}]} or {"file", "error"}."""
        if self.error:
            return {"file": self.name, "error": self.error}
        hits = [{"rank": h.rank, "file": h.name, "row": h.row, "score": h.score} for h in self.hits]
        return {"file": self.name, "metric": self.metric, "hits": hits}
