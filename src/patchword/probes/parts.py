"""Which part of a frozen model's output a probe reads, and its name: layer, pooling, norm.

Shapes: B images, D values; patch tokens are [B, N, D].
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from torch import Tensor

from patchword.errors import SettingsError
from patchword.images.geometry import VARIABLE_SIZE
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.kinds import JoinedPool
from patchword.model.pool import Joined
from patchword.model.vit import ViT
from patchword.probes.kinds import ProbeKind

# DINO evaluates its narrow models (ViT-S) by class tokens of four blocks, and the wide ones (from ViT-B) by the last block's
# and the mean of its patches.
WIDE, LAST_BLOCKS = 768, 4


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a probe reads.

    kind: "head": what the model's own head reads. "class": the class token after the last block. "joined": class tokens of
    the last `class_layers` blocks, and the mean of the last patches if `mean`. "patches": all patch tokens of the last block.
    note: why this is not what the protocol reads; "" if it is.
    """

    kind: Literal["head", "class", "joined", "patches"] = "head"
    class_layers: int = 1
    mean: bool = False
    note: str = ""

    def read(self, vit: ViT, images: Tensor) -> Tensor:
        """images [B, C, H, W] → [B, D]; of "patches", [B, N, D]. Without gradients if called in inference mode."""
        if self.kind == "head":
            return head_input(vit, images)
        count = self.class_layers if self.kind == "joined" else 1
        layers = list(vit.encode(images, range(vit.config.depth - count, vit.config.depth)).values())
        layout = vit.layout(images)
        match self.kind:
            case "class":
                return layers[-1][:, 0]
            case "joined":
                joined: Tensor = Joined(self._pool)(layers, layout)
                return joined
            case "patches":
                return layout.select(layers[-1], "patches")
            case _:
                assert_never(self.kind)

    def width(self, vit: ViT) -> int:
        """D"""
        if self.kind == "head":
            return feature_dim(vit)
        return self._pool.width(vit.config.dim) if self.kind == "joined" else vit.config.dim

    def length(self, vit: ViT, preprocess: Preprocess) -> int:
        """Numbers for each image. Raises: SettingsError for patch tokens of images whose sizes vary."""
        if self.kind != "patches":
            return self.width(vit)
        require_one_size(preprocess, "attentive")
        rows, columns = vit.config.grid_of(preprocess.image_size)
        return rows * columns * vit.config.dim

    def dtype(self, vit: ViT) -> type[np.float32] | type[np.float16]:
        """How the values are kept: normed patch tokens, which are many, in half precision."""
        return np.float16 if self.kind == "patches" and vit.config.head.norm == "tokens" else np.float32

    def layer(self, vit: ViT) -> str:
        """ "block 12 of 12", or "blocks 9 to 12 of 12"."""
        depth = vit.config.depth
        if self.kind == "head":
            first = min(vit.config.head.pool.layers(depth)) + 1
        else:
            first = depth - (self.class_layers if self.kind == "joined" else 1) + 1
        return f"block {depth} of {depth}" if first == depth else f"blocks {first} to {depth} of {depth}"

    def pooling(self, vit: ViT) -> str:
        match self.kind:
            case "head":
                return _pooled_words(vit)
            case "class":
                return "the class token"
            case "joined":
                plain = "class tokens" if self.class_layers > 1 else "the class token"
                return f"{plain} and the mean of the patch tokens" if self.mean else plain
            case "patches":
                return "one learned query attends to the patch tokens"
            case _:
                assert_never(self.kind)

    def norm(self, vit: ViT) -> str:
        """Where the model's final norm is applied."""
        head = vit.config.head
        if self.kind == "head":
            after = {"tokens": "the final norm", "pooled": "the final norm, after pooling"}
            return after.get(head.norm, "none")
        if head.norm == "tokens":
            return "the final norm"
        return "none: this model norms only what its head pools" if head.norm == "pooled" else "none"

    def text(self, vit: ViT) -> str:
        """Such as "the class token after the final norm"."""
        if self.kind == "head":
            return feature_text(vit)
        what = "the patch tokens" if self.kind == "patches" else self.pooling(vit)
        return (
            f"{what} after the final norm" if vit.config.head.norm == "tokens" else f"{what} without a norm"
        )

    @property
    def _pool(self) -> JoinedPool:
        return JoinedPool(class_layers=self.class_layers, mean=self.mean)


HEAD = Part()


def require_one_size(preprocess: Preprocess, kind: ProbeKind) -> None:
    """Raises: SettingsError if the sizes of the model's images vary."""
    if isinstance(preprocess.resize, VARIABLE_SIZE):
        raise SettingsError(
            f"the {kind} probe needs images of one size, and this model reads each image at its own size",
            "use --probe knn or --probe linear",
        )


def part_for(kind: ProbeKind, config: ViTConfig) -> Part:
    """What this probe reads of this model. Without a class token, protocols that ask for one read what the head would."""
    if kind in ("knn", "linear"):
        return HEAD
    if kind == "attentive":
        return Part(kind="patches")
    if "class" not in config.tokens.names:
        return Part(note=f"the model has no class token, so the probe reads {config.head.pool.words()}")
    if kind != "dino-linear":
        return Part(kind="class")
    if config.dim >= WIDE:
        return Part(kind="joined", class_layers=1, mean=True)
    return Part(kind="joined", class_layers=min(LAST_BLOCKS, config.depth))


def feature_text(vit: ViT) -> str:
    """What the head of this model reads, such as "the class token after the final norm"."""
    head, text = vit.config.head, _pooled_words(vit)
    text += " after the final norm" if head.norm in ("tokens", "pooled") else ""
    text += ", then the pre-logits layer" if head.pre_logits else ""
    return text + (", then the projection" if head.projection else "")


def _pooled_words(vit: ViT) -> str:
    head = vit.config.head
    if head.distilled and vit.head is None:
        return "the mean of the class and distillation tokens"
    return head.pool.words()


def feature_dim(vit: ViT) -> int:
    return vit.config.head.projection or vit.config.embed_dim


def head_input(vit: ViT, images: Tensor) -> Tensor:
    """What the classification head reads: images [B, C, H, W] → [B, D]. Of a distilled model, what its first head reads."""
    embedding: Tensor = vit.embed(images)
    return embedding if vit.projection is None else vit.projection(embedding)
