"""Text files that list images, one path per line."""

import os
from pathlib import Path

LIST_ENDINGS = (".txt", ".lst")
# A file none of whose first lines is a file lists none.
_LINES_TRIED = 100


def listed_paths(name: str) -> list[str]:
    """The paths in a text file, one per line, relative to here or to the file's folder; [] if it lists no file."""
    path = Path(name)
    if path.suffix.lower() not in LIST_ENDINGS or not path.is_file():
        return []
    try:
        lines = [os.fsdecode(line.strip(b"\r")) for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError:
        return []

    def place(line: str) -> str:
        next_to_list = os.path.join(path.parent, line)
        return next_to_list if not os.path.exists(line) and os.path.exists(next_to_list) else line

    if not any(os.path.exists(place(line)) for line in lines[:_LINES_TRIED] if "\0" not in line):
        return []
    return [place(line) for line in lines]
