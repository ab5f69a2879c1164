"""What the outputs of a model mean: probabilities of one class, of each class on its own, or numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchword.metrics import softmax
from patchword.weights.card import ModelCard

Shares = NDArray[np.float32]


def sigmoid(logits: NDArray[np.floating]) -> Shares:
    """Logits of any shape as probabilities, each on its own, in float64 without overflow."""
    shares: Shares = np.exp(-np.logaddexp(0, -logits.astype(np.float64))).astype(np.float32)
    return shares


def in_units(card: ModelCard, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Outputs [..., T] of a model of numbers in the units of its training data."""
    numbers: NDArray[np.float64] = outputs.astype(np.float64) * card.std + card.mean
    return numbers


def read_output(
    card: ModelCard, names: Sequence[str], values: NDArray[np.floating] | None
) -> tuple[Shares | None, dict[str, float] | None]:
    """The probabilities [C], or the numbers by name, of the output of one image; neither without one."""
    if values is None:
        return None, None
    if card.task == "number":
        return None, dict(zip(names, in_units(card, values).tolist(), strict=True))
    return (sigmoid(values) if card.task == "multi" else softmax(values)), None
