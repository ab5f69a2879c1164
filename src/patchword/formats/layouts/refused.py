"""Models that patchword recognises but does not read, each with the reason and an alternative."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from patchword.errors import UnknownLayout
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.original_signs import prithvi_tower
from patchword.weights.detector_card import LOAD_DETECTOR


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


def _unmerged(checkpoint: Checkpoint) -> bool:
    """Whether it has LoRA weights next to those of a model."""
    names = checkpoint.tensors
    alone = all("lora_" in name or "modules_to_save" in name for name in names)
    return not alone and any(
        re.search(r"lora_(A|B|up|down|embedding)|\.base_layer\.", name) for name in names
    )


def _patches_span_time(checkpoint: Checkpoint) -> bool:
    if prithvi_tower(checkpoint) is not None:  # one date is a plain ViT
        return False
    kernel = re.compile(
        r"(.*\.)?(patch_embed(dings)?(\.patch_embeddings)?\.(proj|projection)|conv_proj|conv1)\.weight"
    )
    return any(len(entry.shape) == 5 for name, entry in checkpoint.tensors.items() if kernel.fullmatch(name))


def _is_factored(checkpoint: Checkpoint) -> bool:
    return any(".parametrizations.weight." in name for name in checkpoint.tensors)


def _adds_dates(checkpoint: Checkpoint) -> bool:
    """Whether positions are narrower than the tokens by what SatMAE adds for the date."""
    if not checkpoint.has("cls_token", "pos_embed", "patch_embed.proj.weight"):
        return False
    widths = (checkpoint.shape(name)[-1:] for name in ("cls_token", "pos_embed"))
    token, position = (width[0] if width else 0 for width in widths)
    return token - position == _DATE_WIDTH


def _of_vjepa(checkpoint: Checkpoint) -> bool:
    names = ("encoder.embeddings.patch_embeddings.proj.weight", "encoder.layer.0.attention.query.weight")
    return checkpoint.has(*names) and len(checkpoint.shape(names[0])) == 5


def _of_vitpose(checkpoint: Checkpoint) -> bool:
    """A backbone of OpenMMLab's names without class token, next to a head that makes maps of its patches."""
    maps = re.compile(
        r"(keypoint_head|head|decode_head)\.(deconv_layers|conv_layers|final_layer|conv_seg)\..*"
    )
    backbones = ("backbone.layers.0.ln1.weight", "backbone.last_norm.weight")
    return (
        any(map(checkpoint.has, backbones))
        and not checkpoint.has("backbone.cls_token")
        and any(maps.fullmatch(name) for name in checkpoint.tensors)
    )


def _one_of(*names: str) -> Callable[[Checkpoint], bool]:
    return lambda checkpoint: any(map(checkpoint.has, names))


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


_DATE_WIDTH = 384
_TIMM, _AUTHORS = "load it with timm", "load it with its authors' code"
_NOT = "which the backbone does not support"
_STEMS = tuple(f"patch_embed.backbone.{name}.weight" for name in ("0.conv", "conv1.0", "0.0.conv"))
_WINDOWS = ("blocks.0.attn.rel_pos_h", "image_encoder.blocks.0.attn.rel_pos_h", "neck.0.weight")
_DIFFERENTIAL = ("blocks.0.attn.lambda_q1", "blocks.0.lambda_q1", "blocks.0.attn.sub_norm.weight")
_QUERIES = ("query_embed.weight", "detr.query_embed.weight", "model.query_position_embeddings.weight")
REFUSED: tuple[Refusal, ...] = tuple(Refusal(what, fits, fix) for what, fits, fix in (
    ("a model with unmerged LoRA weights", _unmerged,
     "merge them and save the model again (peft: merge_and_unload()), or ignore them with --drop '*lora_*'"),
    ("V-JEPA 2, whose rotary positions turn the two channels of a pair by different angles, for one image too, "
     + _NOT, _of_vjepa, "load it with transformers"),
    ("a pose, depth or segmentation model (ViTPose, Sapiens), whose backbone pads images by 2 pixels before they are cut into "
     "patches, " + _NOT, _of_vitpose, "load it with mmpose or its authors' code"),
    ("a video or multi-temporal ViT, whose patches span time or depth (3-D kernels, as in VideoMAE), "
     + _NOT, _patches_span_time, "load it with its authors' code or transformers"),
    ("a DETR detector (a ResNet and a Transformer that predicts boxes), not a classifier or a backbone", _one_of(*_QUERIES), LOAD_DETECTOR),
    ("a YOLOS detector (a ViT with detection tokens that predicts boxes), not a classifier or a backbone",
     _one_of("backbone.det_token", "vit.embeddings.detection_tokens"), LOAD_DETECTOR),
    (f"a model of DeiT's code with parallel attention branches (attn and attn1), {_NOT}",
     _one_of("blocks.0.attn1.qkv.weight"), f"{_AUTHORS} (facebookresearch/deit)"),
    ("a DINOv3 model with a separate norm for class and storage tokens (cls_norm), which no published model has",
     lambda c: c.has("rope_embed.periods", "cls_norm.weight"), f"{_AUTHORS} (facebookresearch/dinov3)"),
    ("weights stored as factors (torch's parametrizations, such as RADIO's spectral one or weight norm)", _is_factored,
     "load it with its authors' code, remove the parametrizations, and save its state dict"),
    (f"a SatMAE over groups of channels, with a patch embedding and positions for each, {_NOT}",
     _one_of("channel_cls_embed"), f"{_AUTHORS} (sustainlab-group/SatMAE); its RGB models are read"),
    (f"a SatMAE over several dates, whose positions hold the time, {_NOT}", _adds_dates,
     f"{_AUTHORS} (sustainlab-group/SatMAE); its RGB models are read"),
    ("a CLIP model whose image tower is a ResNet, not a Vision Transformer",
     _one_of("visual.layer1.0.conv1.weight"), f"{_AUTHORS} (openai/CLIP, open_clip)"),
    ("SAM's image encoder, with windowed attention, query-dependent relative positions and a convolutional neck, "
     "none of which a plain ViT has (docs/decisions/0008)", _one_of(*_WINDOWS), "load it with timm's samvit or with segment-anything"),
    (f"a timm model with parallel attention and MLP (ParallelScalingBlock), {_NOT}", _one_of("blocks.0.in_proj.weight"), _TIMM),
    (f"a timm model with parallel branches (ParallelThingsBlock), {_NOT}", _one_of("blocks.0.attns.0.norm.weight"), _TIMM),
    (f"a timm model with differential attention, {_NOT}", _one_of(*_DIFFERENTIAL), _TIMM),
    (f"a timm model with gated or grouped-query attention, or LayerScale on one branch only (Sapiens 2), {_NOT}",
     lambda c: c.has("blocks.0.attn.gate.weight") or _shares_keys(c) or _scales_one_branch(c), _TIMM),
    (f"a NaFlex ViT with separate row and column positions (factorized), {_NOT}", _one_of("embeds.pos_embed_y"), _TIMM),
    (f"a timm hybrid whose stem is not ResNetV2 (MobileCLIP's convolutions, ResNet-D), {_NOT}", _one_of(*_STEMS), _TIMM),
    (f"a ViT with a stem of several convolutions and batch norm (hMLP), {_NOT}",
     _one_of("patch_embed.proj.0.weight", "conv_proj.conv_bn_relu_0.0.weight"), _AUTHORS),
))  # fmt: skip
