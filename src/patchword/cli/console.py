"""The console that tables and long lines are printed on."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Wider than any line, so that a pipe or file gets every line whole; rich would assume 80 columns there.
_NO_TERMINAL = 10_000


def make_console(*, stderr: bool = False) -> "Console":
    """Of standard output, or of standard error: a terminal's lines are wrapped, a pipe's and a file's never."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_TERMINAL)
