"""DeiT, MAE and DINO v1, which have the common block and little else, under the same names.

Sources: facebookresearch/deit `models.py`, mae `models_vit.py` and `models_mae.py`, dino `vision_transformer.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule
from patchword.checkpoints.layouts.blocks import both, token
from patchword.checkpoints.layouts.decoders import (
    MAE_ROWS,
    args_of_authors,
    decoder_rules,
    described,
    of_authors,
)
from patchword.checkpoints.layouts.heads import LINEAR_HEAD, head_apart, linear_head
from patchword.checkpoints.layouts.original import (
    Constants,
    Original,
    back,
    blocks,
    classifier,
    evaluated,
    first_block,
    front,
    has_flat_mask,
    is_common,
    patch_of,
    pool_of,
    positions,
    preprocess,
    trunk,
    with_margin,
)
from patchword.checkpoints.layouts.original_signs import sign_of
from patchword.checkpoints.layouts.transformers_restate import sines_as_table, zeros_for_positions
from patchword.errors import CheckpointError
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, JoinedPool, Learned, Resample

if TYPE_CHECKING:
    from torch import Tensor

# Inputs of the published heads: class tokens of four blocks (ViT-S); class token and mean interleaved (ViT-B).
_LINEAR = {4: (4, False, False), 2: (1, True, True)}
_MOCO = Constants(who="MoCo v3's code", heads={384: 12, 768: 12, 1024: 16, 1280: 16})
_OTHERS = (
    "attn.q_bias",
    "attn.relative_position_bias_table",
    "attn.qkv.bias_mask",
    "attn.rope.freqs_cos",
    "gamma_1",
    "ls1.gamma",
)


def is_plain(checkpoint: Checkpoint) -> bool:
    """Whether a file has the common block, learned positions and a class token, and no tensors of another family."""
    first = first_block(checkpoint)
    return (
        is_common(checkpoint)
        and checkpoint.has("cls_token", "pos_embed", f"{first}attn.qkv.weight", f"{first}mlp.fc1.weight")
        and not any(checkpoint.has(f"{first}{name}") for name in _OTHERS)
        and not checkpoint.has("register_tokens")
        and not has_flat_mask(checkpoint)
        and not checkpoint.has("storage_tokens")
        and not checkpoint.has("reg_token")
    )


class Plain(Original):
    """family: as returned by `sign_of`. resample: how its code resizes positions."""

    family: str
    constants: Constants
    resample: Resample

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_plain(checkpoint):
            return None
        sign = sign_of(checkpoint)
        return sign.why if sign.family == self.family else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        _, _, patch = patch_of(checkpoint)
        sign = sign_of(checkpoint)
        constants = _MOCO if sign.moco else self.constants
        tokens = TokensConfig(distillation_token=checkpoint.has("dist_token"))
        rows = checkpoint.shape_of("pos_embed", 3)[1] - tokens.num_prefix
        config = trunk(
            checkpoint,
            facts,
            constants,
            grid=facts.grid(rows, patch),
            tokens=tokens,
            positions=Learned(resample=self.resample),
            head=self.head(checkpoint, facts),
        )
        usual = self.preprocess(config)
        if sign.moco:
            usual = replace(usual, resample=replace(usual.resample, interpolation="bilinear"))
        guess = (
            f"assumed to be {self.title} because of {sign.why}; files of DeiT, MAE, DINO, MoCo v3 and timm's ViTs have the same tensors. "
            "They differ in preprocessing and in how positions are resized (Google's and timm's ViTs: --mean 0.5 --std 0.5)",
        )
        return Description(
            config=config,
            preprocess=facts.preprocess(evaluated(usual, f"the evaluation in {constants.who}")),
            spelling=self.spelled(checkpoint),
            notes=guess if sign.guess else (),
        )

    def head(self, checkpoint: Checkpoint, facts: Facts) -> HeadConfig:
        head = classifier(checkpoint, pool_of(facts, "class", self.constants.who))
        # Without a head, the authors' class and timm's return the mean of both tokens.
        by_class = isinstance(head.pool, ClassPool)
        return replace(
            head, distilled=checkpoint.has("head_dist.weight") or (by_class and checkpoint.has("dist_token"))
        )

    def spelled(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        return {}

    def preprocess(self, config: ViTConfig) -> Preprocess:
        return preprocess(config, with_margin(config.image.size))

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        yield from front(config)
        if config.tokens.distillation_token:
            yield token("dist_token", "prefix.distillation_token", config)
        yield positions(config)
        yield from blocks(config, description.spelling)
        yield from back(config)
        if config.head.distilled and config.head.num_classes:
            yield from both("head_dist", "head_distillation", config.head.bias)

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"model": tensors}


class DeiT(Plain):
    """DeiT, distilled or not: `{"model": …}`. A distilled model outputs the mean of both heads."""

    name = "deit"
    title = "DeiT (its authors' file)"
    family = "deit"
    twins = ("mae", "dino")
    constants = Constants(who="DeiT's code")
    resample = Resample(antialias=False)


class MAE(Plain):
    """MAE's encoder, alone or fine-tuned, or encoder and decoder."""

    name = "mae"
    title = "MAE (its authors' file)"
    family = "mae"
    twins = ("deit", "dino")
    constants = Constants(who="MAE's code")
    resample = Resample(antialias=False)
    decoder_pattern = "decoder_*"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        found = super().describe(checkpoint, facts)
        if not checkpoint.under("decoder_"):
            return found
        decoder, fault = described(
            checkpoint, facts, found.config, MAE_ROWS, of_authors(checkpoint), self.decoder_pattern
        )
        return replace(found, decoder=decoder, decoder_fault=fault)

    def head(self, checkpoint: Checkpoint, facts: Facts) -> HeadConfig:
        pooled = checkpoint.has("fc_norm.weight") and not checkpoint.has("norm.weight")
        pool = pool_of(facts, "mean" if pooled else "class", "fc_norm" if pooled else self.constants.who)
        return classifier(checkpoint, pool, "pooled" if pooled else "tokens")

    def preprocess(self, config: ViTConfig) -> Preprocess:
        size = config.image.size
        return preprocess(config, with_margin(size) if min(size) <= 224 else min(size))

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        yield from super().rules(description)
        whole = description.decoder_fault is not None
        yield from decoder_rules(MAE_ROWS, description, r"decoder_.*|mask_token" if whole else r"decoder_.*")
        if description.decoder is None:
            yield Ignored(r"mask_token", "the token for hidden patches")

    def rewritten_for(
        self, card: ModelCard, tensors: "Mapping[str, Tensor]"
    ) -> "tuple[ModelCard, Mapping[str, Tensor]]":
        """MAE's code computes positions once and stores them as a table, with a row for the class token."""
        card, tensors = super().rewritten_for(card, tensors)
        config, tensors = zeros_for_positions(*sines_as_table(card.config, tensors))
        return replace(card, config=config), tensors

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

    def head(self, checkpoint: Checkpoint, facts: Facts) -> HeadConfig:
        dim, _, _ = patch_of(checkpoint)
        return linear_head(checkpoint, facts, dim, _LINEAR) or super().head(checkpoint, facts)

    def preprocess(self, config: ViTConfig) -> Preprocess:
        return preprocess(config, min(config.image.size) * 256 // 224)

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config = description.config
        backbone = replace(config, head=replace(config.head, num_classes=0, distilled=False))
        joined = isinstance(config.head.pool, JoinedPool)
        yield from super().rules(replace(description, config=backbone) if joined else description)
        if joined:
            yield from both(LINEAR_HEAD, "head", config.head.bias)

    def nest(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        return tensors

    def head_apart(self, tensors: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        rest, head = head_apart(tensors)
        return rest, {"state_dict": {f"module.linear.{k}": t for k, t in head.items()}} if head else {}

    def sidecar_files(self, card: ModelCard) -> Mapping[str, bytes]:
        if card.config.head.num_classes and not isinstance(card.config.head.pool, JoinedPool):
            raise CheckpointError(
                f"DINO's linear heads read class tokens of several blocks, or one and the mean, not pooling {card.config.head.pool.kind!r}",
                "choose another format, or convert the backbone without its head",
            )
        return super().sidecar_files(card)
