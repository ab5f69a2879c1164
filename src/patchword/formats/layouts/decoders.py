"""The decoder of a masked autoencoder in its authors' files and in transformers'.

Sources: facebookresearch/mae `models_mae.py` and `main_pretrain.py`; transformers 5.23, `models/vit_mae`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from patchword.errors import CheckpointError, KeyMismatch, MissingFact, plural
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.decoder import REASON
from patchword.formats.facts import Facts, Inferred
from patchword.formats.layout import Description, Ignored, Rule
from patchword.formats.layouts.transformers_blocks import Names
from patchword.formats.layouts.transformers_config import CONFIG, JsonConfig
from patchword.formats.rows import Row, queries_keys_values, rules_of, table, token
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig
from patchword.model.shapes import decoder_shapes

# Every model of the authors' code has this decoder, and mask_ratio is the default of their script.
_WIDTH, _HEADS, _MASK_RATIO = 512, 16, 0.75
# Published with a decoder: trained on pixels; and those of the issues of the repository, on normalised patches.
_OF_PIXELS, _OF_NORMALISED = r"mae_visualize_vit_\w+\.pth", r"mae_pretrain_vit_\w+_full\.pth"

_TOP: tuple[Row, ...] = (
    ("decoder_embed.{wb}", "decoder.embed.{wb}"),
    ("mask_token", "decoder.mask_token", token),
    ("decoder_pos_embed", ("decoder.positions.prefix", "decoder.positions.grid"), table),
    ("decoder_norm.{wb}", "decoder.norm.{wb}"),
    ("decoder_pred.{wb}", "decoder.pred.{wb}"),
)
_THEIRS, _OURS = "decoder_blocks.{i}.", "decoder.blocks.{i}."
MAE_ROWS: tuple[Row, ...] = (
    *_TOP,
    (_THEIRS + "norm1.{wb}", _OURS + "norm1.{wb}"),
    (_THEIRS + "attn.qkv.{wb}", _OURS + "attention.qkv.{wb}"),
    (_THEIRS + "attn.proj.{wb}", _OURS + "attention.proj.{wb}"),
    (_THEIRS + "norm2.{wb}", _OURS + "norm2.{wb}"),
    (_THEIRS + "mlp.fc1.{wb}", _OURS + "mlp.fc1.{wb}"),
    (_THEIRS + "mlp.fc2.{wb}", _OURS + "mlp.fc2.{wb}"),
)
# transformers: before the number of a block. The second is how 5.x saves the published spelling.
LAYERS = ("decoder.decoder_layers.{i}.", "decoder.decoder_encoder.layer.{i}.")


def transformers_rows(layer: str, names: Names) -> tuple[Row, ...]:
    """layer: one of LAYERS. names: of the parts of a block, as in the encoder."""
    apart = tuple(f"{layer}{name}.{{wb}}" for name in (names.q, names.k, names.v))
    return (
        *((f"decoder.{row[0]}", *row[1:]) for row in _TOP),
        (f"{layer}{names.norm1}.{{wb}}", _OURS + "norm1.{wb}"),
        (apart, _OURS + "attention.qkv.{wb}", queries_keys_values),
        (f"{layer}{names.out}.{{wb}}", _OURS + "attention.proj.{wb}"),
        (f"{layer}{names.norm2}.{{wb}}", _OURS + "norm2.{wb}"),
        (f"{layer}{names.first[0]}.{{wb}}", _OURS + "mlp.fc1.{wb}"),
        (f"{layer}{names.second}.{{wb}}", _OURS + "mlp.fc2.{wb}"),
    )


def decoder_rules(rows: Iterable[Row], description: Description, pattern: str) -> Iterator[Rule | Ignored]:
    """Rules for the decoder. pattern: of its tensors, which are skipped if nothing describes it."""
    if description.decoder is not None:
        yield from rules_of(
            rows, decoder_shapes(description.decoder, description.config), description.decoder.depth
        )
        return
    fault = description.decoder_fault
    missing = f"; not read: {fault.message.partition(': ')[2]}, {fault.fix}" if fault else ""
    yield Ignored(pattern, f"{REASON}{missing}")


# Describing ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is known besides the tensors, as candidates (value, source) in the order of their weight."""

    heads: tuple[tuple[int | None, str], ...]
    norm_pix_loss: tuple[tuple[bool | None, str], ...]
    mask_ratio: tuple[float | None, str]


