"""Refuse files that end without a line break, are too large, or hold marks of a merge.

python .ci/tidy.py FILE…        prints what is wrong and exits 1, says nothing otherwise
"""

import sys
from pathlib import Path

MOST_BYTES = 1_000_000
# Built, so that this file does not accuse itself.
MERGE_MARKS = tuple((sign * 7 + " ").encode() for sign in "<>")


def faults(path: Path) -> list[str]:
    """What is wrong with one file; binary files are only asked for their size."""
    if path.is_symlink() or not path.is_file():
        return []
    content = path.read_bytes()
    found = [f"{len(content):,} bytes, {MOST_BYTES:,} at most"] if len(content) > MOST_BYTES else []
    # Recorded answers of others stay byte for byte as they came.
    if b"\0" in content[:8000] or not content or "tests/data/" in path.as_posix():
        return found
    if not content.endswith(b"\n"):
        found.append("no line break at the end")
    elif content.endswith(b"\n\n"):
        found.append("empty lines at the end")
    lines = content.splitlines()
    return found + [
        f"mark of a merge in line {n}" for n, line in enumerate(lines, 1) if line.startswith(MERGE_MARKS)
    ]


def main(names: list[str]) -> int:
    found = [f"{name}: {fault}" for name in names for fault in faults(Path(name))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
