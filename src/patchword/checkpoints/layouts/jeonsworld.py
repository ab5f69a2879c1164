"""jeonsworld/ViT-pytorch, a port used in many courses. Source: the repository at 460a162.

A bare state dict. Its code uses exact GELU, although most of its weights were trained with Google's tanh GELU.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts, Inferred, by_width
from patchword.checkpoints.layout import Description, Ignored, Layout, Rule, rule
from patchword.checkpoints.layouts.blocks import both, patches, token
from patchword.checkpoints.layouts.google_holds import cannot_hold
from patchword.checkpoints.ops import Joined, Parted
from patchword.errors import CheckpointError
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig
from patchword.model.kinds import LayerNormConfig, Learned, NoStem, Resample, ResNetStem, Stem

_CODE = "jeonsworld's modeling.py"
_EMBED = "transformer.embeddings."
_LAYER = "transformer.encoder.layer."
_HYBRID = f"{_EMBED}hybrid_model."
# Heads by width for the sizes in its configs: B, L and H.
_HEADS = ((768, 12), (1024, 16), (1280, 16))
# Its code resizes with scipy's zoom of order 1 when weights are loaded.
_RESAMPLE = Resample(interpolation="bilinear", antialias=False, align_corners=True)


class JeonsworldViT(Layout):
    name = "jeonsworld"
    title = "jeonsworld/ViT-pytorch"
    container = "torch"
    file_name = "pytorch_model.bin"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if checkpoint.has(f"{_EMBED}patch_embeddings.weight", f"{_LAYER}0.attention_norm.weight"):
            return f"{_EMBED}patch_embeddings and {_LAYER}0.attention_norm"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, channels, *sides = checkpoint.shape_of(f"{_EMBED}patch_embeddings.weight", 4)
        stem = _stem(checkpoint)
        if isinstance(stem, ResNetStem):
            channels = checkpoint.shape_of(f"{_HYBRID}root.conv.weight", 4)[1]
        patch = (sides[0], sides[1])
        stride = (stem.stride * patch[0], stem.stride * patch[1])
        rows = checkpoint.shape_of(f"{_EMBED}position_embeddings", 3)[1]
        grid = facts.grid(rows - 1, stride)
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * stride[0], grid[1] * stride[1]), channels=channels),
            patch=PatchConfig(size=patch, stem=stem),
            dim=dim,
            depth=checkpoint.depth(_LAYER + "{}.attention_norm.weight"),
            positions=Learned(resample=_RESAMPLE),
            attention=AttentionConfig(
                num_heads=facts.heads(
                    dim, (by_width(_HEADS, dim), Inferred(f"the width {dim}, as in jeonsworld's configs"))
                )
            ),
            mlp=MLPConfig(
                hidden=checkpoint.shape_of(f"{_LAYER}0.ffn.fc1.weight", 2)[0],
                activation=facts.require("act", ("gelu", _CODE)),
            ),
            norm=LayerNormConfig(eps=facts.require("eps", (1e-6, _CODE))),
            head=HeadConfig(
                num_classes=checkpoint.shape_of("head.weight", 2)[0] if checkpoint.has("head.weight") else 0
            ),
        )
        preprocess = facts.preprocess((_preprocess(config), "jeonsworld's data_utils.py"))
        return Description(config=_fitted(config, preprocess), preprocess=preprocess)

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        count = config.grid_size[0] * config.grid_size[1] + 1
        yield from _stem_rules(config.patch.stem)
        yield from patches(config, f"{_EMBED}patch_embeddings")
        yield token(f"{_EMBED}cls_token", "prefix.class_token", config)
        yield rule(
            f"{_EMBED}position_embeddings",
            ("positions.prefix", "positions.grid"),
            Parted((1, count, config.dim)),
        )
        for index in range(config.depth):
            yield from _block(index)
        yield from both("transformer.encoder.encoder_norm", "norm")
        if config.head.num_classes:
            yield from both("head", "head")

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """Return None. Raises: CheckpointError for what the format cannot store."""
        config = card.config
        lacks = cannot_hold(replace(config, patch=replace(config.patch, stem=NoStem())))
        if config.head.pool.kind != "class":
            lacks = lacks or f"pooling of kind {config.head.pool.kind}"
        if config.num_prefix_positions != 1:
            lacks = lacks or "positions other than learned ones that include the class token"
        if config.head.pre_logits or config.head.projection:
            lacks = lacks or "layers between the embedding and the head"
        stem = config.patch.stem
        if isinstance(stem, ResNetStem) and stem != _of_torch(stem.units, stem.width):
            lacks = lacks or "a ResNet stem with Google's or timm's padding and norms"
        if lacks:
            raise CheckpointError(
                f"{self.title} does not support {lacks}", "choose another format, or keep the patchword file"
            )
        return {}


def _fitted(config: ViTConfig, preprocess: Preprocess) -> ViTConfig:
    """Its convolution ignores pixels that do not fill a patch."""
    if not any(side % step for side, step in zip(preprocess.image_size, config.patch_span, strict=True)):
        return config
    return replace(config, patch=replace(config.patch, edge="cut"))


def _stem(checkpoint: Checkpoint) -> Stem:
    if not checkpoint.under(_HYBRID):
        return NoStem()
    unit = re.compile(re.escape(_HYBRID) + r"body\.block(\d+)\.unit(\d+)\.conv1\.weight")
    found = [(int(m[1]), int(m[2])) for name in checkpoint.tensors if (m := unit.fullmatch(name))]
    stages = range(1, max((stage for stage, _ in found), default=0) + 1)
    units = tuple(sum(1 for stage, _ in found if stage == wanted) for wanted in stages)
    if not units or not all(units):
        raise CheckpointError(
            f"{checkpoint.name}: a stage of its ResNet is missing", "download the complete file"
        )
    width = checkpoint.shape_of(f"{_HYBRID}root.conv.weight", 4)[0]
    return _of_torch(units, width)


def _of_torch(units: tuple[int, ...], width: int) -> ResNetStem:
    return ResNetStem(
        units=units, width=width, weight_eps="variance", padding="symmetric", proj_norm="channel"
    )


def _preprocess(config: ViTConfig) -> Preprocess:
    """Resize to a square with torchvision's Resize of a PIL image."""
    return Preprocess(
        image_size=config.image.size,
        resize=Squash(size=config.image.size),
        in_channels=config.image.channels,
        resample=PixelResample(interpolation="bilinear"),
        reading=Reading(apply_exif=False),
    )


