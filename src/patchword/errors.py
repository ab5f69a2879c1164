"""All expected errors, with the exit code of the command.

    PatchwordError                 what is wrong; `fix`: how to fix it
    ├── UserError              2   input or settings are wrong; nothing was started
    │   ├── SettingsError          an unknown key, a value out of range, a config file
    │   ├── DataError              a data set: classes, splits, tables, folders
    │   ├── ImageError             one image that cannot be read as requested
    │   ├── CheckpointError        a weights file
    │   │   ├── UnknownLayout      tensor names of no supported layout
    │   │   ├── AmbiguousLayout    two layouts match
    │   │   ├── KeyMismatch        missing or unexpected tensors
    │   │   ├── ShapeMismatch      a tensor whose shape differs from the model's
    │   │   ├── MissingFact        a fact about the model that no file specifies, so the user must
    │   │   └── UnsafeFile         reading it would run code, or it points outside its folder
    │   ├── OutputError            the output cannot be written: no space, no permission
    │   ├── NotEnoughMemory        the model, batch or image does not fit, by estimate or when tried
    │   └── MissingExtra           a required optional package is not installed
    ├── PartialFailure         3   finished, but some inputs failed and are listed
    ├── TrainingBroken         4   training diverged; the last good weights are kept
    └── Interrupted          130   stopped by the user; weights are kept, and how to resume is printed

Any other exception that reaches the command is a bug: exit code 1 with a traceback.
"""

import errno
from collections.abc import Iterable, Sequence


class PatchwordError(Exception):
    """An error in two lines: what is wrong and where, then how to fix it."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message

    def about(self, name: str) -> str:
        """The reason and its fix on one line, for lists that already show `name`."""
        return f"{self.reason(name)}; fix: {self.fix}" if self.fix else self.reason(name)

    def reason(self, name: str) -> str:
        """The message without the prefix `name`."""
        return self.message.removeprefix(f"{name}: ")

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        # Decode workers pickle errors; the default __reduce__ would lose `fix`.
        return type(self), (self.message, self.fix)


class UserError(PatchwordError):
    exit_code = 2


class SettingsError(UserError):
    pass


class DataError(UserError):
    pass


class ImageError(UserError):
    pass


class CheckpointError(UserError):
    pass


class UnknownLayout(CheckpointError):
    pass


class AmbiguousLayout(CheckpointError):
    pass


class KeyMismatch(CheckpointError):
    pass


class ShapeMismatch(CheckpointError):
    pass


class MissingFact(CheckpointError):
    """fact: the field of `Options` that specifies the missing fact."""

    def __init__(self, message: str, fix: str = "", fact: str = "") -> None:
        super().__init__(message, fix)
        self.fact = fact

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.message, self.fix, self.fact)


class UnsafeFile(CheckpointError):
    pass


class OutputError(UserError):
    pass


class NotEnoughMemory(UserError):
    pass


class MissingExtra(UserError):
    pass


class PartialFailure(PatchwordError):
    exit_code = 3


class TrainingBroken(PatchwordError):
    exit_code = 4


class Interrupted(PatchwordError):
    exit_code = 130


def nearest(name: str, known: Iterable[str], limit: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known names most similar to `name`, best first; empty if none is similar."""
    import difflib

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=cutoff)
    return [by_lower[candidate] for candidate in found]


# Messages of torch, oneDNN and the C++ library if an allocation fails. torch raises RuntimeError, NumPy sometimes ValueError.
_ALLOCATION_FAILED = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "could not create a memory object",
    "can't start new thread",
    "bad_alloc",
    "bad allocation",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "array is too big",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, torch or the system failed to get memory."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ValueError) and any(
        words in str(error) for words in _ALLOCATION_FAILED
    )


def plural(number: int, one: str, more: str = "") -> str:
    """ "1 image", "2 images"; more: an irregular plural."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def escape_surrogates(text: str) -> str:
    """Text that UTF-8 can encode: surrogates, Python's stand-ins for undecodable bytes in file names, become \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Needed in Persian words, Indic scripts and emoji; they do not affect a terminal.
_JOINERS = "\u200c\u200d"


def is_control(char: str) -> bool:
    """Whether a terminal may interpret the character instead of showing it: controls, line ends, bidirectional marks.

    Of undecodable bytes (Python's \\udc80 to \\udcff), only those that an 8-bit terminal treats as commands count.
    """
    import unicodedata

    if char.isprintable() or char in _JOINERS:
        return False
    if "\udca0" <= char <= "\udcff":
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    r"""Escape line ends, control codes and bidirectional marks in `text` as \n, \x1b, \u202e.

    Every name from a user's data or checkpoint passes through here before it is printed.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode("ascii") if is_control(c) else c for c in text)


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'b'?)", or "". Names that only look the same (é as one or two characters) are spelt out."""
    import unicodedata

    known = list(known)
    seen = unicodedata.normalize("NFKC", name)
    for other in known:
        if other != name and unicodedata.normalize("NFKC", other) == seen:
            return f" (spelt {name!a}; {other!a} looks the same but is a different name)"
    likely = nearest(name, known, 1)
    return did_you_mean(likely)


def near_text(name: str, known: Iterable[str]) -> str:
    """A clause for a message: " (did you mean 'a' or 'b'?)", or "" if no known name is similar."""
    return did_you_mean(nearest(name, known))


def did_you_mean(names: Sequence[str]) -> str:
    """ " (did you mean 'a', 'b' or 'c'?)", or "" without names."""
    if not names:
        return ""
    *others, last = map(repr, names)
    return f" (did you mean {', '.join(others)} or {last}?)" if others else f" (did you mean {last}?)"
