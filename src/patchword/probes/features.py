"""What a probe reads of a frozen model, for every image of a split, computed once and cached.

Images take the path of prediction: `data/loader.iterate`, the model's own preprocessing, evaluation mode.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.contents import hashes_of
from patchword.data.dataset import Split
from patchword.data.loader import Failure, Named, ReadBatch, iterate
from patchword.data.pool import in_order
from patchword.errors import CheckpointError, NotEnoughMemory, is_out_of_memory
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.probes.cache import HASH_BYTES, FeatureCache, Rows
from patchword.probes.parts import HEAD, Part, feature_text

Progress = Callable[[int, int], None]
_BATCH_CPU, _BATCH_GPU = 8, 64
# Finished chunks that may wait for their turn, in addition to those being computed.
_AHEAD = 2
# Part of the cache key: increase it when the same weights and images would give other features.
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of the readable images of a split.

    values [N, D] float32, or float16 of patch tokens, which are flattened; labels, indices [N]: of their images in the split. contents: a hash of each file, or of each
    array. failures: unreadable images. cached: how many rows came from the cache. seconds: the time for all of it.
    """

    values: Rows
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    contents: tuple[bytes, ...]
    failures: tuple[Failure, ...]
    cached: int
    seconds: float

    def __len__(self) -> int:
        return len(self.values)


def features(
    vit: ViT,
    preprocess: Preprocess,
    split: Split,
    *,
    workers: int,
    device: torch.device,
    cache: FeatureCache | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    part: Part = HEAD,
) -> Features:
    """Compute the features of a split, or take them from the cache.

    vit: on `device`; its weights and mode are unchanged afterwards. cache: None to compute all. Equal files are computed once.
    part: what to read. progress: called with (images done, images of the split).
    Raises: CheckpointError if the model's output is NaN or infinite; NotEnoughMemory.
    """
    start = time.perf_counter()
    contents = hashes_of(split, size=HASH_BYTES)
    key, dim = "", part.length(vit, preprocess)
    known: dict[bytes, Rows] = {}
    if cache is not None:
        key = _key(vit, preprocess, device, part)
        known = cache.read(key, dim, {content for content in contents if content is not None})
    cached = sum(content in known for content in contents)
    missing = _missing(contents, known)
    new, failures = _computed(
        vit,
        preprocess,
        split,
        missing,
        workers=workers,
        device=device,
        batch_size=batch_size,
        progress=progress,
        done=cached,
        part=part,
    )
    fresh = {content: new[i] for i in missing if i in new and (content := contents[i]) is not None}
    if cache is not None:
        cache.write(key, fresh)
    known |= fresh
    reasons = {contents[f.index]: f.reason for f in failures}
    unreadable = {failure.index: failure for failure in failures}
    good = []
    for index, content in enumerate(contents):
        if content is not None and content in known:
            good.append(index)
        elif index not in unreadable:  # a copy of an unreadable file
            unreadable[index] = Failure(index=index, name=split.names[index], reason=reasons[content])
    chosen = [content for i in good if (content := contents[i]) is not None]
    return Features(
        values=np.stack([known[c] for c in chosen]) if good else np.empty((0, dim), part.dtype(vit)),
        labels=split.labels[np.array(good, np.int64)],
        indices=np.array(good, np.int64),
        contents=tuple(chosen),
        failures=tuple(unreadable[i] for i in sorted(unreadable)),
        cached=cached,
        seconds=time.perf_counter() - start,
    )


def _missing(contents: list[bytes | None], known: dict[bytes, Rows]) -> list[int]:
    """The images to compute: of equal ones, the first."""
    found: list[int] = []
    seen: set[bytes] = set()
    for index, content in enumerate(contents):
        if content is None or (content not in known and content not in seen):
            found.append(index)
            seen |= {content} if content is not None else set()
    return found


