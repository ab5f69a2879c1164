"""Linear heads that DINO's, DINOv2's and DINOv3's authors publish as files of their own."""

from collections.abc import Mapping
from typing import Any

from patchword.checkpoints.checkpoint import LINEAR_HEAD, Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.errors import CheckpointError
from patchword.model.config import HeadConfig
from patchword.model.kinds import JoinedPool

__all__ = ["LINEAR_HEAD", "head_apart", "joined_pool", "linear_head"]


def joined_pool(name: str, dim: int, width: int, known: Mapping[int, tuple[int, bool, bool]]) -> JoinedPool:
    """What a head of so many inputs reads. known: inputs / dim → class tokens, mean, interleaved.

    Raises: CheckpointError where the head belongs to another backbone.
    """
    if width % dim or width // dim not in known:
        widths = ", ".join(str(times * dim) for times in sorted(known))
        raise CheckpointError(
            f"{name}: the linear head reads {width} numbers, and heads of this backbone of width {dim} read {widths}",
            "give the head that was published for this backbone",
        )
    layers, mean, interleaved = known[width // dim]
    return JoinedPool(class_layers=layers, mean=mean, interleaved=interleaved)


def linear_head(
    checkpoint: Checkpoint, facts: Facts, dim: int, known: Mapping[int, tuple[int, bool, bool]]
) -> HeadConfig | None:
    """The head of the file beside the backbone; None where there is none."""
    if not checkpoint.has(f"{LINEAR_HEAD}.weight"):
        return None
    classes, width = checkpoint.shape_of(f"{LINEAR_HEAD}.weight", 2)
    pool = joined_pool(checkpoint.name, dim, width, known)
    facts.record("pool", pool.kind, f"the linear head's inputs, {width // dim} times {dim}")
    return HeadConfig(pool=pool, num_classes=classes, bias=checkpoint.has(f"{LINEAR_HEAD}.bias"))


def head_apart(tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The backbone's tensors, and those of the linear head by their last word."""
    prefix = f"{LINEAR_HEAD}."
    head = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}, head
