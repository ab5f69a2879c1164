"""Plain ViTs of transformers: ViT, DeiT, MSN, I-JEPA and MAE's encoder. Source: transformers 5.23, `models/*`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Ignored, Rule
from patchword.checkpoints.layouts.blocks import both, patches, token
from patchword.checkpoints.layouts.decoders import (
    LAYERS,
    config_words,
    decoder_rules,
    described,
    of_config,
    transformers_rows,
)
from patchword.checkpoints.layouts.transformers_blocks import Names, block_rules, mask_token, position_rule
from patchword.checkpoints.layouts.transformers_config import (
    CONFIG,
    config_of,
    labels,
    require,
    sizes,
    written,
)
from patchword.checkpoints.layouts.transformers_preprocess import (
    FILE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    usual_preprocess,
    write_preprocess,
)
from patchword.checkpoints.layouts.transformers_tower import Family, Tower, TransformersLayout
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool, Learned, MeanPool, Pool

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
_KERNEL = "embeddings.patch_embeddings.projection"
_POSITIONS = "embeddings.position_embeddings"


class _Plain(TransformersLayout):
    """Common part of the five layouts. head_class: name of the class with a classifier. bare: the class without."""

    spellings: tuple[Names, ...] = (PUBLISHED, FIVE)
    bare: str
    head_class: str | None = None
    head_prefix: str
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    pools: Pool = ClassPool()
    has_pooler = False

    def tokens(self, tower: Tower) -> TokensConfig:
        return TokensConfig()

    def evidence_without_config(self, checkpoint: Checkpoint, prefix: str) -> str | None:
        """Recognise by tensors that only one class of the family has."""
        if not checkpoint.has(f"{prefix}{_POSITIONS}"):
            return None
        if "lambda_1" in str(checkpoint.under(f"{prefix}encoder.layer.0.")) or any(
            "relative_position_bias" in name for name in checkpoint.tensors
        ):
            return None
        name, why = _name_by_tensors(checkpoint, prefix)
        return why if name == self.name else None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        tower = self.tower(checkpoint, facts)
        patch, channels = tower.patch(_KERNEL)
        tokens = self.tokens(tower)
        rows = tower.shape(_POSITIONS, 3)[1]
        grid = tower.grid(rows - tokens.num_prefix, patch.size)
        config = tower.config(
            image=tower.image(grid, patch.size),
            channels=channels,
            patch=patch,
            tokens=tokens,
            head=self.head(tower),
        )
        return tower.description(config, self.usual(config), notes=self.doubts(checkpoint, config))

    def doubts(self, checkpoint: Checkpoint, config: ViTConfig) -> tuple[str, ...]:
        return ()

    def usual(self, config: ViTConfig) -> Preprocess:
        found = usual_preprocess(self.family.processor, config.image.channels, config.image.size)
        if self.mean_std is not None and config.image.channels == 3:
            found = replace(found, mean=self.mean_std[0], std=self.mean_std[1])
        return found

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

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"prefix": self.head_prefix if card.config.head.num_classes else "", "names": PUBLISHED}

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        config, prefix = description.config, description.spelling["prefix"]
        yield from patches(config, f"{prefix}{_KERNEL}")
        if config.tokens.class_token:
            yield token(f"{prefix}embeddings.cls_token", "prefix.class_token", config)
        if config.tokens.distillation_token:
            yield token(f"{prefix}embeddings.distillation_token", "prefix.distillation_token", config)
        yield position_rule(f"{prefix}{_POSITIONS}", config)
        yield from block_rules(description)
        yield from both(f"{prefix}layernorm", "norm")
        if config.head.pre_logits:
            yield from both(f"{prefix}pooler.dense", "pre_logits")
        elif config.head.num_classes or not self.has_pooler:
            yield Ignored(
                re.escape(prefix) + r"pooler[.]dense[.](weight|bias)",
                "its class does not use the pooler",
            )
        yield from self.head_rules(config)
        yield mask_token(prefix)
        yield Ignored(r"decoder[.]0[.](weight|bias)", "the masked-image pre-training head")

    def head_rules(self, config: ViTConfig) -> Iterable[Rule]:
        if config.head.num_classes:
            yield from both("classifier", "head")

    # Writing ---------------------------------------------------------------------------------

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        config = card.config
        values = {
            "model_type": self.types[0],
            "architectures": [self.architecture(config)],
            **sizes(card),
            **labels(card),
            "qkv_bias": config.attention.bias == "qkv",
        }
        if config.head.pre_logits:
            values |= {"pooler_output_size": config.head.pre_logits, "pooler_act": "tanh"}
        if self._lacks_pooler(config):
            values |= {"id2label": {}, "label2id": {}}
        return values

    def architecture(self, config: ViTConfig) -> str:
        headed = config.head.num_classes or self._lacks_pooler(config)
        return self.head_class if headed and self.head_class else self.bare

    def second_choice(self, card: ModelCard) -> bool:
        """The class to write. AutoModel chooses the bare class by model type; MSN, the same ViT, has no pooler."""
        return self._lacks_pooler(card.config)

    def _lacks_pooler(self, config: ViTConfig) -> bool:
        """Whether the pooler is missing. The bare class would initialise one randomly; the class with a head has none."""
        return self.has_pooler and not config.head.pre_logits and not config.head.num_classes

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        head = config.head
        require(
            self.title,
            (isinstance(config.positions, Learned), f"positions of kind {config.positions.kind!r}"),
            (config.block.layer_scale is None, "LayerScale"),
            (not config.block.entry_norm, "a norm before the blocks"),
            (not config.mlp.gated, "gated MLPs"),
            (config.attention.bias != "qv", "biases on queries and values only"),
            (not config.tokens.num_registers, "registers"),
            (
                config.attention.out_bias and config.mlp.bias and config.patch.bias,
                "linear layers without biases",
            ),
            (head.norm == "tokens", f"norm {head.norm!r} (only a norm over all tokens)"),
            (not head.projection, "projection"),
            (not (head.pre_logits and head.num_classes), "pre_logits before a classifier"),
            (not head.pre_logits or self.has_pooler, "pooler"),
            (not head.num_classes or self.head_class is not None, "a classifier"),
            (head.pool == self.pools, f"pooling by {head.pool.kind!r}"),
        )


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

    def doubts(self, checkpoint: Checkpoint, config: ViTConfig) -> tuple[str, ...]:
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

    def head(self, tower: Tower) -> HeadConfig:
        classes = tower.classifier("cls_classifier")
        if classes:
            return HeadConfig(pool=tower.pool(self.pools), num_classes=classes, distilled=True)
        return super().head(tower)

    def head_rules(self, config: ViTConfig) -> Iterable[Rule]:
        if config.head.distilled and config.head.num_classes:
            yield from both("cls_classifier", "head")
            yield from both("distillation_classifier", "head_distillation")
        else:
            yield from super().head_rules(config)

    def architecture(self, config: ViTConfig) -> str:
        return f"{super().architecture(config)}{'WithTeacher' if config.head.distilled and config.head.num_classes else ''}"

    def check(self, config: ViTConfig) -> None:
        super().check(config)
        require(
            self.title,
            (config.tokens.distillation_token, "models without a distillation token: write it as ViT"),
        )


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

    def rules(self, description: Description) -> Iterable[Rule | Ignored]:
        yield from super().rules(description)
        spelling = description.spelling
        rows = transformers_rows(
            spelling.get("decoder_layer", LAYERS[0]), spelling.get("decoder_names", PUBLISHED)
        )
        yield from decoder_rules(rows, description, r"decoder[.](mask_token|decoder_.*)")

    def config_json(self, card: ModelCard) -> Mapping[str, Any]:
        values = super().config_json(card)
        if card.decoder is None:
            return values
        return {**values, "architectures": ["ViTMAEForPreTraining"], **config_words(card.decoder)}

    def beside(self, card: ModelCard, spelling: Mapping[str, Any]) -> Mapping[str, bytes]:
        """For an encoder, the source's mask ratio; if it has none, 0, so that the class gives the same outputs as ours."""
        self.check(card.config)
        values = dict(self.config_json(card))
        if card.decoder is None:
            values |= {"mask_ratio": 0.0, **spelling.get("stated", {})}
        return {CONFIG: written(values), FILE: write_preprocess(card.preprocess)}


def _decoder_spelling(checkpoint: Checkpoint) -> tuple[str, Names]:
    """The prefix of the decoder's blocks and the names of their parts, in one of the three spellings."""
    layer = LAYERS[1] if checkpoint.under(LAYERS[1].partition("{")[0]) else LAYERS[0]
    five = checkpoint.has(f"{layer.format(i=0)}{FIVE.q}.weight")
    return layer, FIVE if five else PUBLISHED
