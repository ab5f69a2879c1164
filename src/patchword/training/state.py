"""Everything that the next step depends on, in one file, so that a resumed run is bit-equal.

There is no random generator in it: the random numbers of a step follow from (seed, epoch, image) (chance.py), and the
order of the images from (seed, epoch).
"""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from patchword.errors import UserError
from patchword.training.ema import AveragedWeights
from patchword.training.optimiser import Optimiser
from patchword.training.precision import LossScale
from patchword.training.runfolder import STATE, RunFolder, writing

KEPT = 2
_DIGEST_BYTES = 32


@dataclass
class TrainingState:
    """What changes while training.

    step: optimiser steps done. epoch: epochs that are complete, including their evaluation. best: the deciding score of the
    best epoch. worse: evaluations since then. sums: of the epoch under way, for its record. broken: steps that were
    skipped because a number was not finite. ended: why training ended before its last epoch. settings: of the run, as JSON; resuming
    with others is refused.
    """

    module: nn.Module
    average: AveragedWeights
    optimiser: Optimiser
    loss_scale: LossScale
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    best: float | None = None
    worse: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    broken: list[int] = field(default_factory=list)
    ended: str = ""
    settings: str = ""

    _PLAIN = ("step", "epoch", "seconds", "best", "worse", "sums", "broken", "ended", "settings")

    def save(self, folder: RunFolder, name: str = "") -> None:
        """Write state/STEP.pt with its checksum at the end; keep the last two, and any under a name of its own.

        Raises: OutputError.
        """
        states = folder.path / STATE
        with writing(states / f"{name or f'{self.step:08d}'}.pt") as file:
            digesting = _Digesting(file)
            try:
                torch.save(self._as_dict(), cast(IO[bytes], digesting))
            except RuntimeError as error:
                # torch's writer reports a full disk as an error of its own.
                raise digesting.failed or error from error
            file.write(digesting.digest.digest())
        for old in saved_in(folder)[:-KEPT] if not name else ():
            old.unlink(missing_ok=True)

    def restore_named(self, folder: RunFolder, name: str) -> bool:
        """Load the state that was saved under a name; returns whether it is there and complete."""
        path = folder.path / STATE / f"{name}.pt"
        stored = _read(path) if path.exists() else None
        if stored is not None:
            self._take(stored)
        return stored is not None

    def restore(self, folder: RunFolder) -> str:
        """Load the newest complete state; returns a warning if a newer one is damaged, else "". Raises: UserError if there is none."""
        damaged: list[str] = []
        for path in reversed(saved_in(folder)):
            stored = _read(path)
            if stored is not None:
                self._take(stored)
                return f"{', '.join(damaged)} is damaged; using {path.name} instead" if damaged else ""
            damaged.append(path.name)
        raise UserError(f"{folder.path}/{STATE} contains no complete state to resume from", "start a new run")

    def _as_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "average": self.average.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "loss_scale": self.loss_scale.state_dict(),
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def _take(self, stored: dict[str, Any]) -> None:
        self.module.load_state_dict(stored["module"])
        self.average.model.load_state_dict(stored["average"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.loss_scale.load_state_dict(stored["loss_scale"])
        for name in self._PLAIN:
            setattr(self, name, stored[name])


def saved_in(folder: RunFolder) -> list[Path]:
    """The state files of a run, oldest first."""
    return sorted(path for path in (folder.path / STATE).glob("*.pt") if path.stem.isdecimal())


class _Digesting(io.BufferedIOBase):
    """Pass everything on to a file and compute its checksum, so that a large state is not held in memory twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.failed: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.failed = error
            raise


def _read(path: Path) -> dict[str, Any] | None:
    """The state in `path`, or None if the file is incomplete or damaged."""
    content = path.read_bytes()
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        return None
    stored: dict[str, Any] = torch.load(
        io.BytesIO(content[:-_DIGEST_BYTES]), map_location="cpu", weights_only=True
    )
    return stored
