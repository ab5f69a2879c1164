"""The names of a ResNet's tensors as torchvision and timm, or as transformers spell them, and its config from a file."""

from collections.abc import Iterator
from dataclasses import dataclass

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.rows import Row
from patchword.model.detr.config import TrunkConfig


@dataclass(frozen=True, kw_only=True)
class TrunkNames:
    """Names of layers. unit: {stage} from 0, {layer} from 1 for the same, {unit} from 0. conv, norm: {j} from 1, {k} from 0."""

    root: str
    root_norm: str
    unit: str
    conv: str
    norm: str
    proj: str
    proj_norm: str

    def in_unit(self, stage: int, unit: int | str) -> str:
        return self.unit.format(stage=stage, layer=stage + 1, unit=unit)


# torchvision and timm; also inside the authors' DETR.
PLAIN = TrunkNames(
    root="conv1",
    root_norm="bn1",
    unit="layer{layer}.{unit}.",
    conv="conv{j}",
    norm="bn{j}",
    proj="downsample.0",
    proj_norm="downsample.1",
)
# transformers, models/resnet.
TRANSFORMERS = TrunkNames(
    root="embedder.embedder.convolution",
    root_norm="embedder.embedder.normalization",
    unit="encoder.stages.{stage}.layers.{unit}.",
    conv="layer.{k}.convolution",
    norm="layer.{k}.normalization",
    proj="shortcut.convolution",
    proj_norm="shortcut.normalization",
)
_STAGES = range(4)


def trunk_rows(prefix: str, names: TrunkNames, config: TrunkConfig) -> Iterator[Row]:
    """prefix: of all names in the file."""
    yield from _conv_norm(prefix + names.root, prefix + names.root_norm, "trunk.root", "trunk.root_norm")
    for stage, units in enumerate(config.units):
        for unit in range(units):
            theirs, ours = prefix + names.in_unit(stage, unit), f"trunk.stages.{stage}.{unit}."
            for j in (1, 2, 3):
                conv, norm = names.conv.format(j=j, k=j - 1), names.norm.format(j=j, k=j - 1)
                yield from _conv_norm(theirs + conv, theirs + norm, f"{ours}conv{j}", f"{ours}norm{j}")
            yield from _conv_norm(
                theirs + names.proj, theirs + names.proj_norm, f"{ours}proj", f"{ours}proj_norm"
            )


def trunk_config(checkpoint: Checkpoint, prefix: str, names: TrunkNames, *, dilation: bool) -> TrunkConfig:
    """Widths and number of units from the shapes in the file.

    Raises: CheckpointError if tensors are missing, or its units have two convolutions (ResNet-18 and 34).
    """
    root, channels, *_ = checkpoint.shape_of(f"{prefix}{names.root}.weight", 4)
    units, middle, outputs = [], [], []
    for stage in _STAGES:
        first, last = (
            f"{prefix}{names.in_unit(stage, 0)}{names.conv.format(j=j, k=j - 1)}.weight" for j in (1, 3)
        )
        if checkpoint.has(first) and not checkpoint.has(last):
            raise CheckpointError(
                f"{checkpoint.name}: its trunk has units of two convolutions (ResNet-18 or 34); patchword supports "
                "those of three",
                "use a model with ResNet-50 or ResNet-101",
            )
        middle.append(checkpoint.shape_of(first, 4)[0])
        outputs.append(checkpoint.shape_of(last, 4)[0])
        conv = names.conv.format(j=1, k=0)
        units.append(checkpoint.depth(f"{prefix}{names.in_unit(stage, '{}')}{conv}.weight"))
    return TrunkConfig(
        units=tuple(units),
        root=root,
        middle=tuple(middle),
        outputs=tuple(outputs),
        dilation=dilation,
        channels=channels,
    )


def _conv_norm(conv: str, norm: str, ours: str, our_norm: str) -> Iterator[Row]:
    yield f"{conv}.weight", f"{ours}.weight"
    yield f"{norm}.{{wb}}", f"{our_norm}.{{wb}}"
    yield f"{norm}.running_mean", f"{our_norm}.mean"
    yield f"{norm}.running_var", f"{our_norm}.variance"
