"""The error for a path that does not exist: which part is missing, and similar names."""

from collections.abc import Sequence
from pathlib import Path

from patchword.errors import DataError, near_text


def not_there(path: str, other_names: Sequence[str] = ()) -> DataError:
    """Names the first part of the path that is missing and the nearest that exists next to it."""
    missing = Path(path)
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        beside = [p.name for p in missing.parent.iterdir()]
    except OSError:
        beside = []
    near = near_text(missing.name, [*beside, *other_names])
    what = (
        f"{path} does not exist" if str(missing) == path else f"{path} does not exist: there is no {missing}"
    )
    return DataError(f"{what}{near}", "give the path of an existing folder, .zip or table")
