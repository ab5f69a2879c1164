"""The hits of a search as a picture (PNG) or a page (HTML): each image given, then the images found with their scores."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from patchword.errors import DataError, ImageError
from patchword.images.decode import Source, decode
from patchword.images.preprocess import ValueRange
from patchword.inference.output import whole_file
from patchword.reports.html import filled
from patchword.reports.views import FAINT, GAP, INK, LINE, MARGIN, PAPER, cut
from patchword.retrieval.found import Found, Hit
from patchword.retrieval.index import Index

# More images than this are not drawn; every format of rows holds them all.
MOST_DRAWN = 50
COLUMNS, SIDE = 5, 150
ENDINGS = (".png", ".html")
_SCORE = {"cosine": "cosine", "dot": "dot product", "l2": "distance"}
_ACCENT = "#4269d0"


class SearchPage:
    """Collects the results and writes them. Images beyond `MOST_DRAWN` are counted and not drawn.

    source_of: returns an image of the index by its name, or None. value_range: of deep images. unread: how many images of the
    index could not be opened again.
    """

    def __init__(
        self, index: Index, source_of: Callable[[str], Source | None], value_range: ValueRange | None = None
    ) -> None:
        self.index, self._source_of, self.value_range = index, source_of, value_range
        self.results: list[tuple[Found, Image.Image | None, list[Image.Image | None]]] = []
        self.left_out = self.unread = 0

    def add(self, found: Found) -> None:
        if len(self.results) == MOST_DRAWN:
            self.left_out += 1
            return
        query = None if found.error else self._picture(_fetcher(found), found.name)
        hits = [self._hit(hit) for hit in found.hits]
        self.unread += sum(hit is None for hit in hits)
        self.results.append((found, query, hits))

    def _hit(self, hit: Hit) -> Image.Image | None:
        return self._picture(lambda: self._source_of(hit.name), hit.name)

    def _picture(self, fetch: Callable[[], Source | None], name: str) -> Image.Image | None:
        try:
            source = fetch()
            if source is None:
                return None
            pixels = decode(source, name=name, channels=3, value_range=self.value_range)
        except (ImageError, DataError, OSError):
            return None
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        scale = SIDE / max(image.size)
        size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
        return image.resize(size, Image.Resampling.NEAREST if scale > 3 else Image.Resampling.BICUBIC)

    def write(self, path: Path) -> None:
        """Raises: OutputError."""
        if path.suffix.lower() == ".html":
            with whole_file(path, text=True) as file:
                file.write(self._page())
            return
        with whole_file(path, text=False) as file:
            self._draw().save(file, "PNG")

    @property
    def title(self) -> list[str]:
        metric = self.results[0][0].metric if self.results else "cosine"
        count = f"{len(self.index):,} images"
        return [
            f"Nearest images in {self.index.path.name} ({count})",
            f"{_SCORE[metric]} of {self.index.card.described}; model {self.index.card.weights}",
        ]

    def _draw(self) -> Image.Image:
        rows = [max(-(-len(hits) // COLUMNS), 1) for _, _, hits in self.results]
        cell = SIDE + 2 * LINE + GAP
        left = MARGIN + SIDE + 2 * MARGIN
        width = left + COLUMNS * (SIDE + MARGIN)
        top = MARGIN + 2 * (LINE + 4) + MARGIN
        page = Image.new("RGB", (width, top + sum(rows) * cell + len(rows) * MARGIN), PAPER)
        draw = ImageDraw.Draw(page)
        large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
        for i, text in enumerate(self.title):
            font, ink = ((large, INK), (small, FAINT))[i]
            draw.text((MARGIN, MARGIN + i * (LINE + 4)), cut(text, font, width - 2 * MARGIN), ink, font)
        y = top
        for (found, query, hits), count in zip(self.results, rows, strict=True):
            _cell(page, (MARGIN, y), query, ("query", found.error or _short(found.name)), small)
            draw.line((left - MARGIN, y, left - MARGIN, y + count * cell - GAP), _ACCENT, 2)
            for i, (hit, image) in enumerate(zip(found.hits, hits, strict=True)):
                place = left + i % COLUMNS * (SIDE + MARGIN), y + i // COLUMNS * cell
                _cell(page, place, image, (f"{hit.rank}   {hit.score:.4f}", _short(hit.name)), small)
            y += count * cell + MARGIN
        return page

    def _page(self) -> str:
        results = [
            {
                "name": found.name,
                "error": found.error,
                "image": _data_url(query),
                "hits": [
                    {"rank": h.rank, "name": h.name, "score": f"{h.score:.4f}", "image": _data_url(image)}
                    for h, image in zip(found.hits, hits, strict=True)
                ],
            }
            for found, query, hits in self.results
        ]
        title, about = self.title
        values: dict[str, Any] = {
            "title": title,
            "about": about,
            "results": results,
            "left_out": self.left_out,
            "unread": self.unread,
        }
        return filled("search.html.j2", values)


def _fetcher(found: Found) -> Callable[[], Source | None]:
    source: Any = found.source
    if source is None:
        return lambda: found.name
    return source if callable(source) else lambda: source


def _cell(
    page: Image.Image,
    place: tuple[int, int],
    image: Image.Image | None,
    texts: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = place
    draw = ImageDraw.Draw(page)
    if image is None:
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline="#d0d0d0")
        draw.text((x + 10, y + SIDE // 2 - 8), "not readable here", FAINT, font)
    else:
        page.paste(image, (x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2))
    for i, text in enumerate(texts):
        draw.text((x, y + SIDE + 3 + i * (LINE - 3)), cut(text, font, SIDE), FAINT if i else INK, font)


def _short(name: str) -> str:
    """The last two parts of a path: usually class folder and file."""
    return "/".join(Path(name).parts[-2:])


def _data_url(image: Image.Image | None) -> str:
    if image is None:
        return ""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
