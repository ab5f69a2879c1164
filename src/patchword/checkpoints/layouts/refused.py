"""Models that are told by name and not read: each with the reason and what does read it."""

from collections.abc import Callable
from dataclasses import dataclass

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.errors import UnknownLayout


@dataclass(frozen=True)
class Refusal:
    """what: the model by name. fits: whether a file is of that kind. fix: what to do with it."""

    what: str
    fits: Callable[[Checkpoint], bool]
    fix: str

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises: UnknownLayout that names the model."""
        if self.fits(checkpoint):
            raise UnknownLayout(f"{checkpoint.name}: {self.what}", self.fix)


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


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "a DETR detector: a ResNet and a Transformer that answers with boxes; this patchword has no detection yet",
        _detr,
        "a later patchword reads it with `patchword predict`; until then use its authors' code or transformers",
    ),
    Refusal(
        "a YOLOS detector: a ViT with detection tokens that answers with boxes; this patchword has no detection yet",
        _yolos,
        "a later patchword reads it with `patchword predict`; until then use its authors' code or transformers",
    ),
    Refusal(
        "a DeiT-code model with parallel attention branches (attn1 beside attn), which the backbone does not have",
        lambda c: c.has("blocks.0.attn1.qkv.weight"),
        "use its authors' code (facebookresearch/deit)",
    ),
    Refusal(
        "a CLIP model whose image tower is a ResNet, not a Vision Transformer",
        lambda c: c.has("visual.layer1.0.conv1.weight"),
        "use its authors' code (openai/CLIP, open_clip)",
    ),
    Refusal(
        "a ViT with a stem of several convolutions with batch norm (hMLP), which the backbone does not have",
        lambda c: c.has("patch_embed.proj.0.weight") or c.has("conv_proj.conv_bn_relu_0.0.weight"),
        "use its authors' code",
    ),
)
