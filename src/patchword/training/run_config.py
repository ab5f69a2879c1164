"""Change settings in a run's config.toml that were decided after it was written."""

from collections.abc import Mapping
from typing import Any

from patchword import settings as tree
from patchword.training import runfolder
from patchword.training.runfolder import RunFolder


def change_config(folder: RunFolder, changed: Mapping[str, Any], source: str) -> None:
    """Replace settings by dotted path, and say where they come from. Raises: OutputError."""
    text = (folder.path / runfolder.CONFIG).read_text(encoding="utf-8")
    for path, value in changed.items():
        text = tree.with_leaf(text, path, value, source)
    folder.write_text(runfolder.CONFIG, text)
