"""A ResNet by itself, as torchvision, timm or transformers store it: the trunk of a DETR that is trained from it."""

from typing import TYPE_CHECKING

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.detection.layout import DetectorLayout
from patchword.formats.detection.trunk import PLAIN, TRANSFORMERS, TrunkNames, trunk_config, trunk_rows
from patchword.formats.layout import Ignored, Rule
from patchword.formats.plan import plan_of
from patchword.formats.read import read_rule
from patchword.formats.report import LoadReport
from patchword.formats.rows import rules_of
from patchword.model.detr.config import TrunkConfig

if TYPE_CHECKING:
    from torch import Tensor

_OURS = "trunk."
_TITLE = "ResNet"
_NAMES: tuple[tuple[str, TrunkNames], ...] = (("", PLAIN), ("", TRANSFORMERS), ("resnet.", TRANSFORMERS))
# Its classifier, in torchvision and timm or in transformers.
_IGNORED = (
    *DetectorLayout.ignored,
    Ignored(r"classifier\.1\.(weight|bias)", "the classifier that the ResNet was pre-trained with"),
)


def is_resnet(checkpoint: Checkpoint) -> bool:
    """Whether the names are those of a ResNet, of whatever units."""
    return _spelling(checkpoint) is not None


def read_resnet(checkpoint: Checkpoint) -> "tuple[TrunkConfig, dict[str, Tensor], LoadReport]":
    """Its config, and its tensors by the names that they have in DETR.

    Raises: CheckpointError if tensors are missing or left, or its units have two convolutions (ResNet-18 and 34).
    """
    found = _spelling(checkpoint)
    assert found is not None
    prefix, names = found
    config = trunk_config(checkpoint, prefix, names, dilation=False)
    there = _shapes(config)
    rules: list[Rule | Ignored] = [*rules_of(trunk_rows(prefix, names, config), there, 0), *_IGNORED]
    plan = plan_of(checkpoint, _TITLE, rules, there, can_be_partial=False)
    tensors: dict[str, Tensor] = {}
    for rule in plan.rules:
        tensors |= zip(rule.ours, read_rule(rule, checkpoint, plan.shapes), strict=True)
    report = LoadReport(
        path=checkpoint.path,
        layout=_TITLE,
        tensors=plan.matched,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dropped=plan.dropped,
    )
    return config, tensors, report


def _spelling(checkpoint: Checkpoint) -> tuple[str, TrunkNames] | None:
    for prefix, names in _NAMES:
        unit = f"{prefix}{names.in_unit(0, 0)}{names.conv.format(j=1, k=0)}.weight"
        if checkpoint.has(f"{prefix}{names.root}.weight", unit):
            return prefix, names
    return None


def _shapes(config: TrunkConfig) -> dict[str, tuple[int, ...]]:
    import torch

    from patchword.model.detr.trunk import Trunk

    with torch.device("meta"):
        trunk = Trunk(config)
    return {_OURS + name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
