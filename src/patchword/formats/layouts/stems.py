"""The ResNet in front of a hybrid's patches, in every publisher's spelling."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.rows import MakeOp, Row, unchanged
from patchword.model.kinds import ResNetStem, Stem


@dataclass(frozen=True, kw_only=True)
class StemNames:
    """Names of its parts. unit: with {stage} and {unit} from 0, or {stage1} and {unit1} from 1.

    conv, norm: with {n} for the number of the convolution; proj, proj_norm: of the shortcut. weight, parts: last words
    of a convolution's names and of a norm's. kernel, affine: their operations.
    """

    root: str
    root_norm: str
    unit: str
    conv: str
    norm: str
    proj: str
    proj_norm: str
    weight: str = ".weight"
    parts: Mapping[str, str]
    kernel: MakeOp = unchanged
    affine: MakeOp = unchanged

    def rows(self, stem: Stem) -> Iterator[Row]:
        """The rows of its tensors; none of a model without a ResNet."""
        if not isinstance(stem, ResNetStem):
            return
        ours = "patch_embed.stem."
        yield from self._layer(self.root, self.root_norm, f"{ours}root", f"{ours}root_norm")
        for stage, units in enumerate(stem.units):
            for unit in range(units):
                theirs = self.unit.format(stage=stage, unit=unit, stage1=stage + 1, unit1=unit + 1)
                inner = f"{ours}stages.{stage}.{unit}."
                for n in (1, 2, 3):
                    conv, norm = theirs + self.conv.format(n=n), theirs + self.norm.format(n=n)
                    yield from self._layer(conv, norm, f"{inner}conv{n}", f"{inner}norm{n}")
                if not unit:
                    proj, norm = theirs + self.proj, theirs + self.proj_norm
                    yield from self._layer(proj, norm, f"{inner}proj", f"{inner}proj_norm")

    def _layer(self, conv: str, norm: str, ours: str, our_norm: str) -> Iterator[Row]:
        yield f"{conv}{self.weight}", f"{ours}.weight", self.kernel
        for theirs, part in self.parts.items():
            yield f"{norm}{theirs}", f"{our_norm}.{part}", self.affine


TORCH = {".weight": "weight", ".bias": "bias"}


def units_of(checkpoint: Checkpoint, pattern: str) -> tuple[int, ...]:
    """The units of each stage. pattern: of a tensor that every unit has, with its stage and its unit from 1.

    Raises: CheckpointError if a stage is missing.
    """
    found = [int(m[1]) for name in checkpoint.tensors if (m := re.fullmatch(pattern, name))]
    units = tuple(found.count(stage) for stage in range(1, max(found, default=0) + 1))
    if not all(units):
        raise CheckpointError(
            f"{checkpoint.name}: a stage of its ResNet is missing", "download the complete file"
        )
    return units