def _computed(
    vit: ViT,
    preprocess: Preprocess,
    split: Split,
    indices: list[int],
    *,
    workers: int,
    device: torch.device,
    batch_size: int | None,
    progress: Progress | None,
    done: int,
    part: Part,
) -> tuple[dict[int, Rows], list[Failure]]:
    """Features by index in the split, and the unreadable images."""
    found: dict[int, Rows] = {}
    failures: list[Failure] = []
    with frozen(vit):
        size = batch_size or (_BATCH_CPU if device.type == "cpu" else _BATCH_GPU)
        for chunk, batch, values in _batches(vit, preprocess, split, indices, size, workers, device, part):
            failures += [Failure(index=chunk[f.index], name=f.name, reason=f.reason) for f in batch.failures]
            done += len(batch.indices) + len(batch.failures)
            if batch.indices:
                _check(values, batch.names)
                found |= {chunk[i]: row for i, row in zip(batch.indices, values, strict=True)}
            if progress is not None:
                progress(min(done, len(split)), len(split))
    return found, failures


Computed = tuple[list[int], ReadBatch, Rows]


def _batches(
    vit: ViT,
    preprocess: Preprocess,
    split: Split,
    indices: list[int],
    size: int,
    workers: int,
    device: torch.device,
    part: Part,
) -> Iterator[Computed]:
    """Batches with their features; a batch counts its images from the start of `indices`, here a chunk of them.

    On a CPU each worker reads and computes its own chunks with one thread, as in prediction (decision 0006): threads that
    share an operation wait for the slowest of them. On a GPU the workers only read.
    """
    dtype = next(vit.parameters()).dtype

    def run(chunk: list[int], readers: int) -> Iterator[Computed]:
        named = (Named(name=split.names[i], source=partial(split.source, i)) for i in chunk)
        for batch in iterate(named, preprocess, size, readers, split.max_pixels):
            with torch.inference_mode():
                yield chunk, batch, _forward(vit, batch.images.to(device, dtype), part)

    if device.type != "cpu":
        yield from run(indices, workers)
        return
    size = max(1, min(size, -(-len(indices) // workers)))  # a few images are distributed evenly
    chunks = (indices[first : first + size] for first in range(0, len(indices), size))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for done in in_order(lambda chunk: list(run(chunk, 1)), chunks, workers, workers + _AHEAD):
            yield from done
    finally:
        torch.set_num_threads(before)


def _forward(vit: ViT, images: Tensor, part: Part) -> Rows:
    """Values [B, D]; patch tokens are flattened."""
    if not len(images):  # every file was unreadable
        return np.empty((0, 0), np.float32)
    try:
        values: Rows = part.read(vit, images).flatten(1).float().cpu().numpy()
        return values.astype(part.dtype(vit), copy=False)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise NotEnoughMemory(
            f"not enough memory to compute {len(images)} images at once",
            f"use a smaller --batch-size, such as {max(len(images) // 2, 1)}",
        ) from error


def _check(values: Rows, names: list[str]) -> None:
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        raise CheckpointError(
            f"the model's output for {names[int(broken.argmax())]} is NaN or infinite: its weights are broken",
            "use weights saved before training diverged",
        )


@contextmanager
def frozen(vit: ViT) -> Iterator[None]:
    """Evaluation mode, and each module's own mode afterwards."""
    training = [module for module in vit.modules() if module.training]
    vit.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _key(vit: ViT, preprocess: Preprocess, device: torch.device, part: Part) -> str:
    """Identifies the weights below the head, the preprocessing, the feature, and the arithmetic."""
    digest = hashlib.blake2b(digest_size=16)
    shape = {f.name: getattr(vit.config, f.name) for f in fields(vit.config) if f.name != "head"}
    head = vit.config.head
    read: tuple[object, ...] = (head.pool, head.norm, head.pre_logits, head.projection, feature_text(vit))
    if part.kind != "head":
        read = (head.norm, part.kind, part.class_layers, part.mean, part.dtype(vit).__name__)
    digest.update(repr((_VERSION, shape, read, preprocess, device.type)).encode())
    for name, tensor in sorted(vit.state_dict().items()):
        if name.startswith(("head.", "head_distillation.")):
            continue
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
