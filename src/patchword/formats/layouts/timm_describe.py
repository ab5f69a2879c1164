"""Read a timm file into a ViTConfig. Tensors define most of it; timm's metadata gives the rest.

All of timm's ViT classes are read by the same code: they share tensor names, and differ in which
tensors are present. Checked against timm 1.0.31.
"""

from typing import Any, Literal, get_args

from patchword.errors import CheckpointError
from patchword.formats.facts import Inferred
from patchword.formats.layouts.timm_positions import DEFAULTS, Places
from patchword.model.config import (
    Activation,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import (
    AttentionPool,
    ClassPool,
    JoinedPool,
    LayerNormConfig,
    MaxPool,
    MeanPool,
    Norm,
    Pool,
    RelativeBias,
    RMSNormConfig,
)

# Heads of timm's named sizes: tiny, small, base, large, huge, so400m, so150m, medium, little, betwixt,
# g, giant, gigantic, enormous and 7b.
_HEADS_BY_WIDTH = {
    192: 3, 320: 5, 384: 6, 512: 8, 640: 10, 768: 12, 832: 13, 896: 14, 1024: 16, 1152: 16,
    1280: 16, 1408: 16, 1536: 24, 1664: 16, 1792: 16, 4096: 32,
}  # fmt: skip
# timm's name of an activation → ours.
_ACTIVATIONS: dict[str, Activation] = {**{name: name for name in get_args(Activation)}, "swish": "silu"}
_NORMS = ("layernorm", "layernormfp32", "rmsnorm", "rmsnormfp32")
_RES_POST = ("ResPostBlock", "ResPostRelPosBlock")


class Reading(Places):
    """Read blocks, norms and head, and assemble the config."""

    def config(self) -> ViTConfig:
        self._check_against_words()
        self._check_holds()
        tokens = self._tokens()
        positions, image = self._positions(tokens)
        heads = self._heads()
        gated = self._gated()
        ragged = any(side % part for side, part in zip(image, self.unit, strict=True))
        return ViTConfig(
            image=ImageConfig(size=image, channels=self.channels),
            patch=PatchConfig(
                size=self.patch,
                stem=self.image_stem,
                # timm omits it only if a norm precedes the blocks.
                bias=self._has(f"{self._patches}.bias") or not self._has("norm_pre.weight"),
                norm_output=self._has(f"{self._patches.rpartition('.')[0]}.norm.weight")
                or bool(self.known.argument("embed_norm_layer")[0]),
                edge="cut" if ragged and not self.pads else "pad",
            ),
            dim=self.dim,
            depth=self.checkpoint.depth("blocks.{}.norm1.weight"),
            tokens=tokens,
            positions=positions,
            attention=self.seen.attention(heads),
            mlp=MLPConfig(
                hidden=self.checkpoint.shape_of(f"{self.block}mlp.fc2.weight", 2)[1],
                activation=self._activation(gated),
                gated=gated,
                bias=self._has(f"{self.block}mlp.fc2.bias"),
                inner_norm=self._has(f"{self.block}mlp.norm.weight"),
            ),
            block=self._block(),
            norm=self._norm(),
            head=self._head(tokens),
        )

    def _check_against_words(self) -> None:
        """Refuse a config.json whose sizes contradict the tensors: it belongs to another file."""
        if not self.known.certain:
            return
        found = {"embed_dim": self.dim, "depth": self.checkpoint.depth("blocks.{}.norm1.weight")}
        for name, value in found.items():
            stated, source = self.known.integer(name)
            if stated is not None and stated != value:
                raise CheckpointError(
                    f"{self.facts.name}: {name} is {stated} in {self._whose(source)}, but {value} in the tensors",
                    "use the config.json that belongs to these weights",
                )

    def _check_holds(self) -> None:
        """Refuse options of timm's classes that no rule covers."""
        stem = self._patches.rpartition(".")[0]
        if self._has(f"{stem}.norm.weight") and self._has(f"{stem}.norm.bias") != self._in_block(
            "norm1.bias"
        ):
            raise self._lacks("a different kind of norm after the patches than in the blocks")
        tables = (
            "rel_pos_bias.relative_position_bias_table",
            f"{self.block}attn.relative_position_bias_table",
        )
        if all(map(self._has, tables)):
            raise self._lacks("both a shared relative position table and one per block")

    def _whose(self, source: str) -> str:
        """Name the file that specifies a value, also if the value comes from its architecture."""
        return source if source == self.known.evidence else f"{self.known.evidence} ({source})"

    # Blocks --------------------------------------------------------------------------------

    def _heads(self) -> int:
        known, checkpoint = self.known, self.checkpoint
        stated, source = known.integer("num_heads")
        of_this_width = known.integer("embed_dim")[0] in (None, self.dim)
        shape: int | None = None
        if self._in_block("attn.q_norm.weight"):
            shape = self.dim // checkpoint.shape_of(f"{self.block}attn.q_norm.weight", 1)[0]
        elif self._has("rope.freqs"):
            shape = checkpoint.shape_of("rope.freqs", 4)[2]
        elif isinstance(self._relative(), RelativeBias):
            shape = checkpoint.shape_of(self.relative_table(), 2)[1]
        trusted = stated if source == known.evidence or of_this_width else None
        if shape is not None and trusted not in (None, shape) and known.certain:
            raise CheckpointError(
                f"{self.facts.name}: num_heads is {trusted} in {self._whose(source)}, but {shape} in the tensors",
                "use the config.json that belongs to these weights",
            )
        return self.facts.heads(
            self.dim,
            (shape, "the tensors"),
            (trusted, source),
            (_HEADS_BY_WIDTH.get(self.dim), Inferred(f"the width {self.dim}, as in timm's sizes")),
        )

    @property
    def _custom(self) -> str:
        """The source of timm's default values; without an architecture they are only the usual values."""
        return DEFAULTS if self.known.kind else Inferred("the usual value in timm's ViTs")

    def _gated(self) -> bool:
        if self._in_block("mlp.fc1_g.weight"):
            return True
        rows = self.checkpoint.shape_of(f"{self.block}mlp.fc1.weight", 2)[0]
        return rows == 2 * self.checkpoint.shape_of(f"{self.block}mlp.fc2.weight", 2)[1]

    def _activation(self, gated: bool) -> Activation:
        known = self.known
        if known.kind in ("Eva", "Beit"):
            usual: Activation = "silu" if gated else "gelu"
            return self.facts.require("act", (usual, f"timm's {known.kind}"))
        stated, source = known.text("act_layer")
        if stated is not None and stated.removeprefix("@").lower() not in _ACTIVATIONS:
            raise self._lacks(f"the activation {stated!r}")
        named = None if stated is None else _ACTIVATIONS[stated.removeprefix("@").lower()]
        if named is None and gated:
            # mlp_layer is a class, which config.json cannot hold. Virchow and UNI2-h use SiLU gates; others may not.
            return self.facts.require(
                "act", ("silu", Inferred("the gated MLP, as in Virchow and UNI2-h (SwiGLUPacked with SiLU)"))
            )
        default: Activation | None = "gelu"
        if not known.kind and self._has("norm_pre.weight"):
            default = None  # CLIP: the same tensors are used with GELU and with OpenAI's quick GELU
        return self.facts.require("act", (named, source), (default, self._custom))

    def _block(self) -> BlockConfig:
        order, _ = self.known.text("block_fn")
        after = self.known.flag("use_post_norm") or (order or "").removeprefix("@") in _RES_POST
        scaled = any(self._in_block(name) for name in ("ls1.gamma", "gamma_1"))
        start = self.known.number("init_values")[0] or 1e-5
        return BlockConfig(
            order="res_post" if after else "pre",
            entry_norm=self._has("norm_pre.weight"),
            layer_scale=start if scaled else None,
        )

    def _norm(self) -> Norm:
        stated, source = self.known.argument("norm_layer")
        named: float | None = None
        if isinstance(stated, list) and source == self.known.of_architecture:
            named = stated[1]["eps"]
        elif stated is not None and str(stated).removeprefix("@").lower().replace("_", "") not in _NORMS:
            raise self._lacks(f"the norm {stated!r}")
        before = self._has("norm_pre.weight") and not self.known.kind
        eps = self.facts.require(
            "eps",
            (named, source),
            (1e-5 if before else None, Inferred("timm's models with a norm before the blocks")),
            (1e-6, self._custom),
        )
        if self._in_block("norm1.bias"):
            return LayerNormConfig(eps=eps)
        return RMSNormConfig(eps=eps)

    # Head ----------------------------------------------------------------------------------

    def _head(self, tokens: TokensConfig) -> HeadConfig:
        after = self._has("fc_norm.weight")
        before = self._has("norm.weight")
        if after and before:
            raise self._lacks("a norm before and another after pooling (norm and fc_norm)")
        classes = self.checkpoint.shape_of("head.weight", 2)[0] if self._has("head.weight") else 0
        pool = self._pool(tokens)
        return HeadConfig(
            pool=pool,
            norm="pooled" if after else "tokens" if before or self.known.has_last_norm else "none",
            num_classes=classes,
            # Without a head, timm returns the mean of both tokens.
            distilled=self._has("head_dist.weight")
            or (tokens.distillation_token and isinstance(pool, ClassPool)),
        )

    def _pool(self, tokens: TokensConfig) -> Pool:
        over: Literal["patches", "all"] = "all" if self._pools_prefix(tokens) else "patches"
        if self.checkpoint.under("attn_pool."):
            return self._attention_pool(over)
        stated, source = self.known.text("global_pool")
        names = {"token": "class", "avg": "mean", "max": "max", "": None, None: None}
        if stated not in names:
            raise self._lacks(f"the pooling {stated!r}")
        usual = "class" if tokens.class_token else "mean"
        by_kind = {"Eva": "mean", "Beit": "mean", "VisionTransformerRelPos": "mean", "NaFlexVit": None}
        default = by_kind.get(self.known.kind, usual)
        if stated == "" and self._has("head.weight"):
            default = None  # timm would classify each token; without a head, only the embedding is affected
        if not self.known.kind and self._has("fc_norm.weight"):
            default = "mean"
        custom = Inferred("the model's tokens, because global_pool is ''") if stated == "" else self._custom
        kind: Any = self.facts.require("pool", (names[stated], source), (default, custom))
        if kind == "class":
            return ClassPool()
        if kind == "joined":  # published so (Virchow); timm itself returns the tokens
            return JoinedPool()
        return MaxPool(over=over) if kind == "max" else MeanPool(over=over)

    def _pools_prefix(self, tokens: TokensConfig) -> bool:
        if not tokens.num_extra:
            return False
        always = self.known.kind == "Eva" and self._has("attn_pool.latent")
        return always or self.known.flag("pool_include_prefix")

    def _attention_pool(self, over: Literal["patches", "all"]) -> AttentionPool:
        if self.facts.options.pool is not None:
            raise CheckpointError(
                f"{self.facts.name}: it has an attention pool, so --pool {self.facts.options.pool} does not apply",
                "remove --pool",
            )
        self.facts.record("pool", "attention", "attn_pool in the file")
        plain = not self._gated() and not self._in_block("mlp.norm.weight")
        if not plain or not self._in_block("mlp.fc2.bias"):
            raise self._lacks("an attention pool whose MLP differs from that of the blocks")
        hidden = self.checkpoint.shape_of("attn_pool.mlp.fc1.weight", 2)[0]
        own = self.known.integer("attn_pool_num_heads")[0]
        own = None if own == self._heads() else own
        same = hidden == self.checkpoint.shape_of(f"{self.block}mlp.fc2.weight", 2)[1]
        return AttentionPool(num_heads=own, hidden=None if same else hidden, over=over)
