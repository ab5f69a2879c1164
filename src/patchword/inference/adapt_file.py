"""`adapt` a file in any layout to a patchword weights file."""

from dataclasses import replace
from pathlib import Path

from patchword.errors import OutputError, SettingsError
from patchword.formats.decoder import REASON
from patchword.formats.facts import Options
from patchword.formats.source import read_source, refuse_partial
from patchword.hub.find import find_weights
from patchword.weights.adapt import Adapted, Wanted, adapt
from patchword.weights.native import check_suffix, write_model


def adapt_file(
    model: str | Path, wanted: Wanted, out: Path, *, options: Options | None = None, offline: bool = False
) -> Adapted:
    """Read, adapt, and write with the source's licence and hash. Raises: SettingsError, CheckpointError, OutputError."""
    if wanted == Wanted(how=wanted.how):
        raise SettingsError(
            "there is nothing to change",
            "pass --to-image-size, --to-patch-size, --to-channels or --to-classes",
        )
    check_suffix(out)
    if out.exists():
        raise OutputError(
            f"{out} already exists", "choose another --out; existing files are never overwritten"
        )
    source, report = read_source(find_weights(model, offline=offline), options or Options(), decoder=True)
    refuse_partial(report)
    done = adapt(source.card, source.tensors, wanted)
    write_model(out, done.tensors, done.card)
    skipped = tuple(f"left out: {part.reason}" for part in report.dropped if part.reason.startswith(REASON))
    return replace(done, notes=(*done.notes, *skipped))
