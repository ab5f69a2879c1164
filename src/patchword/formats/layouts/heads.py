"""Linear heads that the authors of DINO, DINOv2 and DINOv3 publish as separate files."""

from collections.abc import Mapping
from typing import Any

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import LINEAR_HEAD, Checkpoint
from patchword.formats.facts import Facts
from patchword.model.config import HeadConfig
from patchword.model.kinds import JoinedPool

__all__ = ["LINEAR_HEAD", "head_apart", "joined_pool", "linear_head"]


def joined_pool(name: str, dim: int, width: int, known: Mapping[int, tuple[int, bool, bool]]) -> JoinedPool:
    """The pooling for a head with this many inputs. known: inputs / dim → class tokens, mean, interleaved.

    Raises: CheckpointError if the head belongs to another backbone.
    """
    if width % dim or width // dim not in known:
        widths = ", ".join(str(times * dim) for times in sorted(known))
        raise CheckpointError(
            f"{name}: the linear head has {width} inputs, but heads for this backbone of width {dim} have {widths}",
            "use the head that was published for this backbone",
        )
    layers, mean, interleaved = known[width // dim]
    return JoinedPool(class_layers=layers, mean=mean, interleaved=interleaved)


def linear_head(
    checkpoint: Checkpoint, facts: Facts, dim: int, known: Mapping[int, tuple[int, bool, bool]]
) -> HeadConfig | None:
    """The head in the separate head file; None if there is none."""
    if not checkpoint.has(f"{LINEAR_HEAD}.weight"):
        return None
    classes, width = checkpoint.shape_of(f"{LINEAR_HEAD}.weight", 2)
    pool = joined_pool(checkpoint.name, dim, width, known)
    facts.record("pool", pool.kind, f"the linear head's {width // dim} x {dim} inputs")
    return HeadConfig(pool=pool, num_classes=classes, bias=checkpoint.has(f"{LINEAR_HEAD}.bias"))


def head_apart(tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The backbone's tensors, and the linear head's by the last part of their name."""
    prefix = f"{LINEAR_HEAD}."
    head = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}, head
