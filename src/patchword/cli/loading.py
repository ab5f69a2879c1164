"""What a command reports about the model it loaded."""

from typing import TYPE_CHECKING

from patchword.cli.console import percent, say
from patchword.errors import plural
from patchword.formats.decoder import UNUSED

if TYPE_CHECKING:
    from patchword.formats.report import LoadReport


def report_loading(report: "LoadReport") -> None:
    """Print the format of a foreign file and any doubts about it to standard error."""
    if report.layout == "patchword":
        for text in report.resampled if report.facts else ():
            say(f"resampled: {text}")
        for note in report.notes:
            say(f"warning: {note}")
        _report_decoder(report)
        return
    dropped = sum(len(part.names) for part in report.dropped)
    left = f", {dropped} tensor{'' if dropped == 1 else 's'} dropped" if dropped else ""
    say(f"read as {report.layout} ({percent(report.filled, 0)} of the backbone{left})")
    if report.new:
        shown = ", ".join(report.new[:3]) + (", …" if len(report.new) > 3 else "")
        say(f"warning: randomly initialised, because no file contains them: {shown}")
    for text in report.resampled:
        say(f"resampled: {text}")
    for note in report.notes:
        say(f"note: {note}")
    _report_decoder(report)


def _report_decoder(report: "LoadReport") -> None:
    count = sum(len(part.names) for part in report.dropped if part.reason == UNUSED)
    if count:
        say(f"only the encoder is used: the decoder ({plural(count, 'tensor')}) is left out")
