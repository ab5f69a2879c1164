"""The report of loading a file: its format, and what was matched, resampled, dropped and filled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.formats.facts import Fact
from patchword.formats.plan import Dropped


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """path: the file; why: why this one. layout: its format; evidence: how it was detected.
    facts: what the model was built from, each with its source. tensors: number of used tensors of the file.
    parameters: number in the model. filled: share of the backbone's parameters that came from the file.
    resampled: what is resampled to the image size at run time, and how.
    new: tensors of the model that no file has. notes: anything else that was done or is uncertain.
    stamps: the files that were read with their modification times (ns), to detect later changes.
    """

    path: Path
    why: str = ""
    layout: str = "patchword"
    evidence: str = ""
    facts: tuple[Fact, ...] = ()
    tensors: int
    parameters: int
    filled: float = 1.0
    resampled: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    new: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stamps: tuple[tuple[Path, int], ...] = ()

    def __str__(self) -> str:
        head = f"{self.path}: {self.layout}, {self.tensors} tensors, {self.parameters:,} parameters"
        parts = [f"{head}, {100 * self.filled:.0f} % filled"]
        parts += [f"resampled: {text}" for text in self.resampled]
        if self.dropped:
            parts.append(f"{sum(len(d.names) for d in self.dropped)} tensors dropped")
        if self.new:
            parts.append(f"new: {', '.join(self.new[:3])}")
        return "; ".join([*parts, *([self.why] if self.why else []), *self.notes])


def stamps_of(files: Sequence[Path]) -> tuple[tuple[Path, int], ...]:
    """Each file and when it was last written, in nanoseconds."""
    return tuple((file, file.stat().st_mtime_ns) for file in files)
