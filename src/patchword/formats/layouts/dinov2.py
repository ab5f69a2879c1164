"""DINOv2, with and without registers. Source: facebookresearch/dinov2 `models/vision_transformer.py`, `hub/`."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layout import Description, Ignored, Rule, rule
from patchword.formats.layouts.heads import LINEAR_HEAD, head_apart, linear_head
from patchword.formats.layouts.original import (
    USUAL_HEADS,
    AuthorsFile,
    Constants,
    Original,
    first_block,
    has_flat_mask,
    is_common,
)
from patchword.formats.layouts.transformers_config import model_type
from patchword.formats.ops import Constant
from patchword.formats.rows import token
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned, Positions, Resample, Size

_MASK_REASON = "stands in for hidden patches, in pre-training only"


class WithRegisters(Original):
    """What DINOv2 and DINOv3 share: registers, a token for hidden patches, and a linear head in a separate file.

    registers: their name. published: a release's name, and the number of registers in it, so that lost ones are reported
    as missing. linear: inputs of its linear heads / width → class tokens, mean, interleaved.
    """

    registers: str
    published: str
    linear: ClassVar[Mapping[int, tuple[int, bool, bool]]]
    head_name = LINEAR_HEAD
    wrapper = ""

    def tokens(self, file: AuthorsFile) -> TokensConfig:
        if file.checkpoint.has(self.registers):
            return TokensConfig(num_registers=file.checkpoint.shape_of(self.registers, 3)[1])
        named = re.match(self.published, file.checkpoint.path.name)
        return TokensConfig(num_registers=int(named[1] or 4) if named else 0)

    def head(self, file: AuthorsFile) -> HeadConfig:
        linear = linear_head(file.checkpoint, file.facts, file.dim, self.linear)
        return linear or HeadConfig(pool=file.pool("class"), num_classes=0)

    def ignored(self, description: Description) -> Iterable[Rule | Ignored]:
        # The class expects one, although only pre-training uses it.
        yield rule("mask_token", (), Constant(((1, description.config.dim),)))
        yield Ignored("mask_token", _MASK_REASON)

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return head_apart(tensors)


class DINOv2(WithRegisters):
    """A flat state dict with `ls1.gamma`, `ls2.gamma` and `mask_token` [1, D]; the gate of giant is `mlp.w12`."""

    name = "dinov2"
    title = "DINOv2 (its authors' file)"
    constants = Constants(who="DINOv2's code", heads=USUAL_HEADS | {1536: 24})
    registers, published = "register_tokens", r"dinov2_\w*_reg(\d)_"
    # Inputs of the published heads: class tokens of one or four blocks, and the mean of the patches.
    linear: ClassVar = {2: (1, True, False), 5: (4, True, False)}
    more = (("register_tokens", "prefix.registers", token),)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        # TIPS has the same tensors in .npz; on the hub but for its MLP's names, and in its giant those too.
        tips = (model_type(checkpoint) or "").startswith("tipsv2") or checkpoint.stored.container == "npz"
        named = checkpoint.has(f"{first_block(checkpoint)}mlp.c_fc.weight")
        return None if tips or named else self.signs(checkpoint)

    def signs(self, checkpoint: Checkpoint) -> str | None:
        """The tensors that only this code has."""
        needed = ("cls_token", "pos_embed", "{b}attn.qkv.weight")
        if not is_common(checkpoint, *needed, lacking=("rope_embed.periods", "reg_token")):
            return None
        first = first_block(checkpoint)
        signs = [name for name in ("register_tokens", f"{first}ls1.gamma") if checkpoint.has(name)]
        if has_flat_mask(checkpoint):
            signs.insert(0, "mask_token")
        return " and ".join(sign.removeprefix(first) for sign in signs) or None

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, None]:
        return file.facts.grid(file.rows - 1, file.patch), None

    def positions(self, file: AuthorsFile) -> Positions:
        # Values of the published hub configurations for both kinds.
        registers = self.tokens(file).num_registers
        return Learned(resample=Resample() if registers else Resample(antialias=False, offset=0.1))

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        # 224 is the authors' evaluation size, although the published positions are for 518.
        size = (224, 224) if config.image.size == (518, 518) else config.image.size
        usual = self.preprocess(config, min(size) * 256 // 224, size=size)
        return usual, "the evaluation in DINOv2's code", ()
