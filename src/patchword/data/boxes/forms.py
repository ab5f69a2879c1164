"""What the four numbers of a box mean, and signs that they mean something else.

Shapes: M boxes; frames [M, 2] are (h, w) of their images in pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, SettingsError, plural

Order = Literal["xywh", "xyxy", "cxcywh"]
Array = NDArray[np.float64]
# Rounding of pixels, and of shares to four decimals.
_SLACK_PIXELS, _SLACK_SHARE = 1.5, 0.002
# A set in which this share of the boxes contradicts its convention is written in another one.
_MANY, _NEARLY_ALL = 0.1, 0.98


@dataclass(frozen=True)
class Form:
    """order: corner and size, two corners, or centre and size. relative: numbers are shares of the image's sides."""

    order: Order
    relative: bool = False

    @property
    def name(self) -> str:
        return self.order + ("-relative" if self.relative else "")

    @property
    def text(self) -> str:
        words = {
            "xywh": "[left, top, width, height]",
            "xyxy": "[left, top, right, bottom]",
            "cxcywh": "[centre x, centre y, width, height]",
        }[self.order]
        return f"{words} {'as shares of the image' if self.relative else 'in pixels'}"


ORDERS: tuple[Order, ...] = ("xywh", "xyxy", "cxcywh")
FORMS = {form.name: form for order in ORDERS for form in (Form(order), Form(order, relative=True))}


def form_called(name: str) -> Form:
    """Raises: SettingsError."""
    if name not in FORMS:
        raise SettingsError(f"--box-format is {name!r}", f"give one of: {', '.join(FORMS)}")
    return FORMS[name]


def corners(numbers: Array, form: Form, frames: Array) -> Array:
    """[M, 4] in any form → corners [M, 4] in pixels."""
    scale = frames[:, [1, 0, 1, 0]] if form.relative else 1.0
    first, second = numbers[:, :2], numbers[:, 2:]
    if form.order == "xywh":
        second = first + second
    elif form.order == "cxcywh":
        first, second = first - second / 2, first + second / 2
    return np.concatenate([first, second], axis=1) * scale


def refuse_other_form(numbers: Array, form: Form, frames: Array, source: str) -> None:
    """Raises: DataError if the numbers of a set are clearly written in another form, with the option that reads them."""
    if not len(numbers):
        return
    if form.relative and (np.abs(numbers) * frames[:, [1, 0, 1, 0]] <= 1.0 + 1e-6).all():
        raise DataError(
            f"{source}: all {plural(len(numbers), 'box', 'boxes')} lie in the first pixel: their numbers are divided by "
            "the size of the image twice",
            "export the boxes again, divided once",
        )
    if not form.relative and numbers.max() <= 1.0 + 1e-6 and frames.min() > 4:
        _refuse(source, form, Form(form.order, relative=True), "no number is larger than 1")
    if form.relative and (numbers.max(axis=1) > 1.5).mean() >= 0.5:
        _refuse(source, form, Form(form.order), f"they reach {numbers.max():g}")
    wrong = ~_fits(numbers, form, frames)
    if wrong.mean() < _MANY:
        return
    for order in ORDERS:
        other = Form(order, form.relative)
        if order != form.order and _fits(numbers, other, frames).mean() >= _NEARLY_ALL:
            share = f"{100 * wrong.mean():.0f} % of the boxes leave their image or have no area, as {other.order} "
            fit = _fits(numbers, other, frames).mean()
            _refuse(source, form, other, share + ("none does" if fit == 1 else f"{100 * (1 - fit):.0f} %"))


def _fits(numbers: Array, form: Form, frames: Array) -> NDArray[np.bool_]:
    """[M]: whether a box with an area lies in its image."""
    found = corners(numbers, form, frames)
    slack = np.maximum(_SLACK_PIXELS, _SLACK_SHARE * frames.max(axis=1))[:, None]
    inside = (found >= -slack).all(axis=1) & (found[:, 2:] <= frames[:, ::-1] + slack).all(axis=1)
    fits: NDArray[np.bool_] = inside & (found[:, 2:] >= found[:, :2]).all(axis=1)
    return fits


def _refuse(source: str, form: Form, other: Form, why: str) -> None:
    raise DataError(
        f"{source}: the boxes are not {form.text} but probably {other.text}: {why}",
        f"pass --box-format {other.name}, or {form.name} if they are right",
    )
