"""`adapt` from a file in any layout to a weights file of our own."""

from pathlib import Path

from patchword.checkpoints.facts import Options
from patchword.checkpoints.find import find_weights
from patchword.checkpoints.native import write_model
from patchword.errors import OutputError
from patchword.inference.adapt import Adapted, Wanted, adapt
from patchword.inference.convert import read_source


def adapt_file(
    model: str | Path, wanted: Wanted, out: Path, *, options: Options | None = None, offline: bool = False
) -> Adapted:
    """Read, change, write with the source's licence and hash. Raises: SettingsError, CheckpointError, OutputError."""
    if out.exists():
        raise OutputError(f"{out} exists", "choose another --out; nothing is overwritten")
    source, _ = read_source(find_weights(model, offline=offline), options or Options())
    done = adapt(source.card, source.tensors, wanted)
    write_model(out, done.tensors, done.card)
    return done
