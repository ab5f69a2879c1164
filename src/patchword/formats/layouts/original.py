"""Common parts of the authors' own PyTorch files: the block from early timm, and the parts around it.

Sources: facebookresearch/deit, mae, dino, dinov2, dinov3, ijepa; microsoft/unilm beit; baaivision/EVA.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Container, Description
from patchword.formats.layouts.evaluation import IMAGENET, Numbers, evaluation
from patchword.formats.layouts.timm import evidence as timms
from patchword.formats.renamed import Renamed
from patchword.formats.restate import Step, Tensors, with_zero_biases
from patchword.formats.rows import Row, RowLayout, Rows, gate_and_value, queries_keys_values, table, token
from patchword.images.geometry import Shorter
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    Activation,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    ClassPool,
    FirstPool,
    JoinedPool,
    LayerNormConfig,
    Learned,
    MeanPool,
    Pool,
    Positions,
    Resample,
    Rope2d,
    Size,
)
from patchword.weights.card import ModelCard

# Width → heads of the published sizes: 64 channels per head up to L, 80 in H.
USUAL_HEADS = {192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1280: 16}
_POOLS: Mapping[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Values that a family's code defines but its files do not. who: name of that source in the report."""

    who: str
    heads: Mapping[int, int] = field(default_factory=lambda: USUAL_HEADS)
    eps: float = 1e-6
    layer_scale: float = 1e-5  # LayerScale's initial value; no file stores it


# Names ---------------------------------------------------------------------------------------

PATCHES_AND_TOKEN: tuple[Row, ...] = (
    ("patch_embed.proj.{wb}", "patch_embed.proj.{wb}"),
    ("cls_token", "prefix.class_token", token),
)
POSITIONS: Row = ("pos_embed", ("positions.prefix", "positions.grid"), table)
NORMS: tuple[Row, ...] = (("norm.{wb}", "norm.{wb}"), ("fc_norm.{wb}", "pooled_norm.{wb}"))
QV_BIASES: tuple[Row, ...] = (
    ("{b}attn.q_bias", "blocks.{i}.attention.q_bias"),
    ("{b}attn.v_bias", "blocks.{i}.attention.v_bias"),
)
_QKV = "blocks.{i}.attention.qkv."
_TOGETHER: tuple[Row, ...] = (
    ("{b}attn.qkv.weight", _QKV + "weight"),
    ("{b}attn.qkv.bias", _QKV + "bias"),
)
# EVA-02's base and large.
_APART: tuple[Row, ...] = (
    (tuple(f"{{b}}attn.{name}_proj.weight" for name in "qkv"), _QKV + "weight", queries_keys_values),
    *QV_BIASES,
    ("{b}attn.inner_attn_ln.{wb}", "blocks.{i}.attention.out_norm.{wb}"),
)
_FIRST: Mapping[str, Row] = {
    "w12": ("{b}mlp.w12.{wb}", "blocks.{i}.mlp.fc1.{wb}"),
    "w1": (("{b}mlp.w1.{wb}", "{b}mlp.w2.{wb}"), "blocks.{i}.mlp.fc1.{wb}", gate_and_value),
}


