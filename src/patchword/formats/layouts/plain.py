"""DeiT, DeiT-III, MAE, DINO v1 and I-JEPA, which have the common block and little else.

Sources: facebookresearch/deit `models.py` and `models_v2.py`, mae `models_vit.py` and `models_mae.py`, dino
`vision_transformer.py`, ijepa `models/vision_transformer.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint, square
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.decoders import (
    MAE_ROWS,
    args_of_authors,
    decoder_rules,
    described,
    of_authors,
)
from patchword.formats.layouts.heads import LINEAR_HEAD, head_apart, linear_head
from patchword.formats.layouts.original import (
    USUAL_HEADS,
    AuthorsFile,
    Constants,
    Original,
    has_flat_mask,
    is_common,
    with_margin,
)
from patchword.formats.layouts.original_signs import sign_of
from patchword.formats.restate import sines_as_table, zeros_for_positions
from patchword.formats.rows import Rows, token
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, Learned, Positions, Resample, Size
from patchword.weights.card import ModelCard

# Inputs of the published heads: class tokens of four blocks (ViT-S); class token and mean interleaved (ViT-B).
_LINEAR = {4: (4, False, False), 2: (1, True, True)}
_OTHERS = (
    "{b}attn.q_bias",
    "{b}attn.relative_position_bias_table",
    "{b}attn.qkv.bias_mask",
    "{b}attn.rope.freqs_cos",
    "{b}gamma_1",
    "{b}ls1.gamma",
    "register_tokens",
    "storage_tokens",
    "reg_token",
)


def is_plain(checkpoint: Checkpoint) -> bool:
    """Whether a file has the common block, learned positions and a class token, and no tensors of another family."""
    needed = ("cls_token", "pos_embed", "{b}attn.qkv.weight", "{b}mlp.fc1.weight")
    return is_common(checkpoint, *needed, lacking=_OTHERS) and not has_flat_mask(checkpoint)


class Plain(Original):
    """family: as returned by `sign_of`."""

    family: str
    more = (("dist_token", "prefix.distillation_token", token),)

    def rows(self, spelling: Mapping[str, Any], config: ViTConfig | None) -> Rows:
        return (*super().rows(spelling, config), ("head_dist.{wb}", "head_distillation.{wb}"))

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_plain(checkpoint):
            return None
        sign = sign_of(checkpoint)
        return sign.why if sign.family == self.family else None

    def tokens(self, file: AuthorsFile) -> TokensConfig:
        return TokensConfig(distillation_token=file.checkpoint.has("dist_token"))

    def head(self, file: AuthorsFile) -> HeadConfig:
        head = file.classifier(file.pool("class"))
        # Without a head, the authors' class and timm's return the mean of both tokens.
        by_class = isinstance(head.pool, ClassPool)
        both = file.checkpoint.has("head_dist.weight") or (by_class and file.checkpoint.has("dist_token"))
        return replace(head, distilled=both)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        sign, usual = sign_of(file.checkpoint), self.preprocess(config, self.shorter(config.image.size))
        guess = (
            f"assumed to be {self.title} because of {sign.why}; files of DeiT, MAE, DINO, MoCo v3 and timm's ViTs have the same tensors. "
            "They differ in preprocessing and in how positions are resized (Google's and timm's ViTs: --mean 0.5 --std 0.5)",
        )
        return usual, f"the evaluation in {self.constants.who}", guess if sign.guess else ()

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        return {}

    def shorter(self, size: Size) -> int:
        return with_margin(size)


class DeiT(Plain):
    """DeiT, distilled or not: `{"model": …}`. A distilled model outputs the mean of both heads."""

    name = "deit"
    title = "DeiT (its authors' file)"
    family = "deit"
    twins = ("mae", "dino")
    constants = Constants(who="DeiT's code")


class MAE(Plain):
    """MAE's encoder, alone or fine-tuned, or encoder and decoder."""

    name = "mae"
    title = "MAE (its authors' file)"
    family = "mae"
    twins = ("deit", "dino")
    constants = Constants(who="MAE's code")
    decoder_pattern = "decoder_*"
    # Its code computes positions once and stores them as a table, with a row for the class token.
    steps = (*Plain.steps, sines_as_table, zeros_for_positions)

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        found = super().describe(checkpoint, facts)
        if not checkpoint.under("decoder_"):
            return found
        decoder, fault = described(
            checkpoint, facts, found.config, MAE_ROWS, of_authors(checkpoint), self.decoder_pattern
        )
        return replace(found, decoder=decoder, decoder_fault=fault)

    def head(self, file: AuthorsFile) -> HeadConfig:
        return file.classifier_after_norm()

    def shorter(self, size: Size) -> int:
        return with_margin(size) if min(size) <= 224 else min(size)

    def ignored(self, description: Description) -> Iterable[Rule | Ignored]:
        whole = description.decoder_fault is not None
        yield from decoder_rules(MAE_ROWS, description, r"decoder_.*|mask_token" if whole else r"decoder_.*")
        if description.decoder is None:
            yield Ignored(r"mask_token", "the token for hidden patches")

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        """The arguments of the training script that describe the decoder."""
        return {} if card.decoder is None else {"args": args_of_authors(card.decoder)}


