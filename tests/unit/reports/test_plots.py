"""Curves: ticks that hold the values, and numbers that cannot be drawn."""

import math
import re

import pytest

from patchword.reports.plots import MAX_POINTS, Chart, Line, finite, svg, ticks


def _chart(points: list[tuple[float, float]]) -> str:
    line = Line(name="loss & more", points=points, style="line val", marks=True)
    return str(svg(Chart(title="<t>", description="d", lines=[line], show=lambda v: f"{v:g}")))


@pytest.mark.parametrize(
    "span", [(0, 40), (0.0, 2.3), (0.2113, 0.2114), (5, 5), (0, 0), (-3, 7e6), (1e-9, 2e-9)]
)
def test_ticks_enclose_the_values_and_are_few(span: tuple[float, float]) -> None:
    found = ticks(*span, 5)
    assert found[0] <= span[0] and found[-1] >= span[1]
    assert 2 <= len(found) <= 8 and found == sorted(set(found))


@pytest.mark.parametrize("low", [0.0, 0.31, 0.985, 1.0])
def test_shares_get_no_tick_beyond_all(low: float) -> None:
    found = ticks(low, 1.0, 5, most=1.0)
    assert len(found) >= 2 and found[-1] == 1.0 and found[0] <= low


def test_charts_that_reach_the_same_height_have_the_same_axis() -> None:
    axes = [
        re.findall(r'text-anchor="end">([^<]*)<', str(svg(Chart(
            title="t", description="d", lines=[Line(name="l", points=[(0, 0.0), (9, top)], style="line val")],
            show=lambda v: f"{v:g}", y_most=1.0, y_reach=1.0,
        ))))
        for top in (0.1, 0.7, 1.0)
    ]  # fmt: skip
    assert axes == [["0", "0.2", "0.4", "0.6", "0.8", "1"]] * 3


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert finite([(1, math.nan), (2, 3.0), (3, math.inf)]) == [(2, 3.0)]
    assert _chart([(1, math.nan)]) == ""


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(i), float(i)) for i in range(100_000)]
    thinned = finite(points)
    assert len(thinned) == MAX_POINTS and thinned[0] == points[0] and thinned[-1] == points[-1]


def test_a_single_epoch_shows_as_a_mark() -> None:
    assert "<circle" in _chart([(1.0, 0.5)])


def test_names_in_a_chart_are_escaped() -> None:
    text = _chart([(1.0, 0.5), (2.0, 0.25)])
    assert "&lt;t&gt;" in text and "loss &amp; more" in text and "<t>" not in text
