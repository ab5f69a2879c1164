"""Models that are told by name and not read: each with the reason and what does read it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.errors import UnknownLayout


class Refused(UnknownLayout):
    """A model that is known by name and not read: no other reading of its tensors is tried."""


@dataclass(frozen=True)
class Refusal:
    """what: the model by name. fits: whether a file is of that kind. fix: what to do with it."""

    what: str
    fits: Callable[[Checkpoint], bool]
    fix: str

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises: UnknownLayout that names the model."""
        if self.fits(checkpoint):
            raise Refused(f"{checkpoint.name}: {self.what}", self.fix)


def _detr(checkpoint: Checkpoint) -> bool:
    names = checkpoint.tensors
    return (
        "query_embed.weight" in names
        or "detr.query_embed.weight" in names
        or ("model.query_position_embeddings.weight" in names)
    )


def _yolos(checkpoint: Checkpoint) -> bool:
    return (
        "backbone.det_token" in checkpoint.tensors or "vit.embeddings.detection_tokens" in checkpoint.tensors
    )


def _adapter_alone(checkpoint: Checkpoint) -> bool:
    return all("lora_" in name or "modules_to_save" in name for name in checkpoint.tensors)


def _patches_span_time(checkpoint: Checkpoint) -> bool:
    kernel = re.compile(
        r"(.*\.)?(patch_embed(dings)?(\.patch_embeddings)?\.(proj|projection)|conv_proj|conv1)\.weight"
    )
    return any(len(entry.shape) == 5 for name, entry in checkpoint.tensors.items() if kernel.fullmatch(name))


def _one_of(checkpoint: Checkpoint, *names: str) -> bool:
    return any(checkpoint.has(name) for name in names)


def _shares_keys(checkpoint: Checkpoint) -> bool:
    """Fewer heads of keys than of queries, in any block."""
    for name in checkpoint.under("blocks."):
        if name.endswith("attn.k_proj.weight"):
            queries = name.replace("k_proj", "q_proj")
            if checkpoint.has(queries) and checkpoint.shape(name) != checkpoint.shape(queries):
                return True
    return False


def _scales_one_branch(checkpoint: Checkpoint) -> bool:
    second = any(name.endswith(".gamma_2") for name in checkpoint.tensors)
    return checkpoint.has("blocks.0.gamma_1") and not second


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "a model with LoRA weights that are not merged into it",
        lambda c: (
            any(re.search(r"lora_(A|B|up|down|embedding)|\.base_layer\.", name) for name in c.tensors)
            and not _adapter_alone(c)
        ),
        "merge them and save again (peft: merge_and_unload()); or read it without them: --drop '*lora_*'",
    ),
    Refusal(
        "a video or multi-temporal ViT: its patches span time or depth (3-D kernels, as in Prithvi, VideoMAE and V-JEPA), "
        "which the backbone does not have",
        _patches_span_time,
        "use its authors' code or transformers",
    ),
    Refusal(
        "a DETR detector: a ResNet and a Transformer that answers with boxes; this patchword has no detection yet",
        _detr,
        "use its authors' code or transformers",
    ),
    Refusal(
        "a YOLOS detector: a ViT with detection tokens that answers with boxes; this patchword has no detection yet",
        _yolos,
        "use its authors' code or transformers",
    ),
    Refusal(
        "a DeiT-code model with parallel attention branches (attn1 beside attn), which the backbone does not have",
        lambda c: c.has("blocks.0.attn1.qkv.weight"),
        "use its authors' code (facebookresearch/deit)",
    ),
    Refusal(
        "a DINOv3 model with a norm of its own for class and storage tokens (cls_norm), which no published one has",
        lambda c: c.has("rope_embed.periods", "cls_norm.weight"),
        "use its authors' code (facebookresearch/dinov3)",
    ),
    Refusal(
        "a CLIP model whose image tower is a ResNet, not a Vision Transformer",
        lambda c: c.has("visual.layer1.0.conv1.weight"),
        "use its authors' code (openai/CLIP, open_clip)",
    ),
    Refusal(
        "SAM's image encoder: windowed attention with relative positions that depend on the query, and a neck of "
        "convolutions, none of which a plain ViT has (docs/decisions/0008)",
        lambda c: _one_of(
            c, "blocks.0.attn.rel_pos_h", "image_encoder.blocks.0.attn.rel_pos_h", "neck.0.weight"
        ),
        "use timm's samvit or segment-anything for it",
    ),
    Refusal(
        "a timm model whose attention and MLP stand side by side (ParallelScalingBlock), which the backbone does not have",
        lambda c: c.has("blocks.0.in_proj.weight"),
        "use timm for it",
    ),
    Refusal(
        "a timm model with parallel branches (ParallelThingsBlock), which the backbone does not have",
        lambda c: c.has("blocks.0.attns.0.norm.weight"),
        "use timm for it",
    ),
    Refusal(
        "a timm model with differential attention, which the backbone does not have",
        lambda c: _one_of(
            c, "blocks.0.attn.lambda_q1", "blocks.0.lambda_q1", "blocks.0.attn.sub_norm.weight"
        ),
        "use timm for it",
    ),
    Refusal(
        "a timm model with gated or grouped-query attention, or LayerScale on one branch alone (Sapiens 2), which the "
        "backbone does not have",
        lambda c: c.has("blocks.0.attn.gate.weight") or _shares_keys(c) or _scales_one_branch(c),
        "use timm for it",
    ),
    Refusal(
        "a NaFlex ViT with positions apart for rows and columns (factorized), which the backbone does not have",
        lambda c: c.has("embeds.pos_embed_y"),
        "use timm for it",
    ),
    Refusal(
        "a timm hybrid of another backbone than its ResNetV2 (MobileCLIP's convolutions, ResNet-D), which the backbone "
        "does not have",
        lambda c: _one_of(
            c, *(f"patch_embed.backbone.{n}.weight" for n in ("0.conv", "conv1.0", "0.0.conv"))
        ),
        "use timm for it",
    ),
    Refusal(
        "a ViT with a stem of several convolutions with batch norm (hMLP), which the backbone does not have",
        lambda c: c.has("patch_embed.proj.0.weight") or c.has("conv_proj.conv_bn_relu_0.0.weight"),
        "use its authors' code",
    ),
)