def block_rows(spelling: Mapping[str, Any], biases: tuple[Row, ...] = QV_BIASES) -> list[Row]:
    """The rows of a block. spelling: from `AuthorsFile.spelling`; what it omits is as in DeiT.

    biases: of queries and values alone, if they are not part of `qkv`.
    """
    gate, scales = spelling.get("gate", ""), spelling.get("scale", ("ls1.gamma", "ls2.gamma"))
    first, second = spelling.get("mlp", ("fc1", "fc2"))
    return [
        ("{b}norm1.{wb}", "blocks.{i}.norm1.{wb}"),
        *(_APART if spelling.get("split") else (*_TOGETHER, *biases)),
        ("{b}attn.proj.{wb}", "blocks.{i}.attention.proj.{wb}"),
        ("{b}norm2.{wb}", "blocks.{i}.norm2.{wb}"),
        _FIRST.get(gate, (f"{{b}}mlp.{first}.{{wb}}", "blocks.{i}.mlp.fc1.{wb}")),
        ("{b}mlp.ffn_ln.{wb}", "blocks.{i}.mlp.norm.{wb}"),
        (f"{{b}}mlp.{'w3' if gate else second}.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
        *((f"{{b}}{scale}", f"blocks.{{i}}.scale{at}.weight") for at, scale in enumerate(scales, 1)),
    ]


# Reading ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AuthorsFile:
    """One file with the common block. layout: whose rows and constants apply."""

    checkpoint: Checkpoint
    facts: Facts
    layout: "Original"

    @cached_property
    def spelling(self) -> dict[str, Any]:
        """The spelling of the block in this file: names of blocks, gate, LayerScale, projections and MLP."""
        names, has = block_names(self.checkpoint), self.checkpoint.has
        gate = next((gate for gate in ("w12", "w1") if has(f"{names[0]}mlp.{gate}.weight")), "")
        return {
            "blocks": names,
            "gate": gate,
            "scale": ("gamma_1", "gamma_2") if has(f"{names[0]}gamma_1") else ("ls1.gamma", "ls2.gamma"),
            "split": has(f"{names[0]}attn.q_proj.weight"),
            "mlp": ("c_fc", "c_proj") if has(f"{names[0]}mlp.c_fc.weight") else ("fc1", "fc2"),
        }

    @cached_property
    def seen(self) -> Renamed:
        spelling = self.spelling
        return Renamed(self.checkpoint, self.layout.rows(spelling, None), spelling["blocks"][0])

    @property
    def dim(self) -> int:
        return self.seen.kernel[0]

    @property
    def patch(self) -> Size:
        return self.seen.kernel[2]

    @property
    def rows(self) -> int:
        """Rows of the position table."""
        return self.checkpoint.shape_of("pos_embed", 3)[1]

    def pool(self, usual: str, source: str = "") -> Pool:
        """The pooling that the user specifies, or the usual one."""
        return _POOLS[self.facts.require("pool", (usual, source or self.layout.constants.who))]

    def classifier(self, pool: Pool, norm: Literal["tokens", "pooled"] = "tokens") -> HeadConfig:
        """The config of `head`, if there is one."""
        name = "head.weight"
        count = self.checkpoint.shape_of(name, 2)[0] if self.checkpoint.has(name) else 0
        return HeadConfig(pool=pool, norm=norm, num_classes=count)

    def classifier_after_norm(self) -> HeadConfig:
        """Mean pooling followed by `fc_norm`, or the normalised class token."""
        pooled = self.checkpoint.has("fc_norm.weight") and not self.checkpoint.has("norm.weight")
        pool = self.pool("mean", "fc_norm") if pooled else self.pool("class")
        return self.classifier(pool, "pooled" if pooled else "tokens")


def _with_biases(config: ViTConfig, tensors: Tensors) -> tuple[ViTConfig, Tensors]:
    """Biases of patches and head, which the authors' classes always have."""
    if not isinstance(config.head.pool, JoinedPool):  # the head is then a separate file
        config = replace(config, head=replace(config.head, bias=True))
    return replace(config, patch=replace(config.patch, bias=True)), tensors


class Original(RowLayout):
    """A state dict in torch's format, as the authors' training code saves it. resample: how it resizes positions.

    more: rows between class token and positions. head: the head's name. mean_std: of the evaluation, whose name in the
    report is `evaluation`.
    """

    container: Container = "torch"
    file_name = "model.pth"
    constants: Constants
    resample = Resample(antialias=False)
    more: tuple[Row, ...] = ()
    head_name = "head"
    mean_std: Numbers = IMAGENET
    wrapper = "model"
    steps: tuple[Step, ...] = (_with_biases, with_zero_biases)
    # Its code rotates queries and keys, which leaves no tensor in the file.
    rotary = False

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (
            *PATCHES_AND_TOKEN,
            *self.more,
            POSITIONS,
            block_rows(spelling),
            *NORMS,
            (f"{spelling.get('head', self.head_name)}.{{wb}}", "head.{wb}"),
        )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"gate": "w12" if card.config.mlp.gated else ""}

    # Describing, from parts that each family states where it differs --------------------------------

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        file = AuthorsFile(checkpoint, facts, self)
        config = self.config_of(file)
        usual, source, notes = self.evaluated(file, config)
        if usual.in_channels != 3:
            source = f"{source}; mean and std for {usual.in_channels} channels are unknown, so 0.5 is used"
        return Description(
            config=config,
            preprocess=facts.preprocess((usual, source)),
            spelling=self.spelled(file),
            notes=notes,
        )

    def config_of(self, file: AuthorsFile) -> ViTConfig:
        """The config, from the parts below; most are the same for all families."""
        facts, seen, constants = file.facts, file.seen, self.constants
        (dim, channels, patch), tokens = seen.kernel, self.tokens(file)
        grid, stated = self.grid(file, tokens)
        positions, head = self.positions(file), self.head(file)
        usual = (constants.heads.get(dim), Inferred(f"the width {dim}, as in {constants.who}"))
        heads = facts.heads(dim, stated or (None, ""), usual)
        gated = bool(file.spelling["gate"])
        usual_act: Activation = "silu" if gated else "gelu"
        activation: Activation = facts.require("act", (usual_act, constants.who))
        scaled = seen.in_block("scale1.weight")
        return ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch),
            dim=dim,
            depth=len(file.spelling["blocks"]),
            tokens=tokens,
            positions=positions,
            attention=seen.attention(heads),
            mlp=seen.mlp(activation, gated=gated),
            block=BlockConfig(layer_scale=constants.layer_scale if scaled else None),
            norm=LayerNormConfig(
                eps=facts.require("eps", (constants.eps, constants.who)), bias=seen.in_block("norm1.bias")
            ),
            head=head,
        )

    def tokens(self, file: AuthorsFile) -> TokensConfig:
        return TokensConfig()

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, tuple[int, str] | None]:
        """The grid of patches, and the number of heads with its source if the file states it."""
        return file.facts.grid(file.rows - tokens.num_prefix, file.patch), None

    def positions(self, file: AuthorsFile) -> Positions:
        return Learned(resample=self.resample)

    def head(self, file: AuthorsFile) -> HeadConfig:
        return file.classifier(file.pool("class"))

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        """The preprocessing, its source in the report, and notes."""
        shorter = self.shorter(config.image.size)
        return self.preprocess(config, shorter), f"the evaluation in {self.constants.who}", ()

    def shorter(self, size: Size) -> int:
        """The shorter side of an image before the crop."""
        return min(size)

    def preprocess(self, config: ViTConfig, shorter: int, size: Size | None = None) -> Preprocess:
        """Resize the shorter side (bicubic), then crop the centre."""
        return evaluation(config, Shorter(size=shorter), self.mean_std, size=size)

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        return file.spelling

    # Writing -----------------------------------------------------------------------------------

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {self.wrapper: tensors} if self.wrapper else tensors

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        if isinstance(card.config.inner_positions, Rope2d) and not self.rotary:
            raise CheckpointError(f"{self.title} does not support rotary positions", "choose another format")
        return {}


