"""What a panel of `patchword learn` consists of. A panel computes; `drawing/` and the template show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from patchword.images.stored import Pixels
from patchword.lessons.subject import Subject
from patchword.lessons.words import Numbers, Text

Values = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage of the flow: its name, and the arrow that leads to it: what happens, and the shape that comes out."""

    name: Text
    shape: str
    op: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image [H, W, C], or one table of values [h, w] drawn as colours from `low` to `high` (negative ones in another)."""

    label: Text
    pixels: Pixels | None = None
    values: Values | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Tiles side by side. slider: with scripts, one at a time, chosen by a slider. width: of a tile in pixels."""

    tiles: Sequence[Tile]
    slider: Text | None = None
    width: int = 132


@dataclass(frozen=True, kw_only=True)
class Curve:
    """name, points (x, y), and whether they are marked."""

    name: Text
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Up to five curves over one axis. show: the format of y."""

    title: Text
    x_name: Text
    curves: Sequence[Curve]
    show: str = ".2f"
    from_zero: bool = True
    most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Rows of a name and a value, the longest bar at `most` (None: the largest value)."""

    title: Text
    rows: Sequence[tuple[Text, float]]
    show: str = ".2f"
    most: float | None = None


# A name and cells. A cell is text, or a number with its format.
Row = tuple[Text, Sequence[Text | tuple[float, str]]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One heading for each cell of a row."""

    title: Text
    headings: Sequence[Text]
    rows: Sequence[Row]


Picture = Gallery | Plot | Bars | Table


@dataclass(frozen=True, kw_only=True)
class Figure:
    picture: Picture
    caption: Text


@dataclass(frozen=True, kw_only=True)
class Check:
    """Three lines of Python, which follow `from patchword import lessons` and a `subject`; and what they print."""

    code: str
    prints: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One step of the page.

    notes: what the notes say. lead: what is seen here. numbers: those that the texts and the check name.
    kindly: where the notes simplify. places: modules and names where it is in the code.
    """

    notes: Text
    lead: Sequence[Text]
    numbers: Numbers
    steps: Sequence[Step]
    figures: Sequence[Figure]
    question: Text
    answer: Text
    check: Check
    places: Sequence[str]
    kindly: Text | None = None
    sources: Sequence[str] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """slug: the panel's anchor on the page. make: computes the panel; may raise NotForThisModel."""

    slug: str
    title: Text
    make: Callable[[Subject], Panel]


class NotForThisModel(Exception):
    """A panel that the given model or image cannot have. reason: why."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason = reason
