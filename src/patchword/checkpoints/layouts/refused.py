"""Models that patchword recognises but does not read, each with the reason and an alternative."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.detection import LOAD_DETECTOR
from patchword.errors import UnknownLayout


class Refused(UnknownLayout):
    """A recognised but unsupported model; no other layout is tried for it."""


@dataclass(frozen=True)
class Refusal:
    """what: description of the model. fits: whether a file is of that kind. fix: what to do with it."""

    what: str
    fits: Callable[[Checkpoint], bool]
    fix: str

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises: Refused, which names the model."""
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
    """Whether any block has fewer key heads than query heads."""
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
        "a model with unmerged LoRA weights",
        lambda c: (
            any(re.search(r"lora_(A|B|up|down|embedding)|\.base_layer\.", name) for name in c.tensors)
            and not _adapter_alone(c)
        ),
        "merge them and save the model again (peft: merge_and_unload()), or ignore them with --drop '*lora_*'",
    ),
    Refusal(
        "a video or multi-temporal ViT, whose patches span time or depth (3-D kernels, as in Prithvi, VideoMAE and V-JEPA), "
        "which the backbone does not support",
        _patches_span_time,
        "load it with its authors' code or transformers",
    ),
    Refusal(
        "a DETR detector (a ResNet and a Transformer that predicts boxes), not a classifier or a backbone",
        _detr,
        LOAD_DETECTOR,
    ),
    Refusal(
        "a YOLOS detector (a ViT with detection tokens that predicts boxes), not a classifier or a backbone",
        _yolos,
        LOAD_DETECTOR,
    ),
    Refusal(
        "a model of DeiT's code with parallel attention branches (attn and attn1), which the backbone does not support",
        lambda c: c.has("blocks.0.attn1.qkv.weight"),
        "load it with its authors' code (facebookresearch/deit)",
    ),
    Refusal(
        "a DINOv3 model with a separate norm for class and storage tokens (cls_norm), which no published model has",
        lambda c: c.has("rope_embed.periods", "cls_norm.weight"),
        "load it with its authors' code (facebookresearch/dinov3)",
    ),
    Refusal(
        "a CLIP model whose image tower is a ResNet, not a Vision Transformer",
        lambda c: c.has("visual.layer1.0.conv1.weight"),
        "load it with its authors' code (openai/CLIP, open_clip)",
    ),
    Refusal(
        "SAM's image encoder, with windowed attention, query-dependent relative positions and a convolutional neck, "
        "none of which a plain ViT has (docs/decisions/0008)",
        lambda c: _one_of(
            c, "blocks.0.attn.rel_pos_h", "image_encoder.blocks.0.attn.rel_pos_h", "neck.0.weight"
        ),
        "load it with timm's samvit or with segment-anything",
    ),
    Refusal(
        "a timm model with parallel attention and MLP (ParallelScalingBlock), which the backbone does not support",
        lambda c: c.has("blocks.0.in_proj.weight"),
        "load it with timm",
    ),
    Refusal(
        "a timm model with parallel branches (ParallelThingsBlock), which the backbone does not support",
        lambda c: c.has("blocks.0.attns.0.norm.weight"),
        "load it with timm",
    ),
    Refusal(
        "a timm model with differential attention, which the backbone does not support",
        lambda c: _one_of(
            c, "blocks.0.attn.lambda_q1", "blocks.0.lambda_q1", "blocks.0.attn.sub_norm.weight"
        ),
        "load it with timm",
    ),
    Refusal(
        "a timm model with gated or grouped-query attention, or LayerScale on one branch only (Sapiens 2), which the "
        "backbone does not support",
        lambda c: c.has("blocks.0.attn.gate.weight") or _shares_keys(c) or _scales_one_branch(c),
        "load it with timm",
    ),
    Refusal(
        "a NaFlex ViT with separate row and column positions (factorized), which the backbone does not support",
        lambda c: c.has("embeds.pos_embed_y"),
        "load it with timm",
    ),
    Refusal(
        "a timm hybrid whose stem is not ResNetV2 (MobileCLIP's convolutions, ResNet-D), which the backbone "
        "does not support",
        lambda c: _one_of(
            c, *(f"patch_embed.backbone.{n}.weight" for n in ("0.conv", "conv1.0", "0.0.conv"))
        ),
        "load it with timm",
    ),
    Refusal(
        "a ViT with a stem of several convolutions and batch norm (hMLP), which the backbone does not support",
        lambda c: c.has("patch_embed.proj.0.weight") or c.has("conv_proj.conv_bn_relu_0.0.weight"),
        "load it with its authors' code",
    ),
)
