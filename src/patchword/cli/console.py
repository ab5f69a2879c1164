"""How the command prints: consoles for tables, and text that cannot command a terminal."""

from typing import TYPE_CHECKING

import click

from patchword.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Wider than any line, so that a pipe or file gets every line whole; rich would assume 80 columns there.
_NO_TERMINAL = 10_000


def make_console(*, stderr: bool = False) -> "Console":
    """Of standard output, or of standard error: a terminal's lines are wrapped, a pipe's and a file's never."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_TERMINAL)


def line(text: str, style: str = "") -> "Text":
    """A line or a table cell for rich: no markup, no control characters (see `one_line`)."""
    from rich.text import Text

    return Text(one_line(text), style)


def say(text: str, *, err: bool = True) -> None:
    """Print one line, to standard error unless told otherwise; control characters are escaped."""
    click.echo(one_line(text), err=err)


def percent(share: float, digits: int = 1) -> str:
    """0.549 as "54.9 %"."""
    return f"{100 * share:.{digits}f} %"
