"""What transformers' vision towers have in common: how they are told, their facts, what they cannot hold.

Published files and what is written by default are in the older spelling (`encoder.layer.N.attention.attention.query`);
transformers 5 has its own in memory (`layers.N.attention.q_proj`) and writes it when asked. Both are read.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts, Inferred
from patchword.checkpoints.layout import Description, Layout
from patchword.checkpoints.layouts.transformers_blocks import Names
from patchword.checkpoints.layouts.transformers_config import (
    CONFIG,
    JsonConfig,
    classes_of,
    model_type,
    require,
    told_by,
    written,
)
from patchword.checkpoints.layouts.transformers_preprocess import FILE, read_preprocess, write_preprocess
from patchword.checkpoints.layouts.transformers_restate import rewritten_for
from patchword.checkpoints.ops import Shape
from patchword.errors import CheckpointError
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
    Learned,
    MeanPool,
    Pool,
    Positions,
    Resample,
)

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
PROCESSOR = "processor_config.json"
# What classes with a head put before their backbone.
PREFIXES = (
    "vit.",
    "deit.",
    "ijepa.",
    "beit.",
    "data2vec_vision.",
    "dinov2.",
    "dinov2_with_registers.",
    "vision_model.",
)
# Of the published sizes, by width: Ti S B L So400m H G; DINOv2's largest, CLIP's, DINOv3's.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16, 4096: 32}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a class of transformers takes where config.json does not say, and the processor it comes with.

    published_*: of the published files, where there is no config.json: their eps where the class's default is
    another, and heads by width where the family has others than most.
    """

    act: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu"
    eps: float = 1e-12
    dim: int = 768
    heads: int = 12
    image: int = 224
    processor: str = "ViT"
    published_eps: float | None = None
    published_heads: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tower:
    """One file's tower: where it stands, and what its tensors show. told: the object of config.json about it."""

    checkpoint: Checkpoint
    facts: Facts
    told: JsonConfig
    family: Family
    prefix: str
    names: Names

    def has(self, name: str) -> bool:
        return self.checkpoint.has(f"{self.prefix}{name}")

    def shape(self, name: str, axes: int) -> Shape:
        return self.checkpoint.shape_of(f"{self.prefix}{name}", axes)

    def part(self, name: str) -> str:
        """A part of block 0, with the prefix."""
        return f"{self.names.block(self.prefix, 0)}{name}"

    @property
    def dim(self) -> int:
        name = self.part(f"{self.names.norm1}.weight")
        dim = self.checkpoint.shape_of(name, 1)[0]
        self.told.agrees("hidden_size", dim, name)
        return dim

    @property
    def depth(self) -> int:
        depth = self.checkpoint.depth(f"{self.names.block(self.prefix, '{}')}{self.names.norm1}.weight")
        self.told.agrees("num_hidden_layers", depth, "the number of its blocks")
        return depth

    @property
    def biases(self) -> str:
        """Of queries, keys and values, those that have one in the file, as "qv"."""
        names = zip("qkv", (self.names.q, self.names.k, self.names.v), strict=True)
        return "".join(letter for letter, name in names if self.checkpoint.has(self.part(f"{name}.bias")))

    def attention(self) -> AttentionConfig:
        dim, family, checkpoint = self.dim, self.family, self.checkpoint
        # A config that tells the width and no heads means its class's default; one that tells neither is a stub.
        usual = dim == family.dim or self.told.whole("hidden_size") is not None
        heads = self.facts.heads(
            dim,
            (self.told.whole("num_attention_heads"), CONFIG),
            (family.heads if usual else None, "the class's default"),
            (
                family.published_heads.get(dim, HEADS.get(dim)),
                Inferred(f"the width {dim}, as in the published sizes"),
            ),
        )
        bias: Literal["qkv", "qv", "none"] = "qkv" if "k" in self.biases else "qv" if self.biases else "none"
        out_bias = checkpoint.has(self.part(f"{self.names.out}.bias"))
        return AttentionConfig(num_heads=heads, bias=bias, out_bias=out_bias)

    def mlp(self, act: str | None = None) -> MLPConfig:
        """act: where the file's own word for it is not read (SwiGLU)."""
        first = self.part(self.names.first[0])
        gated = len(self.names.first) == 2 or self.names.first[0].endswith("weights_in")
        rows = self.checkpoint.shape_of(f"{first}.weight", 2)[0]
        hidden = rows // 2 if self.names.first[0].endswith("weights_in") else rows
        self.told.agrees("intermediate_size", hidden, f"{first}.weight")
        said = (act, "SwiGLU") if act else (self.told.activation(), CONFIG)
        activation: Any = self.facts.require("act", said, (self.family.act, "the class's default"))
        return MLPConfig(
            hidden=hidden, activation=activation, gated=gated, bias=self.checkpoint.has(f"{first}.bias")
        )

    def norm(self) -> LayerNormConfig:
        said = self.told.number("layer_norm_eps")
        if said is not None and said <= 0:
            raise self.told.wrong("layer_norm_eps", "above 0")
        published = None if self.told.values else self.family.published_eps
        default = (self.family.eps, "the class's default")
        return LayerNormConfig(
            eps=self.facts.require("eps", (said, CONFIG), (published, "its published files"), default)
        )

    def scale(self) -> float | None:
        """What LayerScale began with is in no file where training is over; its presence is."""
        scales = self.names.scales
        there = scales is not None and self.checkpoint.has(self.part(scales[0]))
        said = self.told.number("layerscale_value") or self.told.number("layer_scale_init_value")
        return (said or 1e-5) if there else None

    def patch(self, kernel: str, *, bias: bool = True) -> tuple[PatchConfig, int]:
        """The patch and the channels of a convolution. bias: the class has one in any case."""
        _, channels, *sides = self.shape(f"{kernel}.weight", 4)
        size = (sides[0], sides[1])
        said = self.told.size("patch_size")
        if said is not None and said != size:
            raise CheckpointError(
                f"{self.checkpoint.name}: {self.told.where} says patch_size {said}, {kernel}.weight says {size}",
                "get config.json and the weights of one and the same model",
            )
        return PatchConfig(size=size, bias=bias or self.has(f"{kernel}.bias")), channels

    def grid(self, count: int, patch: Size) -> Size:
        """Raises: CheckpointError where config.json's image size has another number of patches."""
        said = self.told.size("image_size")
        whole = None if said is None else (said[0] // patch[0] * patch[0], said[1] // patch[1] * patch[1])
        grid = self.facts.grid(count, patch, (whole, CONFIG))
        if said is not None and whole is not None and self.facts.options.image_size is None:
            asked = (whole[0] // patch[0], whole[1] // patch[1])
            if asked != grid:
                raise CheckpointError(
                    f"{self.checkpoint.name}: {self.told.where} says image_size {said}, so {asked[0]} x {asked[1]} "
                    f"patches; its positions are {count}",
                    "get config.json and the weights of one and the same model",
                )
        return grid

    def image(self, grid: Size, patch: Size) -> Size:
        """In pixels; what fills no patch counts too (SigLIP's 384 by 14)."""
        said = self.told.size("image_size")
        if said is not None and (said[0] // patch[0], said[1] // patch[1]) == grid:
            return said
        return grid[0] * patch[0], grid[1] * patch[1]

    def classifier(self, name: str = "classifier") -> int:
        """Rows of the head, 0 where there is none."""
        return (
            self.checkpoint.shape_of(f"{name}.weight", 2)[0] if self.checkpoint.has(f"{name}.weight") else 0
        )

    def pool(self, usual: Pool) -> Pool:
        """The family's own, unless the user says otherwise."""
        asked = self.facts.options.pool
        if asked is None:
            self.facts.record("pool", usual.kind, "its class")
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
        tokens: TokensConfig | None = None,
        positions: Positions | None = None,
        act: str | None = None,
        entry_norm: bool = False,
    ) -> ViTConfig:
        return ViTConfig(
            image=ImageConfig(size=image, channels=channels),
            # A convolution without padding: what fills no patch is left out.
            patch=replace(patch, edge="cut"),
            dim=self.dim,
            depth=self.depth,
            tokens=tokens or TokensConfig(),
            positions=positions or Learned(resample=Resample(antialias=False)),
            attention=self.attention(),
            mlp=self.mlp(act),
            block=BlockConfig(layer_scale=self.scale(), entry_norm=entry_norm),
            norm=self.norm(),
            head=head,
        )

    def description(
        self, config: ViTConfig, usual: Preprocess, *, notes: Iterable[str] = (), **spelling: Any
    ) -> Description:
        """usual: the preparation of the family's published models."""
        said = _preprocessor(self.checkpoint)
        channels = config.image.channels
        read = read_preprocess(said, self.family.processor, channels, config.image.size)
        preprocess = self.facts.preprocess((read, FILE), (usual, f"{self.family.processor}ImageProcessor"))
        return Description(
            config=config,
            preprocess=preprocess,
            classes=()
            if self.facts.options.classes
            else classes_of(told_by(self.checkpoint), config.head.num_classes),
            spelling={"prefix": self.prefix, "names": self.names, **spelling},
            notes=tuple(notes),
        )


def _preprocessor(checkpoint: Checkpoint) -> JsonConfig:
    """Of the image processor alone, or of a processor for images and text, which has it inside."""
    if FILE in checkpoint.configs or PROCESSOR not in checkpoint.configs:
        return JsonConfig(checkpoint.name, checkpoint.configs.get(FILE, {}), FILE)
    return JsonConfig(checkpoint.name, checkpoint.configs[PROCESSOR], PROCESSOR).part("image_processor")


def is_ragged(image: Size, patch: Size) -> bool:
    return any(side % part for side, part in zip(image, patch, strict=True))


class TransformersLayout(Layout):
    """One model type of transformers. types: `model_type` in config.json. anchor: a tensor that its embeddings have."""

    types: tuple[str, ...]
    family: Family
    anchor: str = "embeddings.patch_embeddings.projection.weight"
    spellings: tuple[Names, ...]

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = self.prefix(checkpoint)
        if prefix is None or self.names(checkpoint, prefix) is None:
            return None
        said = model_type(checkpoint)
        if said is not None:
            fits = said in self.types and self.holds_kernel(checkpoint, prefix)
            return f'{CONFIG} says model_type "{said}"' if fits else None
        why = self.told_by_names(checkpoint, prefix)
        return None if why is None else f"{prefix}{self.anchor} and {why}"

    def holds_kernel(self, checkpoint: Checkpoint, prefix: str) -> bool:
        """Whether the patch embedding is this layout's (two types share a name for theirs)."""
        return True

    @abstractmethod
    def told_by_names(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        """The evidence where there is no config.json, None: another type's."""

    def prefix(self, checkpoint: Checkpoint) -> str | None:
        """What stands before the tower's names: what its classes put there, or something that is before all names."""
        found = [name.removesuffix(self.anchor) for name in checkpoint.tensors if name.endswith(self.anchor)]
        if len(found) != 1 or not (not found[0] or found[0].endswith(".")):
            return None
        theirs = found[0] in ("", *PREFIXES) or len(checkpoint.under(found[0])) == len(checkpoint.tensors)
        return found[0] if theirs else None

    def names(self, checkpoint: Checkpoint, prefix: str) -> Names | None:
        """The spelling that the file's first block is in."""
        for names in self.spellings:
            first = names.block(prefix, 0)
            if checkpoint.has(f"{first}{names.q}.weight", f"{first}{names.first[0]}.weight"):
                return names
        return None

    def tower(self, checkpoint: Checkpoint, facts: Facts, told: JsonConfig | None = None) -> Tower:
        prefix = self.prefix(checkpoint) or ""
        names = self.names(checkpoint, prefix)
        assert names is not None, "recognised by its names"
        told = told_by(checkpoint) if told is None else told
        return Tower(
            checkpoint=checkpoint, facts=facts, told=told, family=self.family, prefix=prefix, names=names
        )

    # Writing ---------------------------------------------------------------------------------

    # On queries, keys and values; of the patch embedding: what the class has in any case.
    bias: Literal["qkv", "qv", "any"] = "qkv"
    patch_bias = True

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        config, tensors = rewritten_for(card.config, tensors, bias=self.bias, patch_bias=self.patch_bias)
        return replace(card, config=config), tensors

    @abstractmethod
    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        """model_type, architectures, and what the class must be told."""

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        self.check(card.config)
        return {
            CONFIG: written(self.config_json(card)),
            FILE: write_preprocess(card.preprocess),
        }

    def check(self, config: ViTConfig) -> None:
        """Raises: CheckpointError naming the part that no class of transformers has."""
        attention = config.attention
        require(
            self.title,
            (config.norm.kind == "layer", f"{config.norm.kind} norm"),
            (config.block.order == "pre", f"{config.block.order}-norm blocks"),
            (attention.qk_norm == "none", "norm of queries and keys"),
            (not attention.out_norm and not config.mlp.inner_norm, "norms inside attention and MLP"),
            (
                config.attention_dim == config.dim,
                f"heads of {config.head_dim} channels at a width of {config.dim}",
            ),
            (not (config.patch.norm_pixels or config.patch.norm_output), "norms around the patch embedding"),
            (
                config.patch.edge == "cut" or not is_ragged(config.image.size, config.patch.size),
                "images padded to whole patches",
            ),
            (not config.tokens.registers_last, "registers behind the patches"),
            (config.head.bias or not config.head.num_classes, "classifier without bias"),
        )
