"""Read a source model for conversion: card, tensors and origin, from a file in any layout."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import CheckpointError
from patchword.formats.decoder import encoder_report
from patchword.formats.facts import Options
from patchword.formats.layout import Layout
from patchword.formats.own_options import with_options
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.report import LoadReport, stamps_of
from patchword.hub.find import BEST, LAST, Found
from patchword.model.cost import cost
from patchword.weights.card import ModelCard, Provenance, broken_notes, decoders_of, encoder_only
from patchword.weights.native import is_native, read_model

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model: its card, its tensors (in their stored dtype) and its spelling.
    layout, spelling: those of the source file, so that converting to the same format gives the same file.
    """

    card: ModelCard
    tensors: Mapping[str, "Tensor"]
    layout: Layout | None = None
    spelling: Mapping[str, Any] | None = None


def read_source(found: Found, options: Options, *, decoder: bool = False) -> tuple[Source, LoadReport]:
    """Read the model, with its origin and the file's hash in its provenance.

    decoder: also a masked autoencoder's decoder; otherwise the report lists its tensors as dropped.

    Raises: CheckpointError; missing backbone tensors are listed in the report's `new`.
    """
    path = found.path
    if is_native(path):
        card, tensors = read_model(path)
        card, facts = with_options(card, options, str(path))
        report = LoadReport(
            path=path,
            why=found.why,
            facts=facts,
            tensors=len(tensors),
            parameters=cost(card.config).parameters,
            notes=broken_notes(card.provenance),
        )
        source = Source(card=with_origin(card, [path]), tensors=tensors)
        return (source, report) if decoder else _encoder(source, report, decoders_of(card, tensors))
    opened = open_foreign(path, options, found.source)
    source = Source(
        card=with_origin(opened.card, opened.checkpoint.stored.files),
        tensors=read_tensors(opened, decoder=decoder),
        layout=opened.layout,
        spelling=opened.description.spelling,
    )
    return (source, opened.report) if decoder else _encoder(source, opened.report, opened.plan.of_decoder)


def _encoder(source: Source, report: LoadReport, decoder: tuple[str, ...]) -> tuple[Source, LoadReport]:
    card, tensors = encoder_only(source.card, source.tensors)
    return replace(source, card=card, tensors=tensors), encoder_report(report, decoder)


def refuse_partial(report: LoadReport) -> None:
    """Raises: CheckpointError if parts of the model are in no file: only complete models are written."""
    if report.new:
        raise CheckpointError(
            f"{report.path}: it does not fill {', '.join(report.new[:3])}; randomly initialised weights are not written",
            "use the complete file",
        )


def origin_of_loaded(card: ModelCard, report: LoadReport) -> ModelCard:
    """As `read_source`, for a model that is already loaded; without a hash if its files changed since."""
    files = [file for file, _ in report.stamps]
    same = bool(files) and all(file.exists() for file in files) and stamps_of(files) == report.stamps
    if same:
        return with_origin(card, files)
    where = replace(card.provenance, source=card.provenance.source or report.path.name, source_sha256="")
    return replace(card, provenance=where)


def with_origin(card: ModelCard, files: Sequence[Path]) -> ModelCard:
    return replace(card, provenance=origin_of(card.provenance, files))


def origin_of(known: Provenance, files: Sequence[Path]) -> Provenance:
    """With the name of the files, if it has none yet, and their hash."""
    name = files[0].name
    if name in (LAST, BEST):
        # Every run has a file with this name; the run folder's name identifies it.
        name = f"{files[0].resolve().parent.name}/{name}"
    return replace(known, source=known.source or name, source_sha256=sha256_of(files))


def sha256_of(files: Sequence[Path]) -> str:
    """The hash of one file, or of several concatenated in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