def _stem_rules(stem: Stem) -> Iterable[Rule]:
    if not isinstance(stem, ResNetStem):
        return
    ours = "patch_embed.stem."
    yield rule(f"{_HYBRID}root.conv.weight", f"{ours}root.weight")
    yield from both(f"{_HYBRID}root.gn", f"{ours}root_norm")
    for stage, units in enumerate(stem.units):
        for unit in range(units):
            theirs = f"{_HYBRID}body.block{stage + 1}.unit{unit + 1}."
            inner = f"{ours}stages.{stage}.{unit}."
            for number in (1, 2, 3):
                yield rule(f"{theirs}conv{number}.weight", f"{inner}conv{number}.weight")
                yield from both(f"{theirs}gn{number}", f"{inner}norm{number}")
            if not unit:
                yield rule(f"{theirs}downsample.weight", f"{inner}proj.weight")
                yield from both(f"{theirs}gn_proj", f"{inner}proj_norm")


def _block(index: int) -> Iterable[Rule]:
    theirs, ours = f"{_LAYER}{index}.", f"blocks.{index}."
    yield from both(f"{theirs}attention_norm", f"{ours}norm1")
    for part in ("weight", "bias"):
        names = tuple(f"{theirs}attn.{name}.{part}" for name in ("query", "key", "value"))
        yield rule(names, f"{ours}attention.qkv.{part}", Joined(3))
    yield from both(f"{theirs}attn.out", f"{ours}attention.proj")
    yield from both(f"{theirs}ffn_norm", f"{ours}norm2")
    yield from both(f"{theirs}ffn.fc1", f"{ours}mlp.fc1")
    yield from both(f"{theirs}ffn.fc2", f"{ours}mlp.fc2")
