"""Galleries, plots, bars and tables as HTML with inline SVG and PNG. Colours follow the light or dark page."""

import base64
import io
from collections.abc import Callable

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from patchword.lessons.panel import Bars, Gallery, Picture, Plot, Table, Tile
from patchword.lessons.words import Language, Numbers, Text, filled, shown
from patchword.reports.plots import Chart, Line, svg
from patchword.reports.sheet import data_url

STYLES = ("val", "train", "top5", "rate", "floor")
# As in report.css: what is above zero, and what is below.
BLUE, ORANGE = (26, 106, 134), (196, 84, 20)


def draw(picture: Picture, language: Language, slug: str, numbers: Numbers) -> Markup:
    """One picture. slug: unique on the page. numbers: those that labels may name."""
    match picture:
        case Gallery():
            return _gallery(picture, language, numbers)
        case Plot():
            return _plot(picture, language, slug)
        case Bars():
            return _bars(picture, language)
        case Table():
            return _table(picture, language, numbers)


def _gallery(gallery: Gallery, language: Language, numbers: Numbers) -> Markup:
    tiles = Markup("").join(_tile(tile, language, numbers, gallery.width) for tile in gallery.tiles)
    slider = Markup("")
    if gallery.slider is not None:
        slider = Markup(' data-slider="{}"').format(gallery.slider.said(language))
    return Markup('<div class="gallery"{}>{}</div>').format(slider, tiles)


def _tile(tile: Tile, language: Language, numbers: Numbers, width: int) -> Markup:
    source = data_url(tile.pixels) if tile.pixels is not None else _heat(tile.values, tile.high)
    label = filled(tile.label, language, numbers)
    # The caption says what the image shows: an alternative text would be read twice.
    return Markup(
        '<figure class="tile" style="width:{}px"><img src="{}" alt="" class="crisp"><figcaption>{}</figcaption></figure>'
    ).format(width, source, label)


def _heat(values: NDArray[np.float64] | None, high: float | None) -> str:
    """Values [h, w] as a transparent PNG: the more, the more colour; negative ones in the second colour."""
    assert values is not None
    values = np.nan_to_num(np.asarray(values, np.float64))
    top = high if high is not None else float(np.abs(values).max()) or 1.0
    strength = np.clip(np.abs(values) / (top or 1.0), 0, 1)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(values[..., None] < 0, np.array(ORANGE), np.array(BLUE))
    pixels[..., 3] = np.rint(255 * strength)
    stream = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _plot(plot: Plot, language: Language, slug: str) -> Markup:
    show: Callable[[float], str] = lambda value: shown(value, plot.show)  # noqa: E731
    lines = [
        Line(name=curve.name.said(language), points=curve.points, style=STYLES[i % len(STYLES)], marks=True)
        for i, curve in enumerate(plot.curves)
    ]
    chart = Chart(
        title=plot.title.said(language),
        description=", ".join(line.name for line in lines),
        lines=lines,
        show=show,
        from_zero=plot.from_zero,
        y_most=plot.most,
        slug=slug,
        x_name=plot.x_name.said(language),
    )
    key = Markup("").join(
        Markup('<li><i class="{}"></i>{}</li>').format(line.style, line.name) for line in lines
    )
    return Markup('<h4>{}</h4>{}<ul class="key">{}</ul>').format(chart.title, svg(chart), key)


def _bars(bars: Bars, language: Language) -> Markup:
    most = bars.most if bars.most is not None else max((value for _, value in bars.rows), default=1.0)
    rows = []
    for name, value in bars.rows:
        width = 100 * min(max(value / (most or 1.0), 0.0), 1.0)
        rows.append(
            Markup(
                '<tr><th scope="row">{}</th><td class="track"><i style="width:{:.1f}%"></i></td><td class="num">{}</td></tr>'
            ).format(name.said(language), width, _number(value, bars.show))
        )
    return Markup('<table class="bars"><caption>{}</caption><tbody>{}</tbody></table>').format(
        bars.title.said(language), Markup("").join(rows)
    )


def _table(table: Table, language: Language, numbers: Numbers) -> Markup:
    heads = Markup("").join(
        Markup('<th scope="col">{}</th>').format(filled(heading, language, numbers))
        for heading in table.headings
    )
    rows = []
    for name, cells in table.rows:
        shown_cells = Markup("").join(
            Markup("<td>{}</td>").format(
                filled(cell, language, numbers) if isinstance(cell, Text) else _number(*cell)
            )
            for cell in cells
        )
        rows.append(
            Markup('<tr><th scope="row">{}</th>{}</tr>').format(filled(name, language, numbers), shown_cells)
        )
    title = escape(table.title.said(language))
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}"><table><caption>{0}</caption>'
        "<thead><tr><td></td>{1}</tr></thead><tbody>{2}</tbody></table></div>"
    ).format(title, heads, Markup("").join(rows))


def _number(value: float, how: str) -> Markup:
    return Markup('<data value="{!r}">{}</data>').format(value, shown(value, how))
