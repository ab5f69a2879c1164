"""Whether a model predicts boxes, so that a command or `load` can treat it as a detector."""

from collections.abc import Sequence
from pathlib import Path

from patchword.errors import CheckpointError
from patchword.hub.find import find_weights
from patchword.weights.native import is_native, is_native_detector


def is_detector(
    path: str | Path, *, offline: bool = False, below: str | None = None, drop: Sequence[str] = ()
) -> bool:
    """Whether a file, folder, hub name or published name is a detector, from its names and shapes alone.

    below, drop: as in `Options`. False also for anything that cannot be read: loading it then says why.
    """
    try:
        if (released := _released(path)) is not None:
            return released
        return _holds_detector(find_weights(path, offline=offline).path, below, drop)
    except CheckpointError:
        return False


def _released(path: str | Path) -> bool | None:
    """Of a published name, whose family says it before anything is downloaded; None for anything else."""
    from patchword.hub.fetch import is_detector_release

    if not isinstance(path, str) or Path(path).expanduser().exists():
        return None
    return is_detector_release(path)


def _holds_detector(path: Path, below: str | None, drop: Sequence[str]) -> bool:
    if path.is_file() and is_native(path):
        return is_native_detector(path)
    from patchword.containers.stored import open_stored
    from patchword.formats.checkpoint import unwrap
    from patchword.formats.detection.read import recognised_detector, without_masks
    from patchword.formats.own import cut

    try:
        recognised_detector(without_masks(cut(unwrap(open_stored(path)), below, drop)))
    except CheckpointError:
        return False
    return True
