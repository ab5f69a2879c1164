"""Exact nearest neighbours: as plain float64 arithmetic finds them, with equal scores in the order of the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchword.retrieval.nearest import METRICS, Metric, nearest


def _plain(query: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """Scores in float64, larger is nearer."""
    one, others = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(np.square(others - one).sum(axis=1))
    scores = (others * one).sum(axis=1)
    if metric == "cosine":
        both = np.sqrt(np.square(others).sum(axis=1)) * np.sqrt(np.square(one).sum())
        scores = scores / np.where(both, both, 1)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(METRICS),
    count=st.integers(1, 60),
    top=st.integers(1, 12),
    spread=st.sampled_from([1.0, 1e-3, 1e-6]),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_what_is_found_is_the_exact_order(
    seed: int, metric: Metric, count: int, top: int, spread: float, offset: float
) -> None:
    """Also where float32 products can't tell the rows apart: close together and far from the origin."""
    drawn = np.random.default_rng(seed)
    rows = (offset + spread * drawn.standard_normal((count, 7))).astype(np.float32)
    rows[drawn.integers(0, count, count // 3)] = rows[0]  # equal rows, so ties
    queries = (offset + spread * drawn.standard_normal((3, 7))).astype(np.float32)
    found = nearest(queries, rows, top, metric)
    for query, indices, scores in zip(queries, found.indices, found.scores, strict=True):
        plain = _plain(query, rows, metric)
        assert indices.tolist() == np.argsort(-plain, kind="stable")[:top].tolist()
        assert np.allclose(np.abs(scores), np.abs(plain[indices]), atol=0, rtol=1e-9)


def test_a_query_finds_the_same_alone_and_among_others() -> None:
    drawn = np.random.default_rng(0)
    rows, queries = (drawn.standard_normal((n, 64)).astype(np.float32) for n in (5000, 40))
    together = nearest(queries, rows, 10)
    for i, query in enumerate(queries):
        alone = nearest(query[None], rows, 10)
        assert (alone.indices[0] == together.indices[i]).all() and (
            alone.scores[0] == together.scores[i]
        ).all()


def test_equal_rows_come_in_their_order_and_zero_has_no_cosine() -> None:
    rows = np.array([[0, 0], [1, 1], [2, 2], [1, 1]], np.float32)
    found = nearest(np.array([[3, 3]], np.float32), rows, 4)
    assert found.indices[0].tolist() == [1, 2, 3, 0]
    assert (
        found.scores[0] == pytest.approx([1, 1, 1, 0]) and (found.scores[0][:3] == found.scores[0][0]).all()
    )


@pytest.mark.parametrize("metric", METRICS)
def test_values_whose_square_float32_cannot_hold_are_compared(metric: Metric) -> None:
    rows = np.array([[1e30, 0], [0, 1e30], [1e30, 1e30]], np.float32)
    found = nearest(np.array([[1e30, 5e29]], np.float32), rows, 3, metric)
    plain = _plain(np.array([1e30, 5e29], np.float32), rows, metric)
    assert found.indices[0].tolist() == np.argsort(-plain, kind="stable").tolist()
