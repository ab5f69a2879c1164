"""Training views made one step ahead on a GPU, while it computes the step before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from patchword.training.task import Batch, Fed


def ahead(
    batches: Iterable[Fed], views: Callable[[Fed], Batch], device: torch.device
) -> Iterator[tuple[Fed, Batch]]:
    """Yield each batch of the feed with its views.

    Random numbers are drawn on the CPU, and copying them to a GPU makes the host wait for the work queued before. In a stream
    of their own, the views wait only for each other, so that the GPU always has a step to compute.
    """
    if device.type != "cuda":
        for fed in batches:
            yield fed, views(fed)
        return
    stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
    ready: deque[tuple[Fed, Batch, torch.cuda.Event]] = deque()
    for fed in batches:
        with torch.cuda.stream(stream):
            ready.append((fed, views(fed), stream.record_event()))
        if len(ready) > 1:
            yield _received(*ready.popleft())
    while ready:
        yield _received(*ready.popleft())


def _received(fed: Fed, batch: Batch, made: torch.cuda.Event) -> tuple[Fed, Batch]:
    """Let the current stream wait for the views, and keep their memory until it has used them."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(made)
    _used_in(current, (batch.images, batch.targets))
    return fed, batch


def _used_in(stream: torch.cuda.Stream, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.is_cuda:
            value.record_stream(stream)
    elif isinstance(value, dict):
        _used_in(stream, list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            _used_in(stream, part)
