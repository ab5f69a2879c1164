"""NVIDIA's RADIO and C-RADIO: a `.pth.tar` or a folder of the hub. Source: NVlabs/RADIO `radio/vit_patch_generator.py`,
`radio/radio_model.py`, `hubconf.py`, `radio/common.py`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchword.containers.stored import tensor_of
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored
from patchword.formats.layouts.evaluation import CLIP
from patchword.formats.layouts.original import AuthorsFile, Constants, Original, block_rows
from patchword.formats.layouts.towers import below, blocks_below, inside
from patchword.formats.ops import Op, Reshaped, Shape
from patchword.formats.renamed import Renamed
from patchword.formats.rows import Rows, rows_alone, table
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Reading
from patchword.images.preprocess import Resample as PixelResample
from patchword.model.config import BlockConfig, HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, LayerNormConfig, Learned, Pool, PrefixPool, Resample, Size
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

_SIGN = "patch_generator."
# Of the hub's folders, and of training files; "inner." if the model is DINOv2's giant.
_TOWERS = (
    "radio_model.model.",
    "radio_model.model.inner.",
    "base_model.",
    "base_model.inner.",
    "model.",
    "",
)
_REST = (
    Ignored(r".*patch_generator\.video_embedder\..*", "the patches of videos"),
    Ignored(
        r"(radio_model\.adaptors|adaptors|_heads|_feature_projections)\..*", "heads that imitate its teachers"
    ),
    Ignored(
        r"(radio_model\.)?(inter_)?feature_normalizer\..*", "scales of the features for further training"
    ),
)
_WHO = "RADIO's code"
_PREFERRED = {16: (768, 768), 14: (896, 896)}


@dataclass(frozen=True)
class _Values:
    """Numbers of the file that are part of the preprocessing or of the pooling, not of the model's tensors."""

    values: tuple[float, ...]
    shape: Shape
    views: bool = field(default=True, init=False)

    def their_shapes(self, ours: Sequence[Shape]) -> list[Shape]:
        return [self.shape]

    def read(self, theirs: "Sequence[Tensor]", ours: Sequence[Shape]) -> "list[Tensor]":
        return []

    def write(self, ours: "Sequence[Tensor]") -> "list[Tensor]":
        import torch

        whole = all(isinstance(value, int) for value in self.values)
        return [torch.tensor(self.values, dtype=torch.int64 if whole else torch.float32).reshape(self.shape)]


def _flat(ours: Sequence[Shape]) -> Op:
    """A patch as one row of values (channel, row, column) in the file, a kernel in the model."""
    return Reshaped((ours[0][0], math.prod(ours[0][1:])))


