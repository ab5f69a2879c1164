"""CLIP's image tower as OpenAI and open_clip write it, with or without the text tower.

Sources: openai/CLIP `clip/model.py`, open_clip `transformer.py` and `factory.py`. The two use the
same names, but differ in the activation and in whether the last norm comes before pooling.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.evaluation import CLIP, evaluation
from patchword.formats.renamed import Renamed
from patchword.formats.rows import RowLayout, Rows, inputs_first, rows_alone
from patchword.images.geometry import Border, ResizeRule, Shorter, Squash
from patchword.images.preprocess import Interpolation, Preprocess
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    ViTConfig,
)
from patchword.model.kinds import ClassPool, LayerNormConfig, Learned, MeanPool, Pool, Resample
from patchword.weights.card import ModelCard

CONFIG = "open_clip_config.json"
_HEAD_WIDTH = 64
# Other parts of a complete model; `transformer.` without `visual.` belongs to the text tower.
TEXT = (
    Ignored(
        r"(text\..*|transformer\..*|token_embedding\.weight|positional_embedding|ln_final\.(weight|bias)|"
        r"text_projection(\.weight|\.bias)?)",
        "the text tower",
    ),
    Ignored(r"logit_scale|logit_bias", "scale or bias of the image-text similarity"),
    Ignored(
        r"input_resolution|context_length|vocab_size", "sizes that OpenAI's archive stores with the weights"
    ),
)


class Clip(RowLayout):
    """Common part of both layouts. norm: position of the last norm."""

    norm: Literal["tokens", "pooled"]
    # Whether its code always computes the number of heads from the width.
    fixed_heads = False

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        prefix = _prefix(checkpoint)
        if prefix is None or is_perception(checkpoint, prefix):
            return None
        mine, why = self._is_mine(checkpoint)
        return f"{prefix}conv1 and {prefix}class_embedding, {why}" if mine else None

    def _is_mine(self, checkpoint: Checkpoint) -> tuple[bool, str]:
        raise AssertionError("subclasses implement this")

    def _describe(self, checkpoint: Checkpoint, facts: Facts, declared: Mapping[str, Any]) -> ViTConfig:
        """Build the config. declared: the contents of `vision_cfg`, {} if there is none."""
        prefix = _prefix(checkpoint) or ""
        seen = Renamed(checkpoint, self.rows({"prefix": prefix}, None))
        dim, channels, patch = seen.kernel
        rows = checkpoint.shape_of(f"{prefix}positional_embedding", 2)[0]
        grid = facts.grid(rows - 1, patch, (_pair(declared.get("image_size")), CONFIG))
        width = declared.get("head_width", _HEAD_WIDTH)
        by_width = f"heads of {width} channels, as in CLIP"
        source = by_width if declared or self.fixed_heads else Inferred(by_width)
        # Next to a text tower, the output is in the shared space. A tower alone may have been cut before that.
        projects = any(map(checkpoint.has, (f"{prefix}proj", "text_projection", "token_embedding.weight")))
        eps = (_inner(declared, "norm_kwargs").get("eps"), CONFIG)
        return ViTConfig(
            image=ImageConfig(size=(grid[0] * patch[0], grid[1] * patch[1]), channels=channels),
            patch=PatchConfig(size=patch, bias=False),
            dim=dim,
            depth=checkpoint.depth(f"{prefix}transformer.resblocks.{{}}.ln_1.weight"),
            positions=Learned(resample=Resample(antialias=True)),
            attention=AttentionConfig(
                num_heads=facts.heads(dim, (dim // width if dim % width == 0 else None, source))
            ),
            mlp=seen.plain_mlp(self._act(facts, declared)),
            block=BlockConfig(
                entry_norm=seen.has("entry_norm.weight"),
                layer_scale=1e-5 if seen.in_block("scale1.weight") else None,
            ),
            norm=LayerNormConfig(eps=facts.require("eps", eps, (1e-5, "CLIP's code (torch's default)"))),
            head=HeadConfig(
                pool=self._pool(facts, declared),
                norm="pooled" if declared.get("final_ln_after_pool") else self.norm,
                projection=checkpoint.shape_of(f"{prefix}proj", 2)[1] if projects else 0,
                num_classes=0,
            ),
        )

    def _act(self, facts: Facts, declared: Mapping[str, Any]) -> Any:
        raise AssertionError("subclasses implement this")

    def _pool(self, facts: Facts, declared: Mapping[str, Any]) -> Pool:
        stated = {"tok": "class", "avg": "mean"}.get(declared.get("pool_type", "tok"))
        if stated is None:
            raise CheckpointError(
                f"{facts.name}: {CONFIG} specifies pooling {declared['pool_type']!r}, which the backbone does not support",
                "load this model with open_clip",
            )
        kind = facts.require("pool", (stated, CONFIG if "pool_type" in declared else "CLIP's class token"))
        return MeanPool() if kind == "mean" else ClassPool()

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": "visual."}

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return self.names_of(spelling["prefix"])

    @staticmethod
    def names_of(prefix: str) -> Rows:
        """The names below a prefix, which PE uses too."""
        block = f"{prefix}transformer.resblocks.{{i}}."
        return (
            (f"{prefix}conv1.weight", "patch_embed.proj.weight"),
            (f"{prefix}class_embedding", "prefix.class_token"),
            (f"{prefix}positional_embedding", ("positions.prefix", "positions.grid"), rows_alone),
            (f"{prefix}ln_pre.{{wb}}", "entry_norm.{wb}"),
            [
                (f"{block}ln_1.{{wb}}", "blocks.{i}.norm1.{wb}"),
                # torch's MultiheadAttention has an underscore where other layers have a dot.
                (f"{block}attn.in_proj_{{wb}}", "blocks.{i}.attention.qkv.{wb}"),
                (f"{block}attn.out_proj.{{wb}}", "blocks.{i}.attention.proj.{wb}"),
                (f"{block}ln_2.{{wb}}", "blocks.{i}.norm2.{wb}"),
                (f"{block}mlp.c_fc.{{wb}}", "blocks.{i}.mlp.fc1.{wb}"),
                (f"{block}mlp.c_proj.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
                (f"{block}ls_1.gamma", "blocks.{i}.scale1.weight"),
                (f"{block}ls_2.gamma", "blocks.{i}.scale2.weight"),
            ],
            (f"{prefix}ln_post.{{wb}}", "norm.{wb}"),
            (f"{prefix}ln_post.{{wb}}", "pooled_norm.{wb}"),
            (f"{prefix}proj", "projection.weight", inputs_first),
        )

    def ignored(self, description: Description) -> Iterable[Ignored]:
        return TEXT if description.spelling["prefix"] else ()


class OpenAIClip(Clip):
    """`ViT-B-32.pt`: a TorchScript archive, its state dict, or only the visual tower; float16 and float32 mixed."""

    fixed_heads = True
    name = "openai-clip"
    title = "OpenAI CLIP"
    container = "torch"
    norm = "pooled"

    def _is_mine(self, checkpoint: Checkpoint) -> tuple[bool, str]:
        if checkpoint.has("input_resolution") or checkpoint.stored.container == "torchscript":
            return True, "with the sizes that OpenAI's archives store"
        if OpenClip()._is_mine(checkpoint)[0]:
            return False, ""
        return True, "without a config, as in OpenAI's files"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        config = self._describe(checkpoint, facts, {})
        if facts.options.act is not None and not checkpoint.has("input_resolution"):
            # OpenAI's files never need --act: this is a bare open_clip file, whose last norm covers all tokens.
            config = replace(config, head=replace(config.head, norm=OpenClip.norm))
        sure = checkpoint.has("input_resolution") or facts.options.act is not None
        doubt = (
            ()
            if sure
            else (
                "assumed to be OpenAI's, with quick_gelu; open_clip's weights have the same names and mostly use GELU (--act gelu)",
            )
        )
        preprocess = facts.preprocess((preprocess_of(config), "CLIP's own transform"))
        return Description(
            config=config, preprocess=preprocess, spelling={"prefix": _prefix(checkpoint)}, notes=doubt
        )

    def _act(self, facts: Facts, declared: Mapping[str, Any]) -> Any:
        return facts.require("act", ("quick_gelu", "OpenAI's CLIP"))


class OpenClip(Clip):
    """open_clip's own image tower: a folder with open_clip_config.json, or a training file."""

    name = "open_clip"
    title = "open_clip"
    norm = "tokens"
    file_name = "open_clip_model.safetensors"

    def _is_mine(self, checkpoint: Checkpoint) -> tuple[bool, str]:
        if checkpoint.has("input_resolution"):
            return False, ""
        if CONFIG in checkpoint.configs:
            return True, f"with {CONFIG}"
        if checkpoint.path.name.startswith("open_clip"):
            return True, f"the file name {checkpoint.path.name}"
        if checkpoint.wrapper:
            return True, f"under {checkpoint.wrapper} in a training file"
        return _open_clip_only(checkpoint), "with tensors that only open_clip has"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        whole = _mapping(checkpoint, "model_cfg")
        declared = whole.get("vision_cfg", {})
        if not isinstance(declared, Mapping):
            raise CheckpointError(
                f"{checkpoint.name}: {CONFIG} has no vision_cfg", "download the config again"
            )
        self._refuse(checkpoint, declared)
        config = self._describe(
            checkpoint, facts, {**declared, "quick_gelu": whole.get("quick_gelu", False)} if declared else {}
        )
        preprocess = facts.preprocess(
            (preprocess_cfg(config, _mapping(checkpoint, "preprocess_cfg")), f"{CONFIG}: preprocess_cfg"),
            (preprocess_of(config), "CLIP's own transform"),
        )
        return Description(config=config, preprocess=preprocess, spelling={"prefix": _prefix(checkpoint)})

    def _refuse(self, checkpoint: Checkpoint, declared: Mapping[str, Any]) -> None:
        for part in ("attentional_pool", "patch_dropout_pos", "input_patchnorm"):
            if declared.get(part):
                raise CheckpointError(
                    f"{checkpoint.name}: {CONFIG} specifies {part}, which the backbone does not support",
                    "load this model with open_clip",
                )

    def _act(self, facts: Facts, declared: Mapping[str, Any]) -> Any:
        if not declared:
            return facts.require("act", (None, CONFIG))
        if declared["quick_gelu"]:
            return facts.require("act", ("quick_gelu", CONFIG))
        approximate = _inner(declared, "act_kwargs").get("approximate", "none")
        return facts.require("act", ("gelu_tanh" if approximate == "tanh" else "gelu", CONFIG))

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        config, p = card.config, card.preprocess
        _check_holds(config)
        mode = {"squash": "squash", "border": "longest"}.get(p.resize.kind, "shortest")
        written = {
            "model_cfg": {
                "embed_dim": config.head.projection or config.dim,
                "quick_gelu": config.mlp.activation == "quick_gelu",
                "vision_cfg": {
                    "image_size": config.image.size[0] if len(set(config.image.size)) == 1 else list(config.image.size),
                    "layers": config.depth,
                    "width": config.dim,
                    "head_width": config.head_dim,
                    "patch_size": config.patch.size[0],
                    "mlp_ratio": config.mlp_dim / config.dim,
                    "pool_type": "avg" if isinstance(config.head.pool, MeanPool) else "tok",
                    "no_ln_pre": not config.block.entry_norm,
                    "final_ln_after_pool": config.head.norm == "pooled",
                    **({"ls_init_value": config.block.layer_scale} if config.block.layer_scale is not None else {}),
                    **({"act_kwargs": {"approximate": "tanh"}} if config.mlp.activation == "gelu_tanh" else {}),
                    **({"norm_kwargs": {"eps": config.norm.eps}} if config.norm.eps != 1e-5 else {}),
                },
            },
            "preprocess_cfg": {
                "mean": list(p.mean), "std": list(p.std), "size": list(p.image_size),
                "interpolation": p.resample.interpolation, "resize_mode": mode,
            },
        }  # fmt: skip
        return {CONFIG: (json.dumps(written, indent=1) + "\n").encode()}


