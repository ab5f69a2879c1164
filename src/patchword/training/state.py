"""The complete training state in one file, so that a resumed run is bit-equal."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from patchword.errors import UserError
from patchword.training.adamw import AdamW
from patchword.training.ema import AveragedWeights
from patchword.training.runfolder import STATE, RunFolder, write_whole

KEPT = 2
_DIGEST_BYTES = 32


@dataclass
class TrainingState:
    """What changes while training. epoch: epochs done; step: optimiser steps done.

    generator: for augmentation and mixing; torch's global generator (drop path) is part of the state too.
    The order of images needs no state, because it follows from (seed, epoch). settings, images: settings (JSON)
    and data fingerprint of the run; resuming with others is refused.
    """

    model: nn.Module
    average: AveragedWeights
    optimiser: AdamW
    generator: Generator
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_top1: float = -1.0
    settings: str = ""
    images: str = ""

    def save(self, folder: RunFolder) -> None:
        """Write state/EPOCH.pt with its checksum in front; keep the last two. Raises: OutputError."""
        buffer = io.BytesIO()
        torch.save(self._as_dict(), buffer)
        content = buffer.getvalue()
        states = folder.path / STATE
        write_whole(states / f"{self.epoch:06d}.pt", hashlib.sha256(content).digest() + content)
        for old in sorted(states.glob("*.pt"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def restore(self, folder: RunFolder) -> None:
        """Load the newest complete state. Raises: UserError if there is none."""
        for path in sorted((folder.path / STATE).glob("*.pt"), reverse=True):
            stored = _read(path)
            if stored is not None:
                self._take(stored)
                return
        raise UserError(f"{folder.path}/{STATE} contains no complete state to resume from", "start a new run")

    def _as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "best_top1": self.best_top1,
            "settings": self.settings,
            "images": self.images,
        }

    def _take(self, stored: dict[str, Any]) -> None:
        self.model.load_state_dict(stored["model"])
        self.average.model.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.generator.set_state(stored["generator"])
        torch.set_rng_state(stored["torch_generator"])
        if stored["cuda_generators"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(stored["cuda_generators"])
        self.epoch, self.step = stored["epoch"], stored["step"]
        self.seconds, self.best_top1 = stored["seconds"], stored["best_top1"]
        self.settings, self.images = stored["settings"], stored["images"]


def _read(path: Path) -> dict[str, Any] | None:
    """The state in `path`, or None if the file is incomplete or damaged."""
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        return None
    stored: dict[str, Any] = torch.load(io.BytesIO(content[_DIGEST_BYTES:]), weights_only=True)
    return stored