def described(
    checkpoint: Checkpoint,
    facts: Facts,
    encoder: ViTConfig,
    rows: Iterable[Row],
    stated: Stated,
    pattern: str,
) -> tuple[DecoderConfig | None, MissingFact | None]:
    """The decoder, or why nothing is known about it. rows: how its tensors are spelled.
    pattern: of all its tensors, for --drop.

    Raises: CheckpointError if its tensors are incomplete, or do not fit the encoder's.
    """
    names = {row[1]: row[0] if isinstance(row[0], str) else row[0][0] for row in rows}
    dim, reads = _shape(checkpoint, names["decoder.embed.{wb}"], pattern)
    hidden, _ = _shape(checkpoint, names[_OURS + "mlp.fc1.{wb}"], pattern)
    depth = checkpoint.depth(names[_OURS + "norm1.{wb}"].replace("{i}", "{}").replace("{wb}", "weight"))
    if reads != encoder.dim:
        raise CheckpointError(
            f"{checkpoint.name}: its decoder reads tokens of width {reads}, but those of its encoder have {encoder.dim}",
            f"use the encoder and the decoder of one model; for the encoder alone, pass --drop '{pattern}'",
        )
    width = (_HEADS if dim == _WIDTH else None, Inferred(f"the decoder's width {dim}, as in MAE's code"))
    heads = facts.get("decoder_num_heads", *stated.heads, width)
    normalised = facts.get("norm_pix_loss", *stated.norm_pix_loss)
    try:
        facts.require("decoder_num_heads", (heads, _source(facts, "decoder_num_heads")))
        facts.require("norm_pix_loss", (normalised, _source(facts, "norm_pix_loss")))
    except MissingFact as fault:
        return None, fault
    assert heads is not None and normalised is not None
    if heads < 1 or dim % heads:
        source = _source(facts, "decoder_num_heads")
        raise CheckpointError(
            f"{checkpoint.name}: its decoder's width {dim} is not divisible by {plural(heads, 'head')} ({source})",
            f"pass --decoder-num-heads {max(n for n in range(1, max(heads, 1) + 1) if dim % n == 0)}, "
            "or the number its authors used",
        )
    decoder = DecoderConfig(
        dim=dim,
        depth=depth,
        num_heads=heads,
        hidden=hidden,
        activation=encoder.mlp.activation,
        eps=encoder.norm.eps,
        positions="learned",
        norm_targets=normalised,
        mask_ratio=_mask_ratio(facts, stated),
    )
    return decoder, None


def of_authors(checkpoint: Checkpoint) -> Stated:
    """What their script stored in the file, and what is known about published files."""
    args, name = checkpoint.args, checkpoint.path.name
    model = str(args.get("model", ""))
    said = args.get("norm_pix_loss")
    published = (
        False if re.fullmatch(_OF_PIXELS, name) else True if re.fullmatch(_OF_NORMALISED, name) else None
    )
    ratio = args.get("mask_ratio")
    heads = args.get("decoder_num_heads")
    return Stated(
        heads=(
            (heads if isinstance(heads, int) else None, "args in the file"),
            (_HEADS if re.match(r"mae_vit_\w+", model) else None, f"the model {model} of MAE's code"),
        ),
        norm_pix_loss=(
            (said if isinstance(said, bool) else None, "args in the file"),
            (published, f"the published file {name}"),
        ),
        mask_ratio=(ratio if isinstance(ratio, int | float) else None, "args in the file"),
    )


def args_of_authors(decoder: DecoderConfig) -> Mapping[str, Any]:
    """The arguments of their script that describe the decoder, and the heads, for which it has none."""
    return {
        "mask_ratio": decoder.mask_ratio,
        "norm_pix_loss": decoder.norm_targets,
        "decoder_num_heads": decoder.num_heads,
    }


def of_config(declared: JsonConfig) -> Stated:
    """What transformers' config.json states; a missing value is the default of its class."""
    default = "the default of its class"
    return Stated(
        heads=(
            (declared.whole("decoder_num_attention_heads"), CONFIG),
            (_HEADS if declared.values else None, default),
        ),
        norm_pix_loss=(
            (declared.flag("norm_pix_loss"), CONFIG),
            (False if declared.values else None, default),
        ),
        mask_ratio=(declared.number("mask_ratio"), CONFIG),
    )


def config_words(decoder: DecoderConfig) -> dict[str, Any]:
    """A decoder in the words of transformers' config.json."""
    return {
        "decoder_hidden_size": decoder.dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.num_heads,
        "decoder_intermediate_size": decoder.hidden or 4 * decoder.dim,
        "mask_ratio": decoder.mask_ratio,
        "norm_pix_loss": decoder.norm_targets,
    }


def _mask_ratio(facts: Facts, stated: Stated) -> float:
    """The stated share, unless nothing or everything would be hidden: then the file was used as an encoder."""
    ratio, source = stated.mask_ratio
    if ratio is None or not 0 < ratio < 1:
        ratio, source = _MASK_RATIO, "the default of MAE's code"
    facts.record("mask_ratio", ratio, source)
    return float(ratio)


def _source(facts: Facts, name: str) -> str:
    return next((fact.source for fact in facts.found if fact.name == name), "")


def _shape(checkpoint: Checkpoint, name: str, pattern: str) -> tuple[int, int]:
    full = name.format(i=0, wb="weight")
    if not checkpoint.has(full):
        raise KeyMismatch(
            f"{checkpoint.name}: its decoder lacks {full}",
            f"use the complete file; for the encoder alone, pass --drop '{pattern}'",
        )
    rows, columns = checkpoint.shape_of(full, 2)
    return rows, columns