def _prefix(checkpoint: Checkpoint) -> str | None:
    prefix = tower_prefix(checkpoint)
    return prefix if checkpoint.has(f"{prefix}class_embedding") else None


def tower_prefix(checkpoint: Checkpoint) -> str | None:
    """The prefix of an image tower with CLIP's names, with or without a class token."""
    for prefix in ("visual.", ""):
        if checkpoint.has(f"{prefix}conv1.weight", f"{prefix}transformer.resblocks.0.ln_1.weight"):
            return prefix
    return None


def is_perception(checkpoint: Checkpoint, prefix: str) -> bool:
    """Whether it is a Perception Encoder: CLIP's names, with an attention pool or without a last norm."""
    whole = checkpoint.has(f"{prefix}ln_pre.weight", f"{prefix}positional_embedding")
    normed = checkpoint.has(f"{prefix}ln_post.weight")
    return whole and (
        is_pooled(checkpoint, prefix)
        or (not normed and checkpoint.has(f"{prefix}transformer.resblocks.0.ls_1.gamma"))
    )


def is_pooled(checkpoint: Checkpoint, prefix: str) -> bool:
    """Whether it has the attention pool of a Perception Encoder; open_clip's has neither tensor."""
    return any(checkpoint.has(f"{prefix}attn_pool.{name}") for name in ("probe", "layernorm.weight"))


