"""What a probe found, in three levels."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["mistake", "departure", "note"]
LEVELS: tuple[Level, ...] = ("mistake", "departure", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding.

    level: "mistake" breaks what every ViT keeps; "departure" differs from the plain ViT; "note" may be intended.
    probe: letter and name, as in docs/diagnose.md. module: path in the model, "" for the complete model. learn: the step
    of `learn` that explains it.
    """

    level: Level
    probe: str
    title: str
    module: str
    did: str
    got: str
    expected: str
    cure: str
    learn: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was found in one model, the most serious first.

    parameters: the count, and how it compares with the formula of a plain ViT of these sizes. compared: the first layer
    that differs from patchword's own ViT with the same weights, if they map. skipped: probes that could not run, and why.
    """

    model: str
    image_size: tuple[int, int]
    channels: int
    outputs: int
    dtype: str
    parameters: str
    compared: str
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def of(self, level: Level) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def mistakes(self) -> tuple[Finding, ...]:
        return self.of("mistake")

    @property
    def departures(self) -> tuple[Finding, ...]:
        return self.of("departure")

    @property
    def notes(self) -> tuple[Finding, ...]:
        return self.of("note")

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found["findings"] = [finding.to_dict() for finding in self.findings]
        found["counts"] = {level: len(self.of(level)) for level in LEVELS}
        return found
