"""The parts of a model's tokens that `embed` writes, of any block, and the hash of the weights that make them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, uint8

from patchword.errors import SettingsError, near_text
from patchword.model.config import ViTConfig
from patchword.model.kinds import AttentionPool
from patchword.model.vit import ViT
from patchword.retrieval.card import PARTS, Part

Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ChosenPart:
    """A part of a particular model. layer: the block, from 0. norm: whether the final norm is applied."""

    part: Part
    layer: int
    norm: bool


def choose_part(
    config: ViTConfig, part: Part = "pooled", layer: int | None = None, norm: bool | None = None
) -> ChosenPart:
    """Check a part against the model. layer: negative from the end, None for the last. norm: None applies the model's, if it has one.

    Raises: SettingsError for an unknown part or layer, a token or norm that the model does not have, or a pooling that is
        defined only for the last block.
    """
    if part not in PARTS:
        raise SettingsError(
            f"unknown part {part!r}{near_text(str(part), PARTS)}", f"use one of: {', '.join(PARTS)}"
        )
    index = config.depth - 1 if layer is None else layer + config.depth if layer < 0 else layer
    if not 0 <= index < config.depth:
        raise SettingsError(
            f"there is no layer {layer}: this model has {config.depth} blocks",
            f"choose from layers 0 to {config.depth - 1}, or -1 for the last",
        )
    if part in ("class", "registers") and part not in config.tokens.names:
        what = "class token" if part == "class" else "register tokens"
        raise SettingsError(f"this model has no {what}", "use the part 'pooled' or 'mean'")
    kind = config.head.norm
    has_norm = kind == "tokens" or (kind == "pooled" and part == "pooled")
    if norm and not has_norm:
        why = "its norm comes after pooling" if kind == "pooled" else "it has no final norm"
        raise SettingsError(f"this model does not norm its tokens: {why}", "do not ask for the norm")
    chosen = ChosenPart(part=part, layer=index, norm=has_norm if norm is None else norm)
    if part == "pooled":
        _check_pooled(config, chosen, has_norm)
    return chosen


def _check_pooled(config: ViTConfig, chosen: ChosenPart, has_norm: bool) -> None:
    """The head's pooling, where it was trained on the normed tokens of the last blocks, is not used elsewhere."""
    if chosen.layer == config.depth - 1 and chosen.norm == has_norm:
        return
    pool = config.head.pool
    why = (
        "pools with learned attention"
        if isinstance(pool, AttentionPool)
        else "pools several blocks"
        if len(pool.layers(config.depth)) > 1
        else "has a layer after pooling"
        if config.head.pre_logits
        else ""
    )
    if why:
        raise SettingsError(
            f"this model {why}, which was trained on the normed output of the last block only",
            "use the last layer with its norm, or the part 'mean' or 'class'",
        )


def part_function(vit: ViT, chosen: ChosenPart) -> Compute:
    """The function images [B, C, H, W] → the part. It computes all patches: nothing is masked.

    "pooled", "class", "mean" [B, D]; "registers" [B, R, D]; "grid" [B, h, w, D]; "tokens" [B, N, D], prefix first.
    """
    part, layer = chosen.part, chosen.layer
    is_default = chosen == choose_part(vit.config)
    if is_default:
        return vit.embed

    def compute(images: Tensor) -> Tensor:
        tokens = vit.encode(images, [layer], normed=chosen.norm)[layer]
        layout = vit.layout(images)
        if part == "tokens":
            return tokens
        if part == "pooled":
            return vit.pooled([tokens], layout, normed=chosen.norm)
        parts = vit.split(tokens, layout)
        if part == "mean":
            return parts["patches"].flatten(1, 2).mean(1)
        return parts["class"][:, 0] if part == "class" else parts["patches" if part == "grid" else part]

    return compute


def weights_sha256(vit: ViT) -> str:
    """SHA-256 of the names, types, shapes and values of all tensors that an embedding depends on, so without the heads."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vit.state_dict().items()):
        if not name.startswith(("head.", "head_distillation.")):
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
            digest.update(plain.flatten().view(uint8).numpy().data)
    return digest.hexdigest()
