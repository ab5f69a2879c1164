"""Rows of labelled images in one picture: a row per image, a column per way of showing it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from patchword.images.stored import Pixels
from patchword.reports.views import FAINT, GAP, INK, LINE, MARGIN, PAPER, cut

SIDE = 192


class Column(NamedTuple):
    """A heading, and the heading above it that it shares with its neighbours; "" for none."""

    name: str
    group: str = ""


class Row(NamedTuple):
    """One image: its name, a line about it, and its pixels [H, W, C] uint8 for each column."""

    name: str
    note: str
    cells: tuple[Pixels, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """title: the first line is large. notes: below the images. side: pixels of an image's longer side in a picture."""

    title: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    side: int = SIDE


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The sheet as one image."""
    large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    shown = [[_fitted(pixels, sheet.side) for pixels in row.cells] for row in sheet.rows]
    widths = [max(row[i].width for row in shown) for i in range(len(sheet.columns))]
    heights = [max(image.height for image in row) for row in shown]
    # A group stands apart from the columns next to it.
    lefts, x = [], MARGIN
    for i, column in enumerate(sheet.columns):
        x += MARGIN if i and column.group != sheet.columns[i - 1].group else 0
        lefts.append(x)
        x += widths[i] + GAP
    width = x - GAP + MARGIN
    titles = wrapped(sheet.title[:1], large, width - 2 * MARGIN)
    lines = wrapped(sheet.title[1:], small, width - 2 * MARGIN)
    notes = wrapped(sheet.notes, small, width - 2 * MARGIN)
    grouped = any(column.group for column in sheet.columns)
    top = MARGIN + len(titles) * (LINE + 4) + len(lines) * LINE + MARGIN
    body = top + LINE * (2 if grouped else 1) + 4
    height = body + sum(heights) + len(shown) * (2 * LINE + MARGIN) + len(notes) * LINE + MARGIN // 2
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(titles):
        draw.text((MARGIN, MARGIN + i * (LINE + 4)), text, INK, large)
    for i, text in enumerate(lines):
        draw.text((MARGIN, MARGIN + len(titles) * (LINE + 4) + i * LINE), text, FAINT, small)
    _headings(draw, sheet.columns, lefts, widths, body - LINE - 4)
    y = body
    for row, images, tall in zip(sheet.rows, shown, heights, strict=True):
        for left, image in zip(lefts, images, strict=True):
            page.paste(image, (left, y))
        draw.text((MARGIN, y + tall + 4), cut(row.name, small, width - 2 * MARGIN), INK, small)
        draw.text((MARGIN, y + tall + LINE + 2), cut(row.note, small, width - 2 * MARGIN), FAINT, small)
        y += tall + 2 * LINE + MARGIN
    for i, text in enumerate(notes):
        draw.text((MARGIN, y + i * LINE), text, FAINT, small)
    return page


def data_url(pixels: Pixels) -> str:
    """The image as a PNG in a data: URL, as large as it is."""
    encoded = io.BytesIO()
    _plain(pixels).save(encoded, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _headings(
    draw: ImageDraw.ImageDraw, columns: Sequence[Column], lefts: list[int], widths: list[int], y: int
) -> None:
    small = ImageFont.load_default(size=13)
    for i, column in enumerate(columns):
        draw.text((lefts[i], y), cut(column.name, small, widths[i]), INK, small)
        if not column.group or (i and columns[i - 1].group == column.group):
            continue
        last = max(j for j in range(i, len(columns)) if columns[j].group == column.group)
        right = lefts[last] + widths[last]
        draw.text((lefts[i], y - LINE), cut(column.group, small, right - lefts[i]), FAINT, small)
        draw.line((lefts[i], y - 3, right, y - 3), FAINT)


def wrapped(
    texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """The texts as lines of at most `width` pixels, broken between words."""
    lines: list[str] = []
    for text in texts:
        line = ""
        for word in text.split(" "):
            longer = f"{line} {word}".lstrip()
            if line and font.getlength(longer) > width:
                lines.append(cut(line, font, width))
                line = word
            else:
                line = longer
        lines.append(cut(line, font, width))
    return lines


def _fitted(pixels: Pixels, side: int) -> Image.Image:
    """The longer side at `side` pixels; enlarged pixels stay visible."""
    image = _plain(pixels)
    scale = side / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC)


def _plain(pixels: Pixels) -> Image.Image:
    """RGB; of other than 1 or 3 channels, the first."""
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
