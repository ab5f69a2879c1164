"""Where pictures and pages go."""

from pathlib import Path
from typing import Any

from patchword.errors import OutputError, near_text
from patchword.inference.output import check_place, whole_file
from patchword.reports.html import filled

ENDINGS = (".png", ".html")


def check_out(path: Path) -> None:
    """Raises: OutputError for an ending that is neither .png nor .html, or a place that is not writable."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        problem = f"unknown file extension {ending!r}" if ending else "no file extension"
        raise OutputError(f"{path}: {problem}{near_text(ending, ENDINGS)}", "use .png or .html")
    check_place(path)


def write_page(path: Path, template: str, values: dict[str, Any]) -> None:
    """Fill a template of `reports/`. Raises: OutputError."""
    with whole_file(path, text=True) as file:
        file.write(filled(template, values))