# Which blocks ----------------------------------------------------------------------------


def block_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The prefix of each block, in order: "blocks.3.", or "blocks.1.3." if training stored them in chunks.

    The second number of a chunked name already counts over all blocks (DINOv2).
    Raises: CheckpointError if a block is missing.
    """
    chunked = re.compile(r"blocks\.(\d+)\.(\d+)\.norm1\.weight")
    found = {
        int(m[2]): f"blocks.{m[1]}.{m[2]}." for name in checkpoint.tensors if (m := chunked.fullmatch(name))
    }
    if found:
        lost = next((index for index in range(len(found)) if index not in found), None)
        if lost is not None:
            raise CheckpointError(
                f"{checkpoint.name}: it has {len(found)} blocks up to number {max(found)}, but block {lost} is missing",
                "download the complete file",
            )
        return tuple(found[index] for index in range(len(found)))
    checkpoint.shape("blocks.0.norm1.weight")
    return tuple(f"blocks.{index}." for index in range(checkpoint.depth("blocks.{}.norm1.weight")))


def first_block(checkpoint: Checkpoint) -> str:
    """The prefix of the first block; "" if there are none."""
    names = ("blocks.0.", "blocks.0.0.")
    return next((name for name in names if checkpoint.has(f"{name}norm1.weight")), "")


def is_common(checkpoint: Checkpoint, *needed: str, lacking: Iterable[str] = ()) -> bool:
    """Whether the file is a ViT with the common block, from any author except timm, and has the tensors `needed`.

    needed, lacking: names, with {b} for the prefix of the first block.
    """
    first = first_block(checkpoint)
    return (
        bool(first)
        and checkpoint.has("patch_embed.proj.weight", *(name.format(b=first) for name in needed))
        and not any(checkpoint.has(name.format(b=first)) for name in lacking)
        and timms(checkpoint) is None
    )


def has_flat_mask(checkpoint: Checkpoint) -> bool:
    """Whether the mask token is [1, D], as in DINOv2 and DINOv3; in MAE and BEiT it has three axes."""
    return checkpoint.has("mask_token") and len(checkpoint.shape("mask_token")) == 2


def with_margin(size: Size, ratio: float = 0.875) -> int:
    """The shorter side before the crop, truncated as in the original code."""
    return int(min(size) / ratio)