def _open_clip_only(checkpoint: Checkpoint) -> bool:
    only = ("text.token_embedding.weight", "logit_bias", "visual.transformer.resblocks.0.ls_1.gamma")
    return any(checkpoint.has(name) for name in only)


def _mapping(checkpoint: Checkpoint, part: str) -> Mapping[str, Any]:
    found = checkpoint.configs.get(CONFIG, {}).get(part, {})
    return found if isinstance(found, Mapping) else {}


def _inner(declared: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """Arguments of a layer inside `vision_cfg`, {} if there are none."""
    found = declared.get(part)
    return found if isinstance(found, Mapping) else {}


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0], value[1]
    return None


def preprocess_of(config: ViTConfig) -> Preprocess:
    """Resize the shorter side to the model's size (bicubic), crop the centre; use CLIP's mean and std."""
    size = config.image.size
    rule: ResizeRule = Shorter(size=size[0]) if size[0] == size[1] else Squash(size=size)
    return evaluation(config, rule, CLIP)


def preprocess_cfg(config: ViTConfig, declared: Mapping[str, Any]) -> Preprocess | None:
    if not declared:
        return None
    size = _pair(declared.get("size")) or config.image.size
    rules: dict[str, ResizeRule] = {"squash": Squash(size=size), "longest": Border(size=size)}
    plain = preprocess_of(config)
    try:
        mean, std = (
            tuple(float(x) for x in declared.get(name, given))
            for name, given in (("mean", plain.mean), ("std", plain.std))
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{CONFIG}: mean and std must be numbers", "download the config again"
        ) from error
    how: Interpolation = "bilinear" if declared.get("interpolation") == "bilinear" else "bicubic"
    return replace(
        plain,
        image_size=size,
        resize=rules.get(declared.get("resize_mode", "shortest"), plain.resize),
        resample=replace(plain.resample, interpolation=how),
        mean=mean,
        std=std,
    )


def _check_holds(config: ViTConfig) -> None:
    """Raises: CheckpointError for the first part that open_clip's tower does not support."""
    if config.patch.size[0] != config.patch.size[1]:
        raise CheckpointError("open_clip does not support non-square patches", "choose another format")
    if config.mlp.activation not in ("gelu", "gelu_tanh", "quick_gelu"):
        raise CheckpointError(
            f"open_clip does not support the activation {config.mlp.activation!r}", "choose another format"
        )
