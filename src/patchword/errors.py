"""Everything that can go wrong and is not a bug, with the exit code of the command.

    PatchwordError                 what was found; `fix`: the one thing to do
    ├── UserError              2   input or settings are wrong, nothing was started
    │   ├── SettingsError          an unknown key, a value out of range, a config file
    │   ├── DataError              a data set: classes, splits, tables, folders
    │   ├── ImageError             one image that cannot be read as asked
    │   ├── CheckpointError        a weights file
    │   │   ├── UnknownLayout      tensors that no known layout names
    │   │   ├── AmbiguousLayout    two layouts fit
    │   │   ├── KeyMismatch        tensors missing or left over
    │   │   ├── ShapeMismatch      a tensor of another shape than the model's
    │   │   ├── MissingFact         what no file says of the model and the user must
    │   │   └── UnsafeFile         reading it would run code, or it points outside its folder
    │   ├── OutputError            the place for the answer: no space, no permission
    │   ├── NotEnoughMemory        the model, batch or image does not fit, by estimate or when tried
    │   └── MissingExtra           an optional package is needed and absent
    ├── PartialFailure         3   done, some inputs failed and are listed
    ├── TrainingBroken         4   numerically broken; the last good weights are kept
    └── Interrupted          130   stopped by the user; weights kept, how to go on printed

Any other exception that reaches the command is a bug: exit code 1 and its traceback.
"""

import errno
from collections.abc import Iterable


class PatchwordError(Exception):
    """A message of two lines: what was found and where, then what to do about it."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message

    def about(self, name: str) -> str:
        """The reason and its fix on one line, for a list that already shows `name`."""
        return f"{self.reason(name)}; fix: {self.fix}" if self.fix else self.reason(name)

    def reason(self, name: str) -> str:
        """The message without `name` before it."""
        return self.message.removeprefix(f"{name}: ")

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        # Decode workers send errors between processes; the default would lose `fix`.
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
    """fact: the field of `Options` that says it."""

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
    """The known names most like `name`, best first; empty when none is near."""
    import difflib

    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=cutoff)
    return [by_lower[candidate] for candidate in found]


# What torch, oneDNN and the C++ library say when an allocation fails; torch raises all as RuntimeError, NumPy some as ValueError.
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
    """ "1 image", "2 images"; more: the plural that is no added s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def escape_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: what Python makes of a file name's bytes that are none becomes an escape, \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Needed inside words of Persian, of Indic scripts and inside emoji; they move nothing on a screen.
_JOINERS = "\u200c\u200d"


def is_control(char: str) -> bool:
    """Whether a terminal may act on the character rather than show it: controls, line ends, bidirectional formats.

    Of bytes that are not text (Python's \\udc80 to \\udcff) only those that an 8-bit terminal takes as commands.
    """
    import unicodedata

    if char.isprintable() or char in _JOINERS:
        return False
    if "\udca0" <= char <= "\udcff":
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def one_line(text: str) -> str:
    r"""`text` as a terminal can show it: line ends, escape codes and bidirectional formats as \n, \x1b, \u202e.

    Every name that a user's data or checkpoint brings goes through here on its way to a screen.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode("ascii") if is_control(c) else c for c in text)


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " ('b' is near)", or nothing; names that look alike and differ (é as one character or as two) are told apart."""
    import unicodedata

    known = list(known)
    seen = unicodedata.normalize("NFKC", name)
    for other in known:
        if other != name and unicodedata.normalize("NFKC", other) == seen:
            return f" (spelt {name!a}; {other!a} looks the same and is another name)"
    likely = nearest(name, known, 1)
    return f" ({likely[0]!r} is near)" if likely else ""


def near_text(name: str, known: Iterable[str]) -> str:
    """A clause for a message: " (near: 'a', 'b')", or nothing when none is near."""
    found = nearest(name, known)
    return f" (near: {', '.join(repr(f) for f in found)})" if found else ""
