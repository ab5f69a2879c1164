"""The images of a command that could not be read."""

from patchword.errors import PartialFailure, PatchwordError, plural

_NAMED_AT_MOST = 3


class Failures:
    """Counts the images that failed, and lists the first few by name."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._fixes: list[str] = []

    def add(self, name: str, error: PatchwordError) -> None:
        self.count += 1
        if len(self._first) < _NAMED_AT_MOST:
            self._first.append(f"{name}: {error.reason(name)}")
            if error.fix and error.fix not in self._fixes:
                self._fixes.append(error.fix)

    def check(self, of: int, done: str) -> None:
        """Raises: PartialFailure if there are any. done: what was done with the other images."""
        if not self.count:
            return
        raise PartialFailure(
            f"{self.count} of {plural(of, 'image')} could not be read: {self.listed}",
            self.fix
            + (
                f"; the other {plural(of - self.count, 'image')} {'was' if of - self.count == 1 else 'were'} {done}"
                if self.count < of
                else ""
            ),
        )

    @property
    def listed(self) -> str:
        """The first few failures with their reasons."""
        rest = self.count - len(self._first)
        return "; ".join(self._first) + (f"; and {rest} more" if rest else "")

    @property
    def fix(self) -> str:
        """How to fix the listed failures."""
        return "; ".join(self._fixes) or "fix or replace these files"
