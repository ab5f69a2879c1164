"""DINOv3's ViTs. Source: facebookresearch/dinov3 `models/vision_transformer.py`, `layers/attention.py`, `hub/`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule, rule
from patchword.checkpoints.layouts.blocks import both, token
from patchword.checkpoints.layouts.dinov2 import MASK_REASON
from patchword.checkpoints.layouts.heads import LINEAR_HEAD, head_apart, linear_head
from patchword.checkpoints.layouts.original import (
    IMAGENET,
    USUAL_HEADS,
    Constants,
    Original,
    back,
    block_spelling,
    blocks,
    evaluated,
    first_block,
    front,
    is_common,
    patch_of,
    pool_of,
    trunk,
)
from patchword.checkpoints.layouts.periods import PERIODS, with_periods
from patchword.checkpoints.layouts.transformers_blocks import Zeros
from patchword.checkpoints.ops import Shape
from patchword.errors import CheckpointError
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Reading, Resample
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Rope2d

if TYPE_CHECKING:
    from torch import Tensor

SATELLITE = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
_HEADS = USUAL_HEADS | {1280: 20, 4096: 32}
_LINEAR = {2: (1, True, False)}
KEY_REASON = "the key third only: bias_mask disables it, and zeros are written back"


@dataclass(frozen=True)
class MaskedBias:
    """`qkv.bias` and `qkv.bias_mask` (ones, zeros, ones by thirds) ↔ the query and value biases."""

    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        whole = (3 * ours[0][0],)
        return [whole, whole]

    def read(self, theirs: Sequence["Tensor"], ours: Sequence[Shape]) -> list["Tensor"]:
        bias, mask = theirs
        queries, keys, values = mask.chunk(3)
        if not mask.is_meta and not (bool((queries == 1).all() & (values == 1).all() & (keys == 0).all())):
            raise CheckpointError(
                "this bias_mask is not ones, zeros and ones by thirds, the only published mask",
                "download the file again; if the change is intended, open an issue",
            )
        parts = bias.chunk(3)
        return [parts[0], parts[2]]

    def write(self, ours: Sequence["Tensor"]) -> list["Tensor"]:
        import torch

        queries, values = ours
        on, off = torch.ones_like(queries), torch.zeros_like(queries)
        return [torch.cat((queries, off, values)), torch.cat((on, off, on))]


class DINOv3(Original):
    """A flat state dict: `storage_tokens`, `rope_embed.periods`, no learned positions, eps 1e-5."""

    name = "dinov3"
    title = "DINOv3 (its authors' file)"
    rotary = True
    constants = Constants(who="DINOv3's code", heads=_HEADS, eps=1e-5)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        first = first_block(checkpoint)
        if is_common(checkpoint) and checkpoint.has("rope_embed.periods", f"{first}attn.qkv.weight"):
            return "rope_embed.periods"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, _, patch = patch_of(checkpoint)
        registers = _registers(checkpoint)
        # Positions are computed from the grid, so any size works; this is the training size.
        size = facts.require("image_size", ((14 * patch[0], 14 * patch[1]), self.constants.who))
        config = trunk(
            checkpoint,
            facts,
            self.constants,
            grid=(-(-size[0] // patch[0]), -(-size[1] // patch[1])),
            tokens=TokensConfig(num_registers=registers),
            positions=Rope2d(stored_periods=True),
            head=linear_head(checkpoint, facts, dim, _LINEAR)
            or HeadConfig(pool=pool_of(facts, "class", self.constants.who), num_classes=0),
        )
        numbers, why, note = _numbers(checkpoint)
        usual = evaluated(_preprocess(config, numbers), f"DINOv3's README: {why}")
        return Description(
            config=config,
            preprocess=facts.preprocess(usual),
            spelling=block_spelling(checkpoint),
            notes=(note,) if note else (),
        )

    def spelling(self, card: Any) -> Mapping[str, Any]:
        return {"gate": "w1"}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        yield from front(config)
        if config.tokens.num_registers:
            yield token("storage_tokens", "prefix.registers", config, config.tokens.num_registers)
        yield rule("rope_embed.periods", PERIODS)
        for part in blocks(config, description.spelling):
            if part.ours[0].endswith("q_bias"):
                yield _masked(part)
            elif not part.ours[0].endswith("v_bias"):
                yield part
        yield from back(replace(config, head=replace(config.head, num_classes=0, distilled=False)))
        if config.head.num_classes:
            yield from both(LINEAR_HEAD, "head", config.head.bias)
        # The class expects one, although only pre-training uses it.
        yield rule("mask_token", (), Zeros(((1, config.dim),)))
        yield Ignored("mask_token", MASK_REASON)
        yield Ignored(r"local_cls_norm\..*", "the norm for local crops, used only in training")
        if config.attention.bias == "qv":
            yield Ignored(r"blocks\..*\.attn\.qkv\.bias", KEY_REASON)

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        card, tensors = super().rewritten_for(card, tensors)
        config, tensors = with_periods(card.config, tensors)
        return replace(card, config=config), tensors

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return head_apart(tensors)


def _registers(checkpoint: Checkpoint) -> int:
    """Number of registers. Every release has four, so a file with a release's name and none is incomplete."""
    if checkpoint.has("storage_tokens"):
        return checkpoint.shape_of("storage_tokens", 3)[1]
    return 4 if re.match(r"dinov3_vit\w+_pretrain", checkpoint.path.name) else 0


def _masked(queries: Rule) -> Rule:
    """Turn the rule for `q_bias` into one for `qkv.bias` and its mask."""
    theirs = queries.theirs[0].removesuffix("q_bias") + "qkv."
    ours = queries.ours[0].removesuffix("q_bias")
    return rule((f"{theirs}bias", f"{theirs}bias_mask"), (f"{ours}q_bias", f"{ours}v_bias"), MaskedBias())


def _numbers(checkpoint: Checkpoint) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str, str]:
    """Mean and std, the reason, and a note if they are a guess: the two data sets leave no other trace."""
    name = checkpoint.path.name.lower()
    if "sat493m" in name:
        return SATELLITE, "satellite images, by the file name", ""
    if "lvd1689m" in name:
        return IMAGENET, "web images, by the file name", ""
    dim = patch_of(checkpoint)[0]
    if checkpoint.has("local_cls_norm.weight") and dim == 1024:
        return SATELLITE, "satellite images: only their ViT-L has local_cls_norm", ""
    note = "assumed to be trained on web images; models trained on satellite images (SAT-493M) need another --mean and --std"
    return IMAGENET, "web images", note if dim in (1024, 4096) else ""


def _preprocess(config: ViTConfig, numbers: tuple[tuple[float, ...], tuple[float, ...]]) -> Preprocess:
    """Resize to a 256 square regardless of aspect ratio, bilinear with antialias on bytes."""
    size = (256, 256)
    mean, std = numbers if config.image.channels == 3 else ((0.5,), (0.5,))
    return Preprocess(
        image_size=size,
        resize=Squash(size=size),
        in_channels=config.image.channels,
        resample=Resample(interpolation="bilinear", rounding="torch-uint8"),
        mean=mean,
        std=std,
        reading=Reading(apply_exif=False),
    )
