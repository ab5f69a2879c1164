"""timm's hybrids: a ResNet (its ResNetV2 without pre-activation) in front of the patches."""

from collections.abc import Iterable

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.layout import Rule, rule
from patchword.model.kinds import NoStem, ResNetStem, Stem

BACKBONE = "patch_embed.backbone."


def resnet_of(checkpoint: Checkpoint) -> Stem:
    """The ResNet before the patches. Source: timm's `vision_transformer_hybrid.py`."""
    if checkpoint.has(f"{BACKBONE}conv.weight"):
        return _resnet((), checkpoint.shape_of(f"{BACKBONE}conv.weight", 4)[0])
    if checkpoint.has(f"{BACKBONE}stem.conv.weight"):
        return _resnet(_units(checkpoint), checkpoint.shape_of(f"{BACKBONE}stem.conv.weight", 4)[0])
    return NoStem()


def _units(checkpoint: Checkpoint) -> tuple[int, ...]:
    found: list[int] = []
    while units := checkpoint.depth(f"{BACKBONE}stages.{len(found)}.blocks.{{}}.conv1.weight"):
        found.append(units)
    return tuple(found)


def _resnet(units: tuple[int, ...], width: int) -> ResNetStem:
    return ResNetStem(units=units, width=width, weight_eps="variance", small=1e-8, norm_eps=1e-5)


def resnet_names(stem: ResNetStem) -> dict[str, str]:
    """Our name under `patch_embed.stem.` → timm's full name."""
    root = f"{BACKBONE}stem." if stem.units else BACKBONE
    found = {"root.weight": f"{root}conv.weight"}
    found |= {f"root_norm.{part}": f"{root}norm.{part}" for part in ("weight", "bias")}
    for stage, units in enumerate(stem.units):
        for unit in range(units):
            ours, theirs = f"stages.{stage}.{unit}.", f"{BACKBONE}stages.{stage}.blocks.{unit}."
            pairs = [(f"conv{i}", f"conv{i}", f"norm{i}", f"norm{i}") for i in (1, 2, 3)]
            if not unit:
                pairs.append(("proj", "downsample.conv", "proj_norm", "downsample.norm"))
            for conv, their_conv, norm, their_norm in pairs:
                found[f"{ours}{conv}.weight"] = f"{theirs}{their_conv}.weight"
                found |= {f"{ours}{norm}.{p}": f"{theirs}{their_norm}.{p}" for p in ("weight", "bias")}
    return found


def resnet_rules(stem: Stem) -> Iterable[Rule]:
    if isinstance(stem, ResNetStem):
        for ours, theirs in resnet_names(stem).items():
            yield rule(theirs, f"patch_embed.stem.{ours}")
