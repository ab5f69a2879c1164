"""Where two passes, or two images of one pass, first differ."""

import torch
from torch import Tensor

from patchword.diagnosis.tape import Op, Tape


def apart(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ by more than `tolerance`, relative to their usual size."""
    if one.shape != other.shape:
        return True
    if not one.numel():
        return False
    limit = tolerance * max(float(one.detach().abs().mean()), 1e-12)
    return not bool((one.detach() - other.detach()).abs().max() <= limit)


def relative(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the usual size."""
    return float((one - other).abs().max()) / max(float(one.abs().mean()), 1e-12)


def slot(tensor: Tensor, index: int, batch: int) -> Tensor | None:
    """What belongs to one image of a batch; None if no axis can be the batch."""
    for axis, size in enumerate(tensor.shape):
        if size == batch:
            return tensor.select(axis, index)
    if tensor.ndim and tensor.shape[0] % batch == 0 and tensor.shape[0]:
        part = tensor.shape[0] // batch
        return tensor[index * part : (index + 1) * part]
    return None


def first_difference(one: Tape, other: Tape, tolerance: float, batch: int | None = None) -> Op | None:
    """The first operation whose output differs between two passes; with `batch`, its part for image 0 alone."""
    for mine, theirs in zip(one.ops, other.ops, strict=False):
        if mine.name != theirs.name or not mine.output.is_floating_point():
            continue
        a: Tensor | None = mine.output
        b: Tensor | None = theirs.output
        if batch is not None:
            a, b = slot(mine.output, 0, batch), slot(theirs.output, 0, batch)
        if a is not None and b is not None and apart(a, b, tolerance):
            return mine
    return None


def first_unequal_slots(tape: Tape, batch: int, tolerance: float) -> Op | None:
    """In a pass over copies of one image: the first operation whose output differs between its copies."""
    for op in tape.ops:
        if not op.output.is_floating_point() or batch not in op.output.shape[:2] or op.output.ndim < 2:
            continue
        parts = [slot(op.output, index, batch) for index in range(batch)]
        if any(
            apart(part, parts[0], tolerance)
            for part in parts[1:]
            if part is not None and parts[0] is not None
        ):
            given = [t for t in op.inputs if isinstance(t, torch.nn.Parameter)]
            # A batch-sized weight that is cut or moved is not yet the mistake's place, only its cause.
            if op.name not in ("getitem", "expand", "permute", "transpose") or not given:
                return op
    return None