class DINO(Plain):
    """DINO v1: a flat backbone, or the teacher in a training file; its linear head is a separate file."""

    name = "dino"
    title = "DINO (its authors' file)"
    family = "dino"
    twins = ("deit", "mae")
    constants = Constants(who="DINO's code")
    resample = Resample(antialias=False, offset=0.1)
    wrapper = ""
    head_name = LINEAR_HEAD

    def head(self, file: AuthorsFile) -> HeadConfig:
        return linear_head(file.checkpoint, file.facts, file.dim, _LINEAR) or super().head(file)

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        return {} if file.checkpoint.has(f"{LINEAR_HEAD}.weight") else {"head": "head"}

    def shorter(self, size: Size) -> int:
        return min(size) * 256 // 224

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        rest, head = head_apart(tensors)
        return rest, {"state_dict": {f"module.linear.{k}": t for k, t in head.items()}} if head else {}


class DeiT3(Original):
    """DeiT-III, `{"model": …}`: LayerScale (`gamma_1`, `gamma_2`), and `pos_embed` [1, N, D] for the patches only."""

    name = "deit3"
    title = "DeiT-III (its authors' file)"
    doubt = (
        "assumed to be DeiT-III; timm's ViTs with LayerScale and both rotary and learned positions (rope_ape) have the same tensors "
        "but other outputs. If this is one of them, put timm's config.json next to it"
    )
    published_names = ("deit_3",)
    constants = Constants(who="DeiT-III's code", layer_scale=1e-4)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        needed = ("cls_token", "pos_embed", "{b}gamma_1", "{b}attn.qkv.weight")
        table = "relative_position_bias_table"
        lacking = ("{b}attn.q_bias", f"{{b}}attn.{table}", f"rel_pos_bias.{table}")
        return "gamma_1 and pos_embed" if is_common(checkpoint, *needed, lacking=lacking) else None

    def _with_class(self, file: AuthorsFile) -> bool:
        """Whether the class token has a row, which DeiT-III's has not; such files are read too."""
        rows, asked = file.rows, file.facts.options.image_size
        return square(rows) is None and square(rows - 1) is not None and asked is None

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, None]:
        return file.facts.grid(file.rows - self._with_class(file), file.patch), None

    def positions(self, file: AuthorsFile) -> Positions:
        with_class = self._with_class(file)
        return Learned(covers="all_but_registers" if with_class else "patches", resample=self.resample)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        usual = self.preprocess(config, min(config.image.size))
        return usual, "DeiT-III's evaluation code, without a crop margin", ()

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {**super().spelling(card), "scale": ("gamma_1", "gamma_2")}


class IJEPA(Original):
    """`target_encoder` of a training file: no class token, no head, stored sine-cosine positions."""

    name = "ijepa"
    title = "I-JEPA (its authors' file)"
    doubt = (
        "assumed to be I-JEPA; timm's ViTs without class token and head (SigLIP, gap) have the same tensors, but differ in "
        "activation (--act) and preprocessing (--mean, --std)"
    )
    published_names = ("in1k-vit", "in22k-vit", "ijepa")
    own_wrappers = ("target_encoder", "encoder")
    constants = Constants(who="I-JEPA's code", heads=USUAL_HEADS | {1408: 16})

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        needed = ("pos_embed", "norm.weight", "{b}attn.qkv.weight", "{b}mlp.fc1.weight")
        lacking = ("cls_token", "head.weight", "{b}ls1.gamma", "reg_token")
        if not is_common(checkpoint, *needed, lacking=lacking) or checkpoint.under("attn_pool."):
            return None
        taken = checkpoint.wrapper.split(":")[0]
        return f"{taken}: no class token" if taken else "no class token and no head"

    def tokens(self, file: AuthorsFile) -> TokensConfig:
        return TokensConfig(class_token=False)

    def head(self, file: AuthorsFile) -> HeadConfig:
        return HeadConfig(pool=file.pool("mean", "the linear probe of I-JEPA's paper"), num_classes=0)

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        # The repository has no evaluation code; the paper follows MAE's linear probe.
        return (
            self.preprocess(config, MAE().shorter(config.image.size)),
            "the standard ImageNet evaluation",
            (),
        )

    def spelled(self, file: AuthorsFile) -> Mapping[str, Any]:
        return {}

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"target_encoder": {f"module.{name}": tensor for name, tensor in tensors.items()}}
