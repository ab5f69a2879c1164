"""Draw curves as inline SVG, with the colours of the page and the fonts of the reader.

The SVG is written here and not by matplotlib: light and dark mode need only the style sheet, the same
numbers give the same bytes, and a run does not end by waiting for matplotlib's import and font cache
(docs/decisions/0002).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
# More points than the curve has pixels only make the file larger.
MAX_POINTS = 350
MAX_MARKS = 60

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve. `style` is a CSS class; `marks` adds dots with tooltips."""

    name: str
    points: Sequence[Point]
    style: str
    marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over epochs, or over `x_name`. `show` formats a y value; `ring` is a highlighted point.

    `y_most`: no tick lies above it. `y_reach`: the axis ends there at the lowest, so that charts compare.
    """

    title: str
    description: str
    lines: Sequence[Line]
    show: Callable[[float], str]
    ring: Point | None = None
    y_most: float | None = None
    y_reach: float = -math.inf
    from_zero: bool = False
    slug: str = field(default="chart")
    x_name: str = "epoch"


def svg(chart: Chart) -> Markup:
    """The chart as an SVG element, with a title and description for screen readers."""
    lines = [Line(name=s.name, points=finite(s.points), style=s.style, marks=s.marks) for s in chart.lines]
    everything = [point for line in lines for point in line.points]
    if not everything:
        return Markup("")
    last = max(x for x, _ in everything)
    lowest = 0.0 if chart.from_zero else min(y for _, y in everything)
    highest = max(chart.y_reach, *(y for _, y in everything))
    y_ticks = ticks(lowest, highest, 5, most=chart.y_most)
    place = _placing(last, y_ticks[0], y_ticks[-1])
    x_ticks = [tick for tick in ticks(0, last, 6, whole=True) if tick <= last] if last else []
    parts = [_frame(chart, x_ticks, y_ticks, place)]
    parts += [_line(line, place, chart) for line in lines if line.points]
    if chart.ring:
        x, y = place(*chart.ring)
        parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
    name = f"{chart.slug}-title {chart.slug}-text"
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}">'
    title = f'<title id="{chart.slug}-title">{escape(chart.title)}</title>'
    text = f'<desc id="{chart.slug}-text">{escape(chart.description)}</desc>'
    # Every part above is generated in this module or escaped.
    return Markup("".join([head, title, text, *parts, "</svg>"]))


def finite(points: Sequence[Point]) -> list[Point]:
    """The finite points, thinned evenly to at most MAX_POINTS; the last is kept."""
    drawable = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(drawable) <= MAX_POINTS:
        return drawable
    step = (len(drawable) - 1) / (MAX_POINTS - 1)
    return [drawable[round(i * step)] for i in range(MAX_POINTS)]


def ticks(
    low: float, high: float, wanted: int, *, whole: bool = False, most: float | None = None
) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them."""
    if high - low < 1e-12 * max(abs(high), abs(low), 1e-12):
        spread = abs(high) * 0.5 or 1.0
        low, high = (low, low + spread) if low >= 0 else (low - spread, low + spread)
        high = most if most is not None and high > most >= low else high
        if high <= low:
            low = high - spread
    rough = (high - low) / wanted
    size = 10 ** math.floor(math.log10(rough))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= rough * 0.999)
    if whole:
        step = max(1, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    found = [round(i * step, 12) for i in range(first, last + 1)]
    return found if most is None else [t for t in found if t <= most + 1e-9]


def _placing(last: float, lowest: float, highest: float) -> Callable[[float, float], Point]:
    """Map (epoch, value) to SVG coordinates; epochs run from 0 to `last`."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> Point:
        return LEFT + x / (last or 1) * wide, TOP + (highest - y) / (highest - lowest) * high

    return place


def _frame(
    chart: Chart, x_ticks: list[float], y_ticks: list[float], place: Callable[[float, float], Point]
) -> str:
    parts = []
    for tick in y_ticks:
        _, y = place(0, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{chart.show(tick)}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(chart.x_name)}</text>'
    )
    return "".join(parts)


def _line(line: Line, place: Callable[[float, float], Point], chart: Chart) -> str:
    placed = [place(*point) for point in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [f'<polyline class="{line.style}" points="{path}"/>']
    if (line.marks and len(placed) <= MAX_MARKS) or len(placed) == 1:
        for (x, y), (at, value) in zip(placed, line.points, strict=True):
            title = f"<title>{escape(line.name)}, {escape(chart.x_name)} {at:g}: {chart.show(value)}</title>"
            parts.append(
                f'<circle class="{line.style} mark" cx="{x:.1f}" cy="{y:.1f}" r="2.6">{title}</circle>'
            )
    return "".join(parts)
