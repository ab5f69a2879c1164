"""Patch tokens of a split: in memory if they fit, and computed again for each batch otherwise.

Shapes: B images, N patch tokens, D dim.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword import machine
from patchword.data.dataset import Split
from patchword.data.loader import Failure
from patchword.errors import DataError, plural
from patchword.images.preprocess import Preprocess
from patchword.model.vit import ViT
from patchword.probes.cache import FeatureCache
from patchword.probes.features import Features, Progress, features
from patchword.probes.parts import Part

PATCHES = Part(kind="patches")
# Of the memory of this process.
SHARE = 0.25
# Images computed at once where tokens are not kept.
_CHUNK = 256
# Of a channel that does not vary.
_EPS = 1e-6


def memory_for_tokens() -> int:
    """A quarter of the bytes that this process may use."""
    return int(SHARE * machine.memory_limit_bytes())


class Tokens:
    """The patch tokens of the readable images of a split.

    labels, indices [M]: of the readable images; contents: a hash of each. failures: the others. cached: how many came from the disk.
    held: whether all are in memory. needed: bytes that this takes, or would take. seconds: to compute them once.
    """

    def __init__(
        self,
        vit: ViT,
        preprocess: Preprocess,
        split: Split,
        *,
        workers: int,
        device: torch.device,
        cache: FeatureCache | None = None,
        memory: int,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """memory: bytes that tokens may take.

        Raises: CheckpointError if the model's output is NaN or infinite; SettingsError if sizes vary; NotEnoughMemory.
        """
        began = time.perf_counter()
        self.device, self.dim = device, vit.config.dim
        self._vit, self._preprocess, self._split = vit, preprocess, split
        self._workers, self._batch_size = workers, batch_size
        itemsize = np.dtype(PATCHES.dtype(vit)).itemsize
        # Twice, because rows are joined to one array.
        self.needed = 2 * len(split) * PATCHES.length(vit, preprocess) * itemsize
        self.held = self.needed <= memory
        self._sum = torch.zeros(self.dim, dtype=torch.float64)
        self._squares, self._count = torch.zeros_like(self._sum), 0
        self._values: NDArray[np.float16] | None = None
        if self.held:
            found = [self._computed(np.arange(len(split)), cache, progress)]
            self._values = found[0].values
        else:
            found = self._in_chunks(progress)
        self.labels = np.concatenate([f.labels for f in found])
        self.indices = np.concatenate([f.indices for f in found])
        self.contents = tuple(c for f in found for c in f.contents)
        self.failures: tuple[Failure, ...] = tuple(x for f in found for x in f.failures)
        self.cached = sum(f.cached for f in found)
        self.seconds = time.perf_counter() - began
        self._standard: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def note(self) -> str:
        """What is done if the tokens do not fit in memory; "" if they do."""
        if self.held:
            return ""
        return (
            f"the patch tokens of {plural(len(self._split), 'image')} of {self._split.name} need {self.needed / 2**30:.3g} GiB, more "
            f"than this machine can hold: the encoder computes them again in each epoch ({self.seconds:.0f} s each)"
        )

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """Tokens [B, N, D] float32 of these of the readable images, on the device. Raises: DataError if a file is gone."""
        if self._values is not None:
            values = self._values[rows]
        else:
            found = self._computed(self.indices[rows], None, None)
            if len(found) < len(rows):
                raise DataError(
                    f"{found.failures[0].name} could be read before and cannot any more: {found.failures[0].reason}",
                    "keep the images in place until the probe is fitted",
                )
            values = found.values
        tokens = torch.from_numpy(values).to(self.device).float()
        return tokens.view(len(tokens), -1, self.dim)

    def standardised(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, D] with the mean 0 and the deviation 1 in each channel, over all images and places of this split."""
        if self._standard is None:
            if self._values is not None:
                for i in range(0, len(self), _CHUNK):
                    self._add(self._values[i : i + _CHUNK])
            mean = self._sum / self._count
            deviation = (self._squares / self._count - mean.square()).clamp(min=0).add(_EPS).sqrt()
            self._standard = mean.float().to(self.device), deviation.float().to(self.device)
        mean, deviation = self._standard
        return (tokens - mean) / deviation

    def _computed(
        self, indices: NDArray[np.int64], cache: FeatureCache | None, progress: Progress | None
    ) -> Features:
        return features(
            self._vit,
            self._preprocess,
            self._split.subset(indices),
            workers=self._workers,
            device=self.device,
            cache=cache,
            batch_size=self._batch_size,
            progress=progress,
            part=PATCHES,
        )

    def _in_chunks(self, progress: Progress | None) -> list[Features]:
        """What is known of each image, without its tokens, whose sums are kept."""
        found: list[Features] = []
        for first in range(0, len(self._split), _CHUNK):
            indices = np.arange(first, min(first + _CHUNK, len(self._split)))
            chunk = self._computed(indices, None, None)
            self._add(chunk.values)
            found.append(_without_values(chunk, indices))
            if progress is not None:
                progress(int(indices[-1]) + 1, len(self._split))
        return found

    def _add(self, values: NDArray[np.float16]) -> None:
        wide = torch.from_numpy(values).double().view(-1, self.dim)
        self._sum += wide.sum(0)
        self._squares += wide.square().sum(0)
        self._count += len(wide)


def _without_values(chunk: Features, indices: NDArray[np.int64]) -> Features:
    """The same with places in the whole split."""
    failures = tuple(replace(f, index=int(indices[f.index])) for f in chunk.failures)
    empty = np.empty((len(chunk), 0), np.float16)
    return replace(chunk, values=empty, indices=indices[chunk.indices], failures=failures)
