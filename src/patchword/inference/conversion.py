"""What a conversion did, and how close the outputs must stay."""

from dataclasses import dataclass
from pathlib import Path

from patchword.inference.readers import Opened

NATIVE = "patchword"
# The same float32 sums in two orders; measured differences are below 1e-5.
MAX_DIFFERENCE = 1e-4
# Another program may sum in a different order everywhere.
MAX_READER_DIFFERENCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """path: the written file. difference: the largest for one image through both, relative to the largest output.
    prepared: preprocessing steps that the format's readers do differently, as (field, ours, theirs).
    rewritten_for: fields that the format expresses differently, with the same outputs; likewise.
    elsewhere: what its readers resample by another rule for other image sizes.
    names: the file of the class names, if the format has no place for them.
    notes: what is inferred or uncertain in the source. reader: the result of the format's own program.
    told: options that readers of the format need. dropped: reason → tensors of the source that are skipped.
    """

    path: Path
    layout: str
    files: tuple[Path, ...]
    difference: float
    compared: str
    told: dict[str, object]
    changed: tuple[tuple[str, object, object], ...] = ()
    prepared: tuple[tuple[str, object, object], ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    rewritten_for: tuple[tuple[str, object, object], ...] = ()
    elsewhere: tuple[tuple[str, str, str], ...] = ()
    names: Path | None = None
    notes: tuple[str, ...] = ()
    reader: Opened | None = None
