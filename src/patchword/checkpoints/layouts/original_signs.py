"""Whose a plain file is: DeiT, MAE and DINO write the same names, and what is beside them must tell.

Their arithmetic is the same at the file's own size; what differs is how positions are resized and
how images are prepared. A guess is said to be one in the report.
"""

import re
from dataclasses import dataclass

from patchword.checkpoints.checkpoint import LINEAR_HEAD, Checkpoint
from patchword.checkpoints.header import DTYPE_BYTES


@dataclass(frozen=True)
class Sign:
    """family: deit, mae or dino. why: the evidence. guess: it might as well be another.

    moco: a file of MoCo v3, whose code is DeiT's but for 12 heads at every width up to 768.
    """

    family: str
    why: str
    guess: bool = False
    moco: bool = False


_MOCO_ARCH = re.compile(r"vit_(conv_)?(small|base|large|huge)")
_MOCO_NAME = re.compile(r"(linear-)?vit-[sbl]-\d+ep|moco_?v?3|mocov3")


def sign_of(checkpoint: Checkpoint) -> Sign:
    """The family of a file with the common block, a class token and nothing else of its own."""
    return (
        _by_tensors(checkpoint)
        or _by_name(checkpoint)
        or _by_beside(checkpoint)
        or _by_positions(checkpoint)
        or _guessed(checkpoint)
    )


def _by_tensors(checkpoint: Checkpoint) -> Sign | None:
    if checkpoint.has("decoder_embed.weight"):
        return Sign("mae", "decoder_embed beside an encoder")
    if checkpoint.has("fc_norm.weight") and not checkpoint.has("norm.weight"):
        why = "fc_norm and no norm: fine-tuned with mean pooling"
        return Sign("mae", why, guess=_by_name(checkpoint) is None and not checkpoint.args)
    if checkpoint.has("dist_token"):
        return Sign("deit", "dist_token")
    if checkpoint.has(f"{LINEAR_HEAD}.weight"):
        return Sign("dino", "a linear head of its own file")
    return None


def _by_name(checkpoint: Checkpoint) -> Sign | None:
    """The names that the files were published under."""
    name = checkpoint.path.name.lower()
    for family in ("dino", "deit", "mae"):
        if name.startswith(f"{family}_"):
            return Sign(family, f"its name {checkpoint.path.name}")
    if _MOCO_NAME.match(name):
        return Sign("deit", f"its name {checkpoint.path.name}, as MoCo v3's", moco=True)
    return None


def _by_beside(checkpoint: Checkpoint) -> Sign | None:
    """What the training script left in the file."""
    if _MOCO_ARCH.fullmatch(str(checkpoint.beside.get("arch", ""))):
        return Sign("deit", f"MoCo v3's arch {checkpoint.beside['arch']}", moco=True)
    if checkpoint.wrapper.startswith("teacher"):
        return Sign("dino", "the teacher of a self-distilled pair")
    for family, words in _ARGUMENTS.items():
        said = next((word for word in words if word in checkpoint.args), None)
        if said is not None:
            return Sign(family, f"its training script's {said}")
    return None


def _by_positions(checkpoint: Checkpoint) -> Sign | None:
    """MAE's table is fixed sines, whose class row is exactly zero; a trained one never is."""
    entry = checkpoint.tensors["pos_embed"]
    size = entry.shape[-1] * DTYPE_BYTES[entry.dtype]
    if entry.offset < 0 or entry.strides is not None or not entry.file.is_file():
        return None
    # Plain bytes: whoever only inspects a file need not wait for torch.
    with entry.file.open("rb") as file:
        file.seek(entry.offset)
        row = file.read(size)
    zeros = len(row) == size and not any(row)
    return (
        Sign("mae", "the class token's row of pos_embed, which is zero as in MAE's sines") if zeros else None
    )


_ARGUMENTS = {
    "mae": ("norm_pix_loss", "mask_ratio", "global_pool", "cls_token"),
    "deit": ("distillation_type", "teacher_model", "ThreeAugment", "bce_loss"),
    "dino": ("out_dim", "local_crops_number", "momentum_teacher"),
}


def _guessed(checkpoint: Checkpoint) -> Sign:
    if checkpoint.has("head.weight"):
        return Sign("deit", "the common ViT block and a head", guess=True)
    if checkpoint.wrapper.startswith("model"):
        return Sign("mae", "the common ViT block under 'model', no head", guess=True)
    return Sign("dino", "the common ViT block at the top of the file, no head", guess=True)
