"""Console output: rich consoles, and text with control characters escaped."""

from typing import TYPE_CHECKING

import click

from patchword.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Wider than any line, so that lines in a pipe or file are not wrapped; rich would assume 80 columns there.
_NO_TERMINAL = 10_000


def make_console(*, stderr: bool = False) -> "Console":
    """A console on standard output or standard error. It wraps lines on a terminal, never in a pipe or file."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=_NO_TERMINAL)


def line(text: str, style: str = "") -> "Text":
    """A line or table cell for rich, without markup or control characters (see `one_line`)."""
    from rich.text import Text

    return Text(one_line(text), style)


def say(text: str, *, err: bool = True) -> None:
    """Print one line with control characters escaped, to standard error by default."""
    click.echo(one_line(text), err=err)


def percent(share: float, digits: int = 1) -> str:
    """0.549 as "54.9 %"."""
    return f"{100 * share:.{digits}f} %"
