"""What a format cannot hold, in words: the parts that tensors without a place belong to, and what makes a model unusual."""

import re
from collections.abc import Iterable
from typing import Any

from patchword.formats.compare import differences, explicit
from patchword.model.config import HeadConfig, PatchConfig, ViTConfig
from patchword.model.parts import AttentionConfig, MLPConfig

# A pattern of our tensor names, and the part that they belong to.
_PARTS = (
    (r"prefix\.registers", "registers"),
    (r"prefix\.distillation_token", "a distillation token"),
    (r"prefix\.class_token", "a class token"),
    (r"positions\.prefix", "positions for prefix tokens"),
    (r"positions\..*", "added positions"),
    (r"attention_positions\.periods", "stored rotary periods"),
    (r"attention_positions\..*", "positions inside attention"),
    (r"patch_embed\.stem\..*", "a ResNet before the patches"),
    (r"patch_embed\.norm_.*", "norms around the patch embedding"),
    (r"entry_norm\..*", "a norm before the blocks"),
    (r"blocks\.\d+\.scale\d\.weight", "LayerScale"),
    (r"blocks\.\d+\.attention\.[qk]_norm\..*", "normalised queries and keys"),
    (r"blocks\.\d+\.attention\.out_norm\..*", "a norm after attention"),
    (r"blocks\.\d+\.attention\.[qv]_bias", "biases on queries and values only"),
    (r"blocks\.\d+\.mlp\.norm\..*", "a norm inside the MLP"),
    (r".*\.running_(mean|var)", "batch norm"),
    (r"pool\..*", "attention pooling"),
    (r"pooled_norm\..*", "a norm after pooling"),
    (r"norm\..*", "a norm before pooling"),
    (r"pre_logits\..*", "a tanh layer before the head (head.pre_logits)"),
    (r"projection\..*", "a projection"),
    (r"head_distillation\..*", "a second head"),
    (r"head\..*", "a classifier"),
)


def parts_of(names: Iterable[str]) -> str:
    """The parts of a model that these tensors belong to, and the first names of other tensors."""
    found: dict[str, None] = {}
    for name in names:
        found[next((words for pattern, words in _PARTS if re.fullmatch(pattern, name)), name)] = None
    listed = list(found)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def unusual(config: ViTConfig) -> str:
    """The fields in which a model differs from a plain ViT of its size, with their values; "" for a plain ViT."""
    heads = config.attention.num_heads
    plain = ViTConfig(
        image=config.image,
        patch=PatchConfig(size=config.patch.size, edge=config.patch.edge),
        dim=config.dim,
        depth=config.depth,
        attention=AttentionConfig(
            num_heads=heads, head_dim=config.attention.head_dim if config.dim % heads else None
        ),
        mlp=MLPConfig(hidden=config.mlp_dim, activation=config.mlp.activation),
        head=HeadConfig(num_classes=config.head.num_classes),
    )
    found = [
        f"{field} = {_text(value)}"
        for field, _, value in differences(explicit(plain), explicit(config))
        if field != "norm.eps"
    ]
    return ", ".join(found)


def _text(value: Any) -> str:
    return getattr(value, "kind", None) or str(value)
