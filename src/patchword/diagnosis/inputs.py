"""Find the images that a model takes: size, channels, and a number of images per batch, by trying."""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from patchword.diagnosis.case import NoLogits, logits_of, seeded
from patchword.diagnosis.walk import hidden_tensors, modules_in, weights_in
from patchword.errors import UserError

Size = tuple[int, int]
_ATTRIBUTES = ("image_size", "img_size", "input_size", "resolution", "image_resolution")
_SIZES = (
    32,
    224,
    28,
    64,
    96,
    16,
    48,
    128,
    256,
    384,
    8,
    12,
    14,
    20,
    24,
    36,
    40,
    56,
    72,
    80,
    112,
    160,
    192,
    299,
    512,
)
_BATCH = 5
_BATCHES = (2, 1, 4, 8, 10, 16, 32, 64, 3, 6, 12, 20, 100, 128, 50, 256)
_PIXELS = 2**22
_INSTEAD = "images"


class NoInput(UserError):
    """No image that was tried runs through the model."""


def find_input(module: nn.Module, size: Size | None, channels: int | None) -> tuple[Size, int, int]:
    """The size (rows, columns), the channels and the batch size of images that the model takes.

    size, channels: given by the user, else tried: first what attributes and tables of positions suggest.
    Raises: NoInput.
    """
    # Kept: the first failure with the most likely image tells more than the last one with an unlikely one.
    reason = ""
    sizes = [size] if size else list(dict.fromkeys(_likely_sizes(module)))
    depths = [channels] if channels else list(dict.fromkeys(_likely_channels(module)))
    for batch in (_BATCH, *dict.fromkeys((*_rows(module), *_BATCHES))):
        tried = sizes if batch == _BATCH else sizes[:8]
        for (rows, columns), depth in product(tried, depths):
            if batch * rows * columns * depth > _PIXELS:
                continue
            why = _fails(module, (batch, depth, rows, columns))
            if not why:
                return (rows, columns), depth, batch
            if why.endswith(_INSTEAD):
                raise NoInput(
                    f"the model {why}",
                    "the first axis is the batch: read x[:, 0], not x[0], and average over dim=1",
                )
            count = "1 channel" if depth == 1 else f"{depth} channels"
            reason = reason or f"{columns} x {rows} pixels, {count}: {why}"
    raise NoInput(
        f"no image runs through the model ({reason})",
        "pass --image-size and --channels; the model must take images [batch, channels, rows, columns] and return "
        "logits [batch, classes]",
    )


def _fails(module: nn.Module, shape: tuple[int, ...]) -> str:
    images = torch.zeros(shape)
    was = [(part, part.training) for _, part, _ in modules_in(module)]
    try:
        with torch.no_grad(), seeded(0):
            for part, _ in was:
                part.train(False)
            logits = logits_of(module(images))
        return "" if len(logits) == shape[0] else f"returns {len(logits)} rows for {shape[0]} {_INSTEAD}"
    except NoLogits as error:
        if shape[0] > 1:  # of one image, squeeze() may have removed the batch
            raise NoInput(
                f"{' x '.join(map(str, shape))} images: the model {error}",
                "return logits [batch, classes], alone or in a tuple or dict",
            ) from error
        return str(error)
    # The model was not written for these images, and may raise anything.
    except Exception as error:
        return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
    finally:
        for part, mode in was:
            part.training = mode


def _likely_sizes(module: nn.Module) -> Iterator[Size]:
    for _, part, _ in modules_in(module):
        for name in _ATTRIBUTES:
            value = vars(part).get(name)
            if isinstance(value, int) and 0 < value < 2048:
                yield value, value
            elif (
                isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, int) for v in value)
            ):
                yield int(value[0]), int(value[1])
    patch = _patch(module)
    tables = [*weights_in(module).values(), *module.buffers(), *(t for _, t in hidden_tensors(module))]
    for table in tables:
        for side in _sides_of(table) if patch else ():
            if side * patch <= 1024:
                yield side * patch, side * patch
    yield from ((side, side) for side in _SIZES)


def _sides_of(table: torch.Tensor) -> Iterator[int]:
    """The sides of square grids that a table of positions [1, tokens, D], [tokens, D] or [side, side, D] may cover."""
    if table.ndim == 3 and table.shape[0] == table.shape[1] > 1:
        yield table.shape[0]
    elif table.ndim == 2 or (table.ndim == 3 and table.shape[1] != table.shape[0]):
        for count in range(table.shape[-2], max(table.shape[-2] - 3, 3), -1):
            if math.isqrt(count) ** 2 == count:
                yield math.isqrt(count)


def _patch(module: nn.Module) -> int:
    """The side of a patch: a convolution's stride, or the side of what the first linear layer takes."""
    for _, part, _ in modules_in(module):
        if isinstance(part, nn.Conv2d):
            return int(part.stride[0])
        if isinstance(part, nn.Linear):
            for channels in (3, 1):
                side = math.isqrt(part.in_features // channels)
                if side * side * channels == part.in_features:
                    return side
    return 0


def _likely_channels(module: nn.Module) -> Iterator[int]:
    for _, part, _ in modules_in(module):
        if isinstance(part, nn.Conv2d):
            yield part.in_channels
            break
    yield from (3, 1)


def _rows(module: nn.Module) -> Iterator[int]:
    """Sizes of first axes: a parameter made for one batch size has it there."""
    for weight in weights_in(module).values():
        if weight.ndim == 3 and 1 < weight.shape[0] <= 512:
            yield weight.shape[0]
