"""Images of a split that the model was trained on."""

from dataclasses import dataclass

from patchword.errors import plural


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many of the `of` images of a split the model was trained on. scored: whether they count in the score."""

    images: int
    of: int
    scored: bool

    @property
    def text(self) -> str:
        overlap = f"this model was trained on {self.images} of these {plural(self.of, 'image')}"
        if self.scored:
            return f"{overlap}, so the score is optimistic"
        return f"{overlap}; the score is for the other {self.of - self.images}"
