"""One picture of training views, each next to its source."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

from patchword.errors import OutputError
from patchword.images.stored import Pixels
from patchword.inference.output import check_place, whole_file

COLUMNS = 4
# Pixels: longer side of a shown image, between source and view, around a pair, of text lines.
SIDE, GAP, MARGIN, LINE = 168, 6, 16, 20
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"


class TrainingView(Protocol):
    """`training.preview.TrainingView`, which needs torch."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Pixels: ...
    @property
    def view(self) -> Pixels: ...
    @property
    def mixed(self) -> bool: ...
    @property
    def shares(self) -> Mapping[str, float]: ...


def check_picture(path: Path) -> None:
    """Raises: OutputError if no PNG can be written to `path`."""
    check_name(path, "--augment")
    check_place(path)


def check_name(path: Path, option: str) -> None:
    """Raises: OutputError for a name that is no PNG's."""
    if path.suffix.lower() != ".png":
        raise OutputError(
            f"{option} is {str(path)!r}, which does not end in .png",
            f"give the name of a PNG file after {option}, or put {option} last",
        )


def write_views(views: Sequence[TrainingView], title: Sequence[str], path: Path) -> None:
    """Write the views as a PNG, four pairs of source and view in a row. Raises: OutputError."""
    with whole_file(path, text=False) as file:
        draw_views(views, title).save(file, "PNG")


def draw_views(views: Sequence[TrainingView], title: Sequence[str]) -> Image.Image:
    """title: lines above the views."""
    sources = [_fitted(view.source) for view in views]
    shown = [_fitted(view.view) for view in views]
    # All sources have one size, and all views.
    left, right = sources[0].width, shown[0].width
    height = max(sources[0].height, shown[0].height)
    cell = left + GAP + right, height + 2 * LINE
    rows = -(-len(views) // COLUMNS)
    width = MARGIN + COLUMNS * (cell[0] + MARGIN)
    top = MARGIN + len(title) * (LINE + 4) + MARGIN // 2
    page = Image.new("RGB", (width, top + rows * (cell[1] + MARGIN)), PAPER)
    draw = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    for i, text in enumerate(title):
        font, ink = (large, INK) if i == 0 else (small, FAINT)
        draw.text((MARGIN, MARGIN + i * (LINE + 4)), cut(text, font, width - 2 * MARGIN), ink, font)
    for i, view in enumerate(views):
        x, y = MARGIN + i % COLUMNS * (cell[0] + MARGIN), top + i // COLUMNS * (cell[1] + MARGIN)
        page.paste(sources[i], (x, y))
        page.paste(shown[i], (x + left + GAP, y))
        below = y + height + 3
        draw.text((x, below), cut(_target(view), small, cell[0]), INK, small)
        draw.text((x, below + LINE - 3), cut(view.name, small, cell[0]), FAINT, small)
    return page


def _fitted(pixels: Pixels) -> Image.Image:
    """The longer side at SIDE pixels; enlarged pixels stay visible. Other than 1 or 3 channels: the first."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")
    scale = SIDE / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.NEAREST if scale > 3 else Image.Resampling.BICUBIC)


def _target(view: TrainingView) -> str:
    if len(view.shares) == 1:
        return next(iter(view.shares)) + (" (two images)" if view.mixed else "")
    return ", ".join(f"{100 * share:.0f} % {name}" for name, share in view.shares.items())


def cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, shortened at the end if it is wider than `width` pixels."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
