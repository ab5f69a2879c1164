"""What a command says of the model it loaded, before it answers through it."""

from typing import TYPE_CHECKING

from patchword.cli.console import percent, say

if TYPE_CHECKING:
    from patchword.checkpoints.report import LoadReport


def tell(report: "LoadReport") -> None:
    """On standard error: the format of a file that another program wrote, and whatever is doubtful in it."""
    if report.layout == "patchword":
        for text in report.resampled if report.facts else ():
            say(f"resampled: {text}")
        for note in report.notes:
            say(f"warning: {note}")
        return
    dropped = sum(len(part.names) for part in report.dropped)
    left = f", {dropped} tensor{'' if dropped == 1 else 's'} dropped" if dropped else ""
    say(f"read as {report.layout} ({percent(report.filled, 0)} of the backbone{left})")
    if report.new:
        shown = ", ".join(report.new[:3]) + (", …" if len(report.new) > 3 else "")
        say(f"warning: drawn at random, for no file holds it: {shown}")
    for text in report.resampled:
        say(f"resampled: {text}")
    for note in report.notes:
        say(f"note: {note}")
