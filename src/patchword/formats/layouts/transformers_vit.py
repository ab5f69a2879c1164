"""Plain ViTs of transformers: ViT, DeiT, MSN, I-JEPA and MAE's encoder. Source: transformers 5.23, `models/*`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.facts import Facts
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.decoders import (
    LAYERS,
    config_words,
    decoder_rules,
    described,
    of_config,
    transformers_rows,
)
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import config_of
from patchword.formats.layouts.transformers_layout import TransformersLayout
from patchword.formats.layouts.transformers_preprocess import IMAGENET_MEAN, IMAGENET_STD
from patchword.formats.layouts.transformers_tower import Family, Tower
from patchword.formats.rows import Row, token
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import MeanPool
from patchword.weights.card import ModelCard

PUBLISHED = Names(
    layer="encoder.layer.{}.",
    q="attention.attention.query",
    k="attention.attention.key",
    v="attention.attention.value",
    out="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    first=("intermediate.dense",),
    second="output.dense",
    scales=("lambda_1", "lambda_2"),
)
FIVE = replace(
    PUBLISHED,
    layer="layers.{}.",
    q="attention.q_proj",
    k="attention.k_proj",
    v="attention.v_proj",
    out="attention.o_proj",
    first=("mlp.fc1",),
    second="mlp.fc2",
)
# ViTMAE's settings for pre-training.
_MAE_WORDS = ("mask_ratio", "norm_pix_loss")


class _Plain(TransformersLayout):
    """Common part of the five layouts."""

    spellings: tuple[Names, ...] = (PUBLISHED, FIVE)
    has_pooler = False
    always_biased = False

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        """Recognise by tensors that only one class of the family has."""
        if not checkpoint.has(f"{prefix}{self.positions_name}"):
            return None
        token = f"{prefix}{self.class_token}"
        if checkpoint.has(token) and (checkpoint.shape(token)[1:2] or (1,)) > (1,):
            return None  # Pixio has several
        if "lambda_1" in str(checkpoint.under(f"{prefix}encoder.layer.0.")) or any(
            "relative_position_bias" in name for name in checkpoint.tensors
        ):
            return None
        name, why = _name_by_tensors(checkpoint, prefix)
        return why if name == self.name else None

    def head(self, tower: Tower) -> HeadConfig:
        """The classifier on the class token, or the pooler if nothing else reads the class token."""
        classes, pooler = tower.classifier(), "pooler.dense.weight"
        width = 0
        if self.has_pooler and not classes and tower.has(pooler):
            act = tower.declared.text("pooler_act")
            if act not in (None, "tanh"):
                raise tower.declared.wrong("pooler_act", "tanh, the only one that the backbone supports")
            width = tower.shape(pooler, 2)[0]
        return HeadConfig(pool=tower.pool(self.pools), pre_logits=width, num_classes=classes)

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        if self.has_pooler:
            yield f"{spelling['prefix']}pooler.dense.{{wb}}", "pre_logits.{wb}"
        yield from super().head_rows(spelling)

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        head = description.config.head
        if not head.pre_logits and (head.num_classes or not self.has_pooler):
            pattern = re.escape(prefix) + r"pooler[.]dense[.](weight|bias)"
            yield Ignored(pattern, "its class does not use the pooler")
        yield from super().ignored(description, prefix)
        yield Ignored(r"decoder[.]0[.](weight|bias)", "the masked-image pre-training head")

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        values: dict[str, Any] = {"qkv_bias": config.attention.bias == "qkv"}
        if config.head.pre_logits:
            values |= {"pooler_output_size": config.head.pre_logits, "pooler_act": "tanh"}
        if self._lacks_pooler(config):
            values |= {"id2label": {}, "label2id": {}}
        return values

    def architecture(self, card: ModelCard) -> str:
        headed = card.config.head.num_classes or self._lacks_pooler(card.config)
        return self.head_class if headed and self.head_class else self.bare

    def second_choice(self, card: ModelCard) -> bool:
        """The class to write. AutoModel chooses the bare class by model type; MSN, the same ViT, has no pooler."""
        return self._lacks_pooler(card.config)

    def _lacks_pooler(self, config: ViTConfig) -> bool:
        """Whether the pooler is missing. The bare class would initialise one randomly; the class with a head has none."""
        return self.has_pooler and not config.head.pre_logits and not config.head.num_classes

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield config.block.layer_scale is not None, "LayerScale"


def _name_by_tensors(checkpoint: Checkpoint, prefix: str) -> tuple[str, str]:
    if checkpoint.has(f"{prefix}embeddings.distillation_token"):
        return TransformersDeiT.name, "the distillation token"
    if not checkpoint.has(f"{prefix}embeddings.cls_token"):
        return TransformersIJepa.name, "no class token"
    if checkpoint.under("decoder.decoder_"):
        return TransformersMAE.name, "the decoder"
    return TransformersViT.name, "the class token"


class TransformersViT(_Plain):
    """`ViTModel` (with pooler: tanh of a linear layer) and `ViTForImageClassification`.

    MSN has the same names; only config.json distinguishes it.
    """

    name = "transformers-vit"
    title = "transformers ViT"
    types = ("vit",)
    family = Family(eps=1e-12, processor="ViT")
    bare, head_class, head_prefix = "ViTModel", "ViTForImageClassification", "vit."
    has_pooler = True

    def doubts(self, checkpoint: Checkpoint, facts: Facts, config: ViTConfig) -> tuple[str, ...]:
        if checkpoint.config_json or config.head.pre_logits or config.head.num_classes:
            return ()
        return ("there is no config.json; if the model is MSN, pass --eps 1e-6",)


class TransformersDeiT(_Plain):
    """`DeiTModel`, `DeiTForImageClassification` (class token only) and `…WithTeacher` (mean of two heads)."""

    name = "transformers-deit"
    title = "transformers DeiT"
    types = ("deit",)
    family = Family(eps=1e-12, processor="DeiT")
    bare, head_class, head_prefix = "DeiTModel", "DeiTForImageClassification", "deit."
    mean_std = (IMAGENET_MEAN, IMAGENET_STD)
    has_pooler = True

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig(distillation_token=True)

    def more_rows(self, prefix: str) -> Iterable[Row]:
        return ((f"{prefix}embeddings.distillation_token", "prefix.distillation_token", token),)

    def head(self, tower: Tower) -> HeadConfig:
        classes = tower.classifier("cls_classifier")
        if classes:
            return HeadConfig(pool=tower.pool(self.pools), num_classes=classes, distilled=True)
        return super().head(tower)

    def head_rows(self, spelling: Mapping[str, Any]) -> Iterable[Row]:
        if not spelling.get("distilled"):
            return super().head_rows(spelling)
        pooler, _ = super().head_rows(spelling)
        second = ("distillation_classifier.{wb}", "head_distillation.{wb}")
        return pooler, ("cls_classifier.{wb}", "head.{wb}"), second

    def spelled(self, tower: Tower) -> Mapping[str, Any]:
        return {"distilled": bool(tower.classifier("cls_classifier"))}

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {**super().spelling(card), "distilled": card.config.head.distilled}

    def lacks(self, config: ViTConfig) -> Iterable[tuple[bool, str]]:
        yield not config.tokens.distillation_token, "models without a distillation token: write it as ViT"
        yield from super().lacks(config)

    def architecture(self, card: ModelCard) -> str:
        head = card.config.head
        return f"{super().architecture(card)}{'WithTeacher' if head.distilled and head.num_classes else ''}"


class TransformersMSN(_Plain):
    """`ViTMSNModel` and `ViTMSNForImageClassification`: ViT with eps 1e-6 and no pooler."""

    name = "transformers-msn"
    title = "transformers ViTMSN"
    types = ("vit_msn",)
    family = Family(eps=1e-6, processor="ViT")
    # 5.23 saves its classifier's blocks without the prefix that the embeddings have.
    spellings = (PUBLISHED, FIVE, replace(PUBLISHED, apart=True))
    bare, head_class, head_prefix = "ViTMSNModel", "ViTMSNForImageClassification", "vit."
    mean_std = (IMAGENET_MEAN, IMAGENET_STD)

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        names = self.names(checkpoint, prefix)
        apart = names is not None and names.apart and prefix
        return "blocks without the prefix" if apart else None


class TransformersIJepa(_Plain):
    """`IJepaModel` and `IJepaForImageClassification`: no class token, the mean of all patches."""

    name = "transformers-ijepa"
    title = "transformers IJepa"
    types = ("ijepa",)
    family = Family(eps=1e-12, published_eps=1e-6, processor="ViT")
    bare, head_class, head_prefix = "IJepaModel", "IJepaForImageClassification", "ijepa."
    mean_std = (IMAGENET_MEAN, IMAGENET_STD)
    pools = MeanPool()

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig(class_token=False)


class TransformersMAE(_Plain):
    """`ViTMAEForPreTraining`, and `ViTMAEModel`, its encoder. Both mask random patches at run time."""

    name = "transformers-mae"
    title = "transformers ViTMAE"
    types = ("vit_mae",)
    family = Family(eps=1e-12, processor="ViT")
    bare, head_prefix = "ViTMAEModel", "vit."
    mean_std = (IMAGENET_MEAN, IMAGENET_STD)
    decoder_pattern = "decoder.*"

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        found = super().describe(checkpoint, facts)
        declared = config_of(checkpoint)
        stated = {key: checkpoint.config_json[key] for key in _MAE_WORDS if key in checkpoint.config_json}
        spelling = {**found.spelling, "stated": stated}
        if not checkpoint.under("decoder.decoder_"):
            return replace(found, spelling=spelling)
        layer, names = _decoder_spelling(checkpoint)
        rows = transformers_rows(layer, names)
        decoder, fault = described(
            checkpoint, facts, found.config, rows, of_config(declared), self.decoder_pattern
        )
        if decoder is not None:
            first = f"{layer.format(i=0)}{names.first[0]}.weight"
            declared.agrees("decoder_hidden_size", decoder.dim, "decoder.decoder_embed.weight")
            declared.agrees("decoder_num_hidden_layers", decoder.depth, "the number of blocks")
            declared.agrees("decoder_intermediate_size", decoder.hidden or 0, first)
        spelling |= {"decoder_layer": layer, "decoder_names": names}
        return replace(found, spelling=spelling, decoder=decoder, decoder_fault=fault)

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": self.head_prefix if card.decoder else "", "names": PUBLISHED}

    def ignored(self, description: Description, prefix: str) -> Iterable[Rule | Ignored]:
        yield from super().ignored(description, prefix)
        spelling = description.spelling
        rows = transformers_rows(
            spelling.get("decoder_layer", LAYERS[0]), spelling.get("decoder_names", PUBLISHED)
        )
        yield from decoder_rules(rows, description, r"decoder[.](mask_token|decoder_.*)")

    def architecture(self, card: ModelCard) -> str:
        return self.bare if card.decoder is None else "ViTMAEForPreTraining"

    def words(self, card: ModelCard) -> Mapping[str, Any]:
        return {**super().words(card), **({} if card.decoder is None else config_words(card.decoder))}

    def spelled_words(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, Any]:
        """For an encoder, the source's mask ratio; if it has none, 0, so that the class gives the same outputs as ours."""
        return {} if card.decoder else {"mask_ratio": 0.0, **spelling.get("stated", {})}


def _decoder_spelling(checkpoint: Checkpoint) -> tuple[str, Names]:
    """The prefix of the decoder's blocks and the names of their parts, in one of the three spellings."""
    layer = LAYERS[1] if checkpoint.under(LAYERS[1].partition("{")[0]) else LAYERS[0]
    five = checkpoint.has(f"{layer.format(i=0)}{FIVE.q}.weight")
    return layer, FIVE if five else PUBLISHED
