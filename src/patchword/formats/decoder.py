"""The decoder in a weights file: its tensors lie next to the encoder's, below `decoder.`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchword.formats.compare import differences
from patchword.formats.facts import note_of
from patchword.formats.plan import Dropped
from patchword.formats.report import LoadReport
from patchword.model.decoder import DecoderConfig
from patchword.model.shapes import DECODER
from patchword.weights.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

# Facts about a decoder, in `Facts`.
FACTS = ("decoder_num_heads", "norm_pix_loss", "mask_ratio")
# Why a file's decoder is skipped: by a reader of the encoder, or because it cannot be described.
UNUSED = "the decoder, since only the encoder is used"
REASON = "the decoder of masked-image pre-training"


def encoder_report(report: LoadReport, decoder: tuple[str, ...]) -> LoadReport:
    """The report of a file of which the encoder alone is used. decoder: the names of its other tensors, if they are known."""
    skipped = tuple(part for part in report.dropped if part.reason.startswith(REASON))
    names = (*decoder, *(name for part in skipped for name in part.names))
    if not names:
        return report
    about = {note_of(fact) for fact in report.facts if fact.name in FACTS}
    return replace(
        report,
        facts=tuple(fact for fact in report.facts if fact.name not in FACTS),
        notes=tuple(note for note in report.notes if note not in about),
        tensors=report.tensors - len(decoder),
        dropped=(
            *(part for part in report.dropped if part not in skipped),
            Dropped(names=names, reason=UNUSED),
        ),
    )


def decoder_differences(
    ours: DecoderConfig | None, theirs: DecoderConfig | None
) -> list[tuple[str, Any, Any]]:
    """Fields in which two decoders differ, as (dotted name, ours, theirs)."""
    return differences(_explicit(ours), _explicit(theirs), "decoder")


def _explicit(decoder: DecoderConfig | None) -> DecoderConfig | None:
    return decoder and replace(decoder, hidden=decoder.hidden or 4 * decoder.dim)


def with_position_table(
    card: ModelCard, tensors: "Mapping[str, Tensor]"
) -> "tuple[ModelCard, Mapping[str, Tensor]]":
    """The same decoder with its computed positions as a table, as other programs store them.

    A prefix token has a row of zeros, as in MAE's code.
    """
    if card.decoder is None or card.decoder.positions != "sincos2d":
        return card, tensors
    import torch

    from patchword.model.positions import added_positions

    trunk = card.decoder.trunk(card.config)
    module = added_positions(trunk)
    assert module is not None
    made = {f"{DECODER}positions.grid": module(trunk.grid_size).reshape(*trunk.grid_size, trunk.dim).clone()}
    decoder = replace(card.decoder, positions="learned")
    if rows := decoder.trunk(card.config).num_prefix_positions:
        made[f"{DECODER}positions.prefix"] = torch.zeros(rows, trunk.dim)
    return replace(card, decoder=decoder), {**tensors, **made}
