"""Weighted k-nearest neighbours with cosine similarity, exact.

Source: Caron et al. 2021 (arXiv 2104.14294), DINO's `eval_knn.py`: k = 20, a vote weighs exp(similarity / 0.07).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from patchword.errors import SettingsError, plural

TEMPERATURE = 0.07
K = 20
# The similarities held at once: 1,024 x 65,536 float32 are 256 MiB, whatever the number of images.
_QUERIES, _KEYS = 1024, 65536


def default_k(labels: NDArray[np.int64]) -> int:
    """20, or the median number of images per class if that is lower: more neighbours would mostly be of other classes."""
    counts = np.bincount(labels)
    return max(1, min(K, int(np.median(counts[counts > 0]))))


def knn_votes(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    num_classes: int,
    *,
    k: int,
    temperature: float = TEMPERATURE,
) -> NDArray[np.float64]:
    """The share of votes of each class, [M, C], each row summing to 1.

    train [N, D] and labels [N]: the known images; queries [M, D].
    Raises: SettingsError if k is not between 1 and N.
    """
    if not 1 <= k <= len(train):
        raise SettingsError(
            f"k is {k}, but there are {plural(len(train), 'training image')}",
            f"set k between 1 and {len(train)}",
        )
    keys = _unit(train)
    classes = torch.from_numpy(labels)
    votes = np.zeros((len(queries), num_classes))
    with torch.inference_mode():
        for first in range(0, len(queries), _QUERIES):
            near, where = _nearest(_unit(queries[first : first + _QUERIES]), keys, k)
            # Relative to the nearest one, so that nothing underflows.
            weights = ((near - near[:, :1]).double() / temperature).exp()
            block = torch.zeros(len(near), num_classes, dtype=torch.float64)
            block.scatter_add_(1, classes[where], weights)
            votes[first : first + _QUERIES] = (block / block.sum(1, keepdim=True)).numpy()
    return votes


def _nearest(queries: torch.Tensor, keys: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k highest similarities of each query, highest first, and the rows of their keys: [m, k] each."""
    best = torch.empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.int64)
    for first in range(0, len(keys), _KEYS):
        similar = queries @ keys[first : first + _KEYS].T
        values, rows = similar.topk(min(k, similar.shape[1]), dim=1)
        both, places = torch.cat((best, values), 1), torch.cat((where, rows + first), 1)
        best, order = both.topk(min(k, both.shape[1]), dim=1)
        where = places.gather(1, order)
    return best, where


def _unit(values: NDArray[np.float32]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(values)).float(), dim=1)
