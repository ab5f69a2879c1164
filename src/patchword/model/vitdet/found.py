"""What the detector on a plain ViT predicts. Shapes: L layers, B images, N cells, Q queries, E queries for practice, C classes."""

from typing import NamedTuple

from torch import Tensor


class Practised(NamedTuple):
    """Answers of the queries that start near an object; in training only.

    logits [L, B, E, C], boxes [L, B, E, 4]. target [B, E]: the object (index in the targets) of each; -1 for none. groups: of
    queries for each object.
    """

    logits: Tensor
    boxes: Tensor
    target: Tensor
    groups: int


class Found(NamedTuple):
    """What the detector predicts.

    logits [L, B, Q, C], boxes [L, B, Q, 4]: of each decoder layer; the last is the answer. cell_logits [B, N, C], cell_boxes
    [B, N, 4]: the proposals of all cells. cells [N, 4]: where each started. ranks [B, Q]: by what each query's cell was chosen.
    """

    logits: Tensor
    boxes: Tensor
    cell_logits: Tensor
    cell_boxes: Tensor
    cells: Tensor
    ranks: Tensor
    practice: Practised | None = None

    @property
    def scores(self) -> Tensor:
        """Of each query and class, from 0 to 1 [B, Q, C]: the geometric mean of what the decoder and the query's cell say.

        A cell beside a likelier one ranks low. The decoder needs thousands of steps before it tells which of the queries on an
        object is to answer; this factor says it from the start (decision 0015).
        """
        return (self.logits[-1].float().sigmoid() * self.ranks[..., None]).sqrt()