class RADIO(Original):
    """Several class tokens, one for each teacher, registers, no last norm, and positions for the largest image."""

    name = "radio"
    title = "RADIO (its authors' file)"
    steps = ()
    constants = Constants(who=_WHO, heads={384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24})
    file_name = "radio.pth.tar"

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        tower, beside = spelling.get("tower", ""), spelling.get("beside", "")
        generator = "patch_generator."
        rows: Rows = (
            (f"{generator}embedder.weight", "patch_embed.proj.weight", _flat),
            (f"{generator}embedder.bias", "patch_embed.proj.bias"),
            (f"{generator}cls_token.token", ("prefix.class_token", "prefix.registers"), rows_alone),
            (f"{generator}pos_embed", "positions.grid", table),
            (f"{generator}patch_normalizer.{{wb}}", "entry_norm.{wb}"),
            block_rows(spelling),
            ("norm.{wb}", "norm.{wb}"),
        )
        yield from below(tower, rows)
        for name in ("norm_mean", "norm_std"):
            if values := spelling.get(name):
                stored = _Values(values, (len(values), 1, 1))
                yield (f"{beside}input_conditioner.{name}", (), lambda ours, op=stored: op)
        if places := spelling.get("summary_idxs"):
            summary = _Values(places, (len(places),))
            yield (f"{beside}summary_idxs", (), lambda ours: summary)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        tower = _tower(checkpoint)
        return None if tower is None else f"{tower}{_SIGN}"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = _tower(checkpoint) or ""
        file = AuthorsFile(inside(checkpoint, tower), facts, self)
        spelling = self._spelled(checkpoint, file, tower)
        config = self._config(checkpoint, file, spelling)
        usual = _preprocess(config, _preferred(checkpoint, config), spelling)
        source = f"{_WHO}: its preferred resolution; mean and std from the file"
        if "norm_mean" not in spelling:
            source = Inferred(f"{_WHO} (the file lacks input_conditioner)")
        preprocess = facts.preprocess((usual, source))
        pool = config.head.pool
        if isinstance(pool, PrefixPool):
            spelling["summary_idxs"] = pool.tokens
        return Description(config=config, preprocess=preprocess, spelling=spelling)

    def _spelled(self, checkpoint: Checkpoint, file: AuthorsFile, tower: str) -> dict[str, Any]:
        beside = "radio_model." if tower.startswith("radio_model.") else ""
        found = {
            **file.spelling,
            "tower": tower,
            "beside": beside,
            "blocks": blocks_below(tower, len(file.spelling["blocks"])),
        }
        if checkpoint.under(f"{beside}input_conditioner."):
            for name in ("norm_mean", "norm_std"):  # one without the other is an incomplete file
                checkpoint.shape(f"{beside}input_conditioner.{name}")
        for name in ("input_conditioner.norm_mean", "input_conditioner.norm_std", "summary_idxs"):
            if checkpoint.has(f"{beside}{name}"):
                values = tensor_of(checkpoint.tensors[f"{beside}{name}"]).flatten().tolist()
                found[name.removeprefix("input_conditioner.")] = tuple(values)
        return found

    def _config(self, checkpoint: Checkpoint, file: AuthorsFile, spelling: Mapping[str, Any]) -> ViTConfig:
        facts, constants = file.facts, self.constants
        seen = Renamed(checkpoint, list(self.rows(spelling, None)), spelling["blocks"][0])
        dim, values = seen.shape("patch_embed.proj.weight", 2)
        side = math.isqrt(values // 3)
        count = seen.shape("prefix.class_token", 2)[0]
        grid = facts.grid(seen.shape("positions.grid", 3)[1], (side, side))
        heads = facts.heads(dim, (constants.heads.get(dim), Inferred(f"the width {dim}, as in {_WHO}")))
        gated = bool(spelling["gate"])
        return ViTConfig(
            image=ImageConfig(size=(grid[0] * side, grid[1] * side)),
            patch=PatchConfig(size=(side, side), bias=seen.has("patch_embed.proj.bias"), edge="cut"),
            dim=dim,
            depth=len(spelling["blocks"]),
            tokens=TokensConfig(num_registers=count - 1),
            positions=Learned(
                covers="patches",
                resample=Resample(interpolation="bilinear", antialias=False, keep_aspect=True),
            ),
            attention=seen.attention(heads),
            mlp=seen.mlp(facts.require("act", ("silu" if gated else "gelu", _WHO)), gated=gated),
            block=BlockConfig(
                entry_norm=seen.has("entry_norm.weight"),
                layer_scale=constants.layer_scale if seen.in_block("scale1.weight") else None,
            ),
            norm=LayerNormConfig(eps=facts.require("eps", (constants.eps, _WHO))),
            head=HeadConfig(
                pool=_summary(checkpoint, facts, spelling, count),
                norm="tokens" if seen.has("norm.weight") and _is_normed(checkpoint) else "none",
                num_classes=0,
            ),
        )

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        pool, preprocess = card.config.head.pool, card.preprocess
        return {
            **super().spelling(card),
            "tower": "base_model.",
            "blocks": blocks_below("base_model.", card.config.depth),
            "norm_mean": preprocess.mean,
            "norm_std": preprocess.std,
            "summary_idxs": pool.tokens if isinstance(pool, PrefixPool) else (),
        }

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """A training file; names of the hub's folders stay a flat state dict (`pytorch_model.bin`)."""
        hub = any(name.startswith("radio_model.") for name in tensors)
        return tensors if hub else {"state_dict": tensors}

    def ignored(self, description: Description) -> Iterable[Ignored]:
        yield from _REST
        if description.config.head.norm == "none":
            tower = re.escape(description.spelling["tower"])
            yield Ignored(rf"{tower}norm\..*", f"the last norm, which {_WHO} leaves out")


def _tower(checkpoint: Checkpoint) -> str | None:
    return next(
        (
            t
            for t in _TOWERS
            if checkpoint.has(f"{t}blocks.0.norm1.weight") and checkpoint.under(f"{t}{_SIGN}")
        ),
        None,
    )


def _args(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Its training arguments: in the file, or in the hub's config.json."""
    declared = checkpoint.config_json.get("args")
    return checkpoint.args or (declared if isinstance(declared, Mapping) else {})


def _is_normed(checkpoint: Checkpoint) -> bool:
    """Its code removes the last norm, unless an argument says otherwise; without arguments, a norm counts."""
    args = _args(checkpoint)
    return bool(args.get("model_norm", False)) if args else True


def _summary(checkpoint: Checkpoint, facts: Facts, spelling: Mapping[str, Any], count: int) -> Pool:
    """The class tokens that its code returns, joined: those of the teachers whose summary it imitates."""
    asked = facts.get("pool")
    if asked == "class":
        return ClassPool()
    places, source = spelling.get("summary_idxs", ()), "summary_idxs"
    if not places:
        teachers = _args(checkpoint).get("teachers", [])
        used: dict[str, bool] = {}
        for teacher in teachers if isinstance(teachers, Sequence) else ():
            used.setdefault(str(teacher.get("name")), bool(teacher.get("use_summary", True)))
        places = tuple(place for place, use in enumerate(used.values()) if use and place < count)
        source = "its teachers"
    if not places:
        facts.record("pool", "class", Inferred("the first class token; its teachers are unknown"))
        return ClassPool()
    facts.record("pool", f"tokens {', '.join(map(str, places))}", source)
    return ClassPool() if places == (0,) else PrefixPool(tokens=places)


def _preferred(checkpoint: Checkpoint, config: ViTConfig) -> Size:
    declared = checkpoint.config_json.get("preferred_resolution")
    if isinstance(declared, Sequence) and len(declared) == 2 and all(isinstance(n, int) for n in declared):
        return declared[0], declared[1]
    usual = _PREFERRED.get(config.patch.size[0], config.image.size)
    return min(usual, config.image.size)


def _preprocess(config: ViTConfig, size: Size, spelling: Mapping[str, Any]) -> Preprocess:
    return Preprocess(
        image_size=size,
        resize=Squash(size=size),
        resample=PixelResample(interpolation="bilinear"),
        mean=spelling.get("norm_mean", CLIP[0]),
        std=spelling.get("norm_std", CLIP[1]),
        reading=Reading(apply_exif=False),
    )
