"""Distinguish files of DeiT, MAE, DINO and MoCo v3, which have the same tensor names, by everything else in them.

Their computation is the same at the file's own size. They differ in how positions are resized and
in preprocessing. The report marks a guess as one.
"""

import re
from dataclasses import dataclass

from patchword.containers.header import DTYPE_BYTES
from patchword.formats.checkpoint import LINEAR_HEAD, MAE_PYTORCH, Checkpoint


@dataclass(frozen=True)
class Sign:
    """family: deit, mae, dino or moco. why: the evidence. guess: another family is just as likely."""

    family: str
    why: str
    guess: bool = False


_MOCO_ARCH = re.compile(r"vit(_(conv_)?(small|base|large|huge))?")
_MOCO_NAME = re.compile(r"(linear-)?vit-[sbl]-\d+ep|moco_?v?3|mocov3")


def sign_of(checkpoint: Checkpoint) -> Sign:
    """The family of a file with the common block and a class token but no distinctive tensors."""
    return (
        _by_tensors(checkpoint)
        or _by_name(checkpoint)
        or _by_beside(checkpoint)
        or _by_positions(checkpoint)
        or _guessed(checkpoint)
    )


def _by_tensors(checkpoint: Checkpoint) -> Sign | None:
    if decoder := checkpoint.under("decoder_"):
        return Sign("mae", f"{decoder[0].partition('.')[0]} next to an encoder")
    if checkpoint.has("fc_norm.weight") and not checkpoint.has("norm.weight"):
        why = "fc_norm without norm: fine-tuned with mean pooling"
        return Sign("mae", why, guess=_by_name(checkpoint) is None and not checkpoint.args)
    if checkpoint.has("dist_token"):
        return Sign("deit", "dist_token")
    if checkpoint.has(f"{LINEAR_HEAD}.weight"):
        return Sign("dino", "a linear head in a separate file")
    return None


def _by_name(checkpoint: Checkpoint) -> Sign | None:
    """Match the names under which the files were published."""
    name = checkpoint.path.name.lower()
    for family in ("dino", "deit", "mae"):
        if name.startswith(f"{family}_"):
            return Sign(family, f"the file name {checkpoint.path.name}")
    if _MOCO_NAME.match(name):
        return Sign("moco", f"the file name {checkpoint.path.name}, as in MoCo v3")
    return None


def _by_beside(checkpoint: Checkpoint) -> Sign | None:
    """Match what the training script stored in the file."""
    if _MOCO_ARCH.fullmatch(str(checkpoint.beside.get("arch", ""))):
        return Sign("moco", f"MoCo v3's arch {checkpoint.beside['arch']}")
    if checkpoint.wrapper.startswith("base_encoder"):
        return Sign("moco", "a base encoder next to MoCo's momentum encoder")
    if checkpoint.wrapper.startswith("teacher"):
        return Sign("dino", "the teacher of a self-distillation pair")
    for family, words in _ARGUMENTS.items():
        stated = next((word for word in words if word in checkpoint.args), None)
        if stated is not None:
            return Sign(family, f"{stated} from its training script")
    return None


def _by_positions(checkpoint: Checkpoint) -> Sign | None:
    """Check the class row of the table: exactly zero in MAE's fixed sines, never in a trained table."""
    entry = checkpoint.tensors["pos_embed"]
    size = entry.shape[-1] * DTYPE_BYTES[entry.dtype]
    if entry.offset < 0 or entry.strides is not None or not entry.file.is_file():
        return None
    # Read plain bytes, so that inspecting a file does not import torch.
    with entry.file.open("rb") as file:
        file.seek(entry.offset)
        row = file.read(size)
    zeros = len(row) == size and not any(row)
    return (
        Sign("mae", "the zero row of the class token in pos_embed, as in MAE's fixed sines")
        if zeros
        else None
    )


def is_mae_pytorch(checkpoint: Checkpoint) -> bool:
    """Whether it is MAE-pytorch's encoder, or by its script's arguments a fine-tuned model of its code (as BEiT's script
    has them, too, a class token decides). Its tensors alone would also be an incomplete file of timm's.
    """
    if not checkpoint.has("blocks.0.attn.q_bias") or checkpoint.has("cls_token"):
        return False
    stated = "imagenet_default_mean_and_std" in checkpoint.args and "vit_" in str(
        checkpoint.args.get("model")
    )
    return stated or checkpoint.wrapper.endswith(MAE_PYTORCH)


def prithvi_tower(checkpoint: Checkpoint) -> str | None:
    """The prefix of an encoder whose patches are 3-D kernels over one date; V-JEPA's and VideoMAE's span several."""
    for tower in ("encoder.", ""):
        kernel = f"{tower}patch_embed.proj.weight"
        # VideoMAE stores neither; InternVideo2, over one frame too, normalises queries and keys.
        begins = any(map(checkpoint.has, (f"{tower}cls_token", f"{tower}pos_embed")))
        block = checkpoint.under(f"{tower}blocks.0.attn.qkv.")
        other = checkpoint.has(f"{tower}blocks.0.attn.q_norm.weight")
        if begins and block and not other and checkpoint.has(kernel):
            shape = checkpoint.shape(kernel)
            return tower if len(shape) == 5 and shape[2] == 1 else None
    return None


_ARGUMENTS = {
    "mae": ("norm_pix_loss", "mask_ratio", "global_pool", "cls_token"),
    "deit": ("distillation_type", "teacher_model", "ThreeAugment", "bce_loss"),
    "dino": ("out_dim", "local_crops_number", "momentum_teacher"),
}


def _guessed(checkpoint: Checkpoint) -> Sign:
    if checkpoint.has("head.weight"):
        return Sign("deit", "the common ViT block and a head", guess=True)
    if checkpoint.wrapper.startswith("model"):
        return Sign("mae", "the common ViT block under 'model', without a head", guess=True)
    return Sign("dino", "the common ViT block at the top level of the file, without a head", guess=True)
