"""A vision tower in a file of transformers: what its tensors and config.json state.

Published files and default output use the older spelling (`encoder.layer.N.attention.attention.query`).
transformers 5 uses another in memory (`layers.N.attention.q_proj`) and writes it on request. Both are read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import CONFIG, JsonConfig, classes_of, config_of
from patchword.formats.layouts.transformers_preprocess import FILE, read_preprocess, simplified
from patchword.formats.ops import Shape
from patchword.images.preprocess import Preprocess
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    ClassPool,
    FirstPool,
    LayerNormConfig,
    MeanPool,
    Pool,
    Positions,
    RMSNormConfig,
)

Size = tuple[int, int]
PROCESSOR = "processor_config.json"
# Heads of the published sizes, by width: Ti S B L So400m H G; DINOv2's largest, CLIP's, DINOv3's.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16, 4096: 32}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Defaults of a transformers class, and its image processor.

    published_*: values for published files without config.json: their eps if it differs from the default of the
    class, and heads by width if the family differs from most. norm: of its class; "either" if a setting chooses. eps_key:
    of the epsilon in config.json.
    """

    act: Literal["gelu", "gelu_tanh", "quick_gelu", "silu"] = "gelu"
    eps: float = 1e-12
    dim: int = 768
    heads: int = 12
    image: int = 224
    processor: str = "ViT"
    published_eps: float | None = None
    published_heads: Mapping[int, int] = field(default_factory=dict)
    norm: Literal["layer", "rms", "either"] = "layer"
    eps_key: str = "layer_norm_eps"


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One file's tower: its prefix and its tensors. declared: its part of config.json."""

    checkpoint: Checkpoint
    facts: Facts
    declared: JsonConfig
    family: Family
    prefix: str
    names: Names

    def has(self, name: str) -> bool:
        return self.checkpoint.has(f"{self.prefix}{name}")

    def shape(self, name: str, axes: int) -> Shape:
        return self.checkpoint.shape_of(f"{self.prefix}{name}", axes)

    def part(self, name: str) -> str:
        """The full name of a part of block 0."""
        return f"{self.names.block(self.prefix, 0)}{name}"

    @property
    def dim(self) -> int:
        name = self.part(f"{self.names.norm1}.weight")
        dim = self.checkpoint.shape_of(name, 1)[0]
        self.declared.agrees("hidden_size", dim, name)
        return dim

    @property
    def depth(self) -> int:
        depth = self.checkpoint.depth(f"{self.names.block(self.prefix, '{}')}{self.names.norm1}.weight")
        self.declared.agrees("num_hidden_layers", depth, "the number of blocks")
        return depth

    @property
    def biases(self) -> str:
        """Those of queries, keys and values that have a bias in the file, e.g. "qv"."""
        names = zip("qkv", (self.names.q, self.names.k, self.names.v), strict=True)
        return "".join(letter for letter, name in names if self.checkpoint.has(self.part(f"{name}.bias")))

    def attention(self) -> AttentionConfig:
        bias: Literal["qkv", "qv", "none"] = "qkv" if "k" in self.biases else "qv" if self.biases else "none"
        out_bias = self.checkpoint.has(self.part(f"{self.names.out}.bias"))
        return AttentionConfig(num_heads=self.heads(), bias=bias, out_bias=out_bias)

    def heads(self) -> int:
        dim, family = self.dim, self.family
        # A config with a width but no heads means the class's default; one with neither is a stub.
        usual = dim == family.dim or self.declared.whole("hidden_size") is not None
        published = family.published_heads.get(dim, HEADS.get(dim))
        return self.facts.heads(
            dim,
            (self.declared.whole("num_attention_heads"), CONFIG),
            (family.heads if usual else None, "the default of its class"),
            (published, Inferred(f"the width {dim}, as in the published sizes")),
        )

    @property
    def _gate_inside(self) -> bool:
        """Whether gate and value are one tensor."""
        return self.names.first[0].endswith(("weights_in", "w12"))

    @property
    def gated(self) -> bool:
        return len(self.names.first) == 2 or self._gate_inside

    def mlp(self, act: str | None = None) -> MLPConfig:
        """act: the activation, if the class ignores the one in the file (SwiGLU)."""
        first = self.part(self.names.first[0])
        rows = self.checkpoint.shape_of(f"{first}.weight", 2)[0]
        hidden = rows // 2 if self._gate_inside else rows
        self.declared.agrees("intermediate_size", hidden, f"{first}.weight")
        stated = (act, "SwiGLU") if act else (self.declared.activation(), CONFIG)
        activation: Any = self.facts.require("act", stated, (self.family.act, "the default of its class"))
        return MLPConfig(
            hidden=hidden, activation=activation, gated=self.gated, bias=self.checkpoint.has(f"{first}.bias")
        )

    def norm(self) -> LayerNormConfig | RMSNormConfig:
        key = self.family.eps_key
        stated = self.declared.number(key)
        if stated is not None and stated <= 0:
            raise self.declared.wrong(key, "above 0")
        published = None if self.declared.values else self.family.published_eps
        default = (self.family.eps, "the default of its class")
        eps = self.facts.require(
            "eps", (stated, CONFIG), (published, "the family's published files"), default
        )
        unbiased = not self.checkpoint.has(self.part(f"{self.names.norm1}.bias"))
        by_mean_square = self.family.norm == "rms" or (self.family.norm == "either" and unbiased)
        return RMSNormConfig(eps=eps) if by_mean_square else LayerNormConfig(eps=eps)

    def scale(self) -> float | None:
        """LayerScale's initial value. Files of trained models may omit it, but its tensors are present."""
        scales = self.names.scales
        there = scales is not None and self.checkpoint.has(self.part(scales[0]))
        stated = self.declared.number("layerscale_value") or self.declared.number("layer_scale_init_value")
        return (stated or 1e-5) if there else None

    def patch(self, kernel: str, *, bias: bool = True) -> tuple[PatchConfig, int]:
        """The patch config and channels of a convolution. bias: whether the class always has one."""
        _, channels, *sides = self.shape(f"{kernel}.weight", 4)
        size = (sides[0], sides[1])
        stated = self.declared.size("patch_size")
        if stated is not None and stated != size:
            raise CheckpointError(
                f"{self.checkpoint.name}: patch_size is {stated} in {self.declared.where}, but {size} according to {kernel}.weight",
                "use config.json and weights from the same model",
            )
        return PatchConfig(size=size, bias=bias or self.has(f"{kernel}.bias")), channels

    def grid(self, count: int, patch: Size) -> Size:
        """Raises: CheckpointError if config.json's image size gives another number of patches."""
        stated = self.declared.size("image_size")
        whole = (
            None if stated is None else (stated[0] // patch[0] * patch[0], stated[1] // patch[1] * patch[1])
        )
        grid = self.facts.grid(count, patch, (whole, CONFIG))
        if stated is not None and whole is not None and self.facts.options.image_size is None:
            asked = (whole[0] // patch[0], whole[1] // patch[1])
            if asked != grid:
                raise CheckpointError(
                    f"{self.checkpoint.name}: image_size is {stated} in {self.declared.where}, which gives {asked[0]} x {asked[1]} "
                    f"patches, but it has {count} positions",
                    "use config.json and weights from the same model",
                )
        return grid

    def image(self, grid: Size, patch: Size) -> Size:
        """The image size in pixels, including pixels that do not fill a patch (SigLIP's 384 with patches of 14)."""
        stated = self.declared.size("image_size")
        if stated is not None and (stated[0] // patch[0], stated[1] // patch[1]) == grid:
            return stated
        return grid[0] * patch[0], grid[1] * patch[1]

    def classifier(self, name: str = "classifier") -> int:
        """Number of outputs of the head, 0 if there is none."""
        return (
            self.checkpoint.shape_of(f"{name}.weight", 2)[0] if self.checkpoint.has(f"{name}.weight") else 0
        )

    def pool(self, usual: Pool) -> Pool:
        """The family's pooling, unless the user specifies another."""
        asked = self.facts.options.pool
        if asked is None:
            self.facts.record("pool", usual.kind, "the default of its class")
            return usual
        self.facts.record("pool", asked, "option")
        pools: dict[str, Pool] = {"class": ClassPool(), "first": FirstPool(), "mean": MeanPool()}
        return pools[asked]

    def config(
        self,
        *,
        image: Size,
        channels: int,
        patch: PatchConfig,
        head: HeadConfig,
        tokens: TokensConfig,
        positions: Positions,
        act: str | None,
        entry_norm: bool,
    ) -> ViTConfig:
        return ViTConfig(
            image=ImageConfig(size=image, channels=channels),
            # A convolution without padding ignores pixels that do not fill a patch.
            patch=replace(patch, edge="cut"),
            dim=self.dim,
            depth=self.depth,
            tokens=tokens,
            positions=positions,
            attention=self.attention(),
            mlp=self.mlp(act),
            block=BlockConfig(layer_scale=self.scale(), entry_norm=entry_norm),
            norm=self.norm(),
            head=head,
        )

    def description(
        self, config: ViTConfig, usual: Preprocess, *, notes: Iterable[str] = (), **spelling: Any
    ) -> Description:
        """Assemble the description. usual: preprocessing of the family's published models."""
        stated = _preprocessor(self.checkpoint)
        channels = config.image.channels
        read = read_preprocess(stated, self.family.processor, channels, config.image.size)
        preprocess = self.facts.preprocess((read, FILE), (usual, f"{self.family.processor}ImageProcessor"))
        notes = (*notes, *simplified(stated, self.family.processor))
        return Description(
            config=config,
            preprocess=preprocess,
            classes=()
            if self.facts.options.classes
            else classes_of(config_of(self.checkpoint), config.head.num_classes),
            spelling={"prefix": self.prefix, "names": self.names, **spelling},
            notes=tuple(notes),
        )


def _preprocessor(checkpoint: Checkpoint) -> JsonConfig:
    """The image processor's config, possibly nested in a processor for images and text."""
    if FILE in checkpoint.configs or PROCESSOR not in checkpoint.configs:
        return JsonConfig(checkpoint.name, checkpoint.configs.get(FILE, {}), FILE)
    return JsonConfig(checkpoint.name, checkpoint.configs[PROCESSOR], PROCESSOR).part("image_processor")
