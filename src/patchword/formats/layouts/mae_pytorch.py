"""pengzhiliang's MAE-pytorch: no class token, sines of the patch index. Source: `modeling_pretrain.py`, `modeling_finetune.py`."""

from collections.abc import Mapping
from typing import Any

from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.original import AuthorsFile, Constants, Original, is_common
from patchword.formats.layouts.original_signs import is_mae_pytorch
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned, Positions, SinCos1d, Size
from patchword.weights.card import ModelCard

_OTHERS = (
    "{b}attn.relative_position_bias_table",
    "rel_pos_bias.relative_position_bias_table",
    "rope.freqs_cos",
)


class MAEPytorch(Original):
    """The encoder of a pre-training file, or a fine-tuned model; `{"model": …}`."""

    name = "mae-pytorch"
    title = "MAE-pytorch (pengzhiliang's file)"
    constants = Constants(who="MAE-pytorch's code", layer_scale=0.1)

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if not is_mae_pytorch(checkpoint) or not is_common(checkpoint, "{b}mlp.fc1.weight", lacking=_OTHERS):
            return None
        return (
            checkpoint.wrapper
            if checkpoint.wrapper.startswith("encoder")
            else "the arguments of its training script"
        )

    def tokens(self, file: AuthorsFile) -> TokensConfig:
        return TokensConfig(class_token=False)

    def grid(self, file: AuthorsFile, tokens: TokensConfig) -> tuple[Size, None]:
        """A learned table has a grid; sines are computed, and 14 x 14 patches are the training size."""
        patch, facts = file.patch, file.facts
        if file.checkpoint.has("pos_embed"):
            return facts.grid(file.rows, patch), None
        size = facts.require("image_size", ((14 * patch[0], 14 * patch[1]), self.constants.who))
        return (size[0] // patch[0], size[1] // patch[1]), None

    def positions(self, file: AuthorsFile) -> Positions:
        learned = file.checkpoint.has("pos_embed")
        return Learned(resample=self.resample) if learned else SinCos1d()

    def head(self, file: AuthorsFile) -> HeadConfig:
        """Fine-tuned: the mean, then `fc_norm`, or without it the first patch. Pre-trained: the mean."""
        has = file.checkpoint.has
        if has("fc_norm.weight"):
            return file.classifier(file.pool("mean", "fc_norm"), "pooled")
        return file.classifier(file.pool("first" if has("head.weight") else "mean"))

    def evaluated(self, file: AuthorsFile, config: ViTConfig) -> tuple[Preprocess, str, tuple[str, ...]]:
        size = config.image.size
        shorter = int(min(size) / (224 / 256 if min(size) < 384 else 1.0))
        return self.preprocess(config, shorter), f"the evaluation in {self.constants.who}", ()

    def spelling(self, card: ModelCard) -> Mapping[str, Any]:
        return {"scale": ("gamma_1", "gamma_2")}

    def written_beside(self, card: ModelCard) -> Mapping[str, Any]:
        """The arguments of its script by which such a file is told from others."""
        return {"args": {"model": "vit_base_patch16_224", "imagenet_default_mean_and_std": True}}
