"""DINOv3's ViTs. Source: facebookresearch/dinov3 `models/vision_transformer.py`, `layers/attention.py`, `hub/`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from patchword.errors import CheckpointError
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.dinov2 import WithRegisters
from patchword.formats.layouts.evaluation import IMAGENET, Numbers, evaluation
from patchword.formats.layouts.original import (
    NORMS,
    PATCHES_AND_TOKEN,
    USUAL_HEADS,
    AuthorsFile,
    Constants,
    block_rows,
    is_common,
)
from patchword.formats.ops import Op, Shape
from patchword.formats.restate import PERIODS, with_periods
from patchword.formats.rows import Rows, token
from patchword.images.geometry import Squash
from patchword.images.preprocess import Preprocess, Resample
from patchword.model.config import TokensConfig, ViTConfig
from patchword.model.kinds import Positions, Rope2d, Size
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

SATELLITE = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
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


def _masked(ours: Sequence[Shape]) -> Op:
    return MaskedBias()


class DINOv3(WithRegisters):
    """A flat state dict: `storage_tokens`, `rope_embed.periods`, no learned positions, eps 1e-5."""

    name = "dinov3"
    title = "DINOv3 (its authors' file)"
    rotary = True
    steps = (*WithRegisters.steps, with_periods)
    constants = Constants(who="DINOv3's code", heads=USUAL_HEADS | {1280: 20, 4096: 32}, eps=1e-5)
    # Every release has four registers.
    registers, published = "storage_tokens", r"dinov3_vit\w+_pretrain()"
    linear: ClassVar = {2: (1, True, False)}

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        ours = tuple(f"blocks.{{i}}.attention.{part}_bias" for part in "qv")
        masked = (("{b}attn.qkv.bias", "{b}attn.qkv.bias_mask"), ours, _masked)
        return (
            *PATCHES_AND_TOKEN,
            ("storage_tokens", "prefix.registers", token),
            ("rope_embed.periods", PERIODS),
            block_rows(spelling, (masked,)),
            *NORMS,
            (f"{self.head_name}.{{wb}}", "head.{wb}"),
        )

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        fits = is_common(checkpoint, "rope_embed.periods", "{b}attn.qkv.weight")
        return "rope_embed.periods" if fits else None

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, None]:
        """Positions are computed from the grid, so any size works; 14 x 14 patches are the training size."""
        patch = file.patch
        size = file.facts.require("image_size", ((14 * patch[0], 14 * patch[1]), self.constants.who))
        return (-(-size[0] // patch[0]), -(-size[1] // patch[1])), None

    def positions(self, file: AuthorsFile) -> Positions:
        return Rope2d(stored_periods=True)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        numbers, why, note = _numbers(file)
        return _preprocess(config, numbers), f"DINOv3's README: {why}", (note,) if note else ()

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"gate": "w1" if card.config.mlp.gated else ""}

    def ignored(self, description: Description) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description)
        yield Ignored(r"local_cls_norm\..*", "the norm for local crops, used only in training")
        if description.config.attention.bias == "qv":
            yield Ignored(r"blocks\..*\.attn\.qkv\.bias", KEY_REASON)


def _numbers(file: AuthorsFile) -> tuple[Numbers, str, str]:
    """Mean and std, the reason, and a note if they are a guess: the two data sets leave no other trace."""
    name = file.checkpoint.path.name.lower()
    if "sat493m" in name:
        return SATELLITE, "satellite images, by the file name", ""
    if "lvd1689m" in name:
        return IMAGENET, "web images, by the file name", ""
    if file.checkpoint.has("local_cls_norm.weight") and file.dim == 1024:
        return SATELLITE, "satellite images: only their ViT-L has local_cls_norm", ""
    note = "assumed to be trained on web images; models trained on satellite images (SAT-493M) need another --mean and --std"
    return IMAGENET, "web images", note if file.dim in (1024, 4096) else ""


def _preprocess(config: ViTConfig, numbers: Numbers) -> Preprocess:
    """Resize to a 256 square regardless of aspect ratio, bilinear with antialias on bytes."""
    size, how = (256, 256), Resample(interpolation="bilinear", rounding="torch-uint8")
    return evaluation(config, Squash(size=size), numbers, size=size, resample=how)
