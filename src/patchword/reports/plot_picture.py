"""Charts as one image, for those who want a file to paste. The page draws the same charts as SVG (`plots.py`)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from patchword.reports.plots import Chart, Line, Point, finite, ticks
from patchword.reports.sheet import wrapped
from patchword.reports.views import FAINT, INK, LINE, MARGIN, PAPER

WIDE, HIGH = 470, 300
LEFT, BOTTOM = 48, 40
RULE = "#e2dfd6"
COLOURS = {"val": "#1a6a86", "train": "#b34d12", "top5": "#6f559e", "rate": "#59616c"}
DASHED = {"top5": (9, 6), "rate": (3, 5)}
# Lines are drawn larger and reduced: Pillow does not smooth them.
TIMES = 3


def draw_charts(charts: Sequence[Chart], title: Sequence[str], notes: Sequence[str]) -> Image.Image:
    """The charts side by side, below a title (its first line large) and above notes."""
    large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    width = MARGIN + len(charts) * (WIDE + MARGIN)
    head = [(text, INK, large) for text in wrapped(title[:1], large, width - 2 * MARGIN)]
    head += [(text, FAINT, small) for text in wrapped(title[1:], small, width - 2 * MARGIN)]
    foot = wrapped(notes, small, width - 2 * MARGIN)
    key = max(len(chart.lines) for chart in charts) * LINE
    top = MARGIN + len(head) * (LINE + 4) + MARGIN
    below = top + LINE + HIGH + key + MARGIN
    page = Image.new("RGB", (width, below + len(foot) * LINE + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(page)
    for i, (text, ink, font) in enumerate(head):
        draw.text((MARGIN, MARGIN + i * (LINE + 4)), text, ink, font)
    for i, chart in enumerate(charts):
        x = MARGIN + i * (WIDE + MARGIN)
        draw.text((x, top), chart.title, INK, small)
        page.paste(_drawn(chart), (x, top + LINE))
        for j, line in enumerate(chart.lines):
            y = top + LINE + HIGH + j * LINE
            _dashes(draw, [(x + LEFT, y + 9), (x + LEFT + 26, y + 9)], line, 2)
            draw.text((x + LEFT + 34, y), line.name, INK, small)
    for i, text in enumerate(foot):
        draw.text((MARGIN, below + i * LINE), text, FAINT, small)
    return page


def _drawn(chart: Chart) -> Image.Image:
    lines = [Line(name=s.name, points=finite(s.points), style=s.style, marks=s.marks) for s in chart.lines]
    points = [point for line in lines for point in line.points]
    last = max(x for x, _ in points)
    lowest = 0.0 if chart.from_zero else min(y for _, y in points)
    y_ticks = ticks(lowest, max(y for _, y in points), 5, most=chart.y_most)
    x_ticks = [tick for tick in ticks(0, last, 8, whole=True) if tick <= last]
    image = Image.new("RGB", (WIDE * TIMES, HIGH * TIMES), PAPER)
    draw = ImageDraw.Draw(image)

    def place(x: float, y: float) -> Point:
        across = LEFT + x / last * (WIDE - LEFT - 10)
        down = 10 + (y_ticks[-1] - y) / (y_ticks[-1] - y_ticks[0]) * (HIGH - 10 - BOTTOM)
        return across * TIMES, down * TIMES

    _frame(draw, chart, x_ticks, y_ticks, place)
    for line in lines:
        placed = [place(*point) for point in line.points]
        _dashes(draw, placed, line, 2 * TIMES)
        for x, y in placed if line.marks else ():
            radius = 3.5 * TIMES
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), COLOURS[line.style])
    return image.resize((WIDE, HIGH), Image.Resampling.LANCZOS)


def _frame(
    draw: ImageDraw.ImageDraw,
    chart: Chart,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    place: Callable[[float, float], Point],
) -> None:
    font = ImageFont.load_default(size=12 * TIMES)
    for tick in y_ticks:
        x, y = place(0, tick)
        draw.line((x, y, (WIDE - 10) * TIMES, y), RULE, TIMES)
        draw.text((x - 8 * TIMES, y), chart.show(tick), FAINT, font, anchor="rm")
    for tick in x_ticks:
        x, y = place(tick, y_ticks[0])
        draw.text((x, y + 5 * TIMES), f"{tick:g}", FAINT, font, anchor="ma")
    middle = (LEFT + (WIDE - LEFT - 10) / 2) * TIMES
    draw.text((middle, (HIGH - 2) * TIMES), chart.x_name, FAINT, font, anchor="md")


def _dashes(draw: ImageDraw.ImageDraw, points: Sequence[Point], line: Line, width: int) -> None:
    """A line through the points, in the colour and dashes of its style."""
    colour, pattern = COLOURS[line.style], DASHED.get(line.style)
    if pattern is None:
        draw.line(list(points), colour, width, joint="curve")
        return
    drawn, gap = (length * width / 2 for length in pattern)
    travelled = 0.0
    for (ax, ay), (bx, by) in pairwise(points):
        length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
        done = 0.0
        while done < length:
            phase = (travelled + done) % (drawn + gap)
            step = min((drawn if phase < drawn else drawn + gap) - phase + 1e-6, length - done)
            if phase < drawn:
                ends = [
                    (ax + (bx - ax) * s / length, ay + (by - ay) * s / length) for s in (done, done + step)
                ]
                draw.line(ends, colour, width)
            done += step
        travelled += length
