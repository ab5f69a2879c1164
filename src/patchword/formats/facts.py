"""Facts about a model, each with its source; the user must specify what no file states.

Order: the user's option, the publisher's config next to the weights, the release with that
file name (published.toml), the family's constants. A fact without a source is an error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from patchword.errors import CheckpointError, MissingFact, plural
from patchword.hub.published import Release
from patchword.images.preprocess import Preprocess, sized_as
from patchword.model.config import Activation

T = TypeVar("T")
Size = tuple[int, int]
OPTION = "option"
RELEASE = "published.toml"


class Inferred(str):
    """The source of a fact that no file states: a width, a custom, a missing name. Loading notes every such fact."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may specify about a model if no file does. None: not specified.

    image_size: (h, w) of the images; also the shape of a position grid that no file states.
    patch_size: to use the model with another patch size (FlexiViT). head: file of a linear head.
    classes: names in the order of the head's outputs. allow_partial: accept a file that does
    not fill the complete backbone. below: read only tensors with this prefix. drop: patterns of
    tensors to skip. decoder_num_heads, norm_pix_loss: of a masked autoencoder's decoder, and whether it predicts patches
    that are normalised one by one.
    """

    num_heads: int | None = None
    image_size: Size | None = None
    patch_size: Size | None = None
    pool: Literal["class", "first", "mean"] | None = None
    act: Activation | None = None
    eps: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    head: Path | None = None
    classes: tuple[str, ...] | None = None
    allow_partial: bool = False
    below: str | None = None
    drop: tuple[str, ...] = ()
    decoder_num_heads: int | None = None
    norm_pix_loss: bool | None = None


def patterns(drop: Sequence[str]) -> tuple[str, ...]:
    """The patterns of `drop`, which may be a single string."""
    return (drop,) if isinstance(drop, str) else tuple(drop)


def part_of(options: Options | None, below: str | None, drop: Sequence[str]) -> Options:
    """The options that select a part of the file."""
    said = options or Options()
    return replace(said, below=below or said.below, drop=patterns(drop) or said.drop)


@dataclass(frozen=True, kw_only=True)
class Fact:
    name: str
    value: Any
    source: str


class Facts:
    """Collects what is known about one file. name: the file's name, for messages."""

    def __init__(self, name: str, options: Options, release: Release | None = None) -> None:
        self.name = name
        self.options = options
        self.release = release
        self.found: list[Fact] = []

    def require(self, name: str, *candidates: tuple[T | None, str]) -> T:
        """The option of that name, or the first (value, source) candidate that is not None.

        Raises: CheckpointError naming the fact and its option.
        """
        value = self.get(name, *candidates)
        if value is None:
            raise MissingFact(
                f"{self.name}: no file states {_WORDS.get(name, name)}",
                f"pass {_flag(name)}",
                name,
            )
        return value

    def get(self, name: str, *candidates: tuple[T | None, str]) -> T | None:
        """As `take`, but None if there is no source."""
        asked = getattr(self.options, name, None)
        if asked is not None:
            self.record(name, asked, OPTION)
            chosen: T = asked
            return chosen
        for value, source in self._with_release(name, candidates):
            if value is not None:
                self.record(name, value, source)
                return value
        return None

    def _with_release(
        self, name: str, candidates: Sequence[tuple[T | None, str]]
    ) -> list[tuple[T | None, str]]:
        """The publisher's config next to the weights, then the release of that name, then the family's constants."""
        published: T | None = None if self.release is None else getattr(self.release.model, name, None)
        beside = [c for c in candidates if ".json" in c[1]]
        return [*beside, (published, RELEASE), *(c for c in candidates if c not in beside)]

    def record(self, name: str, value: Any, source: str) -> None:
        """Record a fact that other code decided."""
        self.found = [
            *(fact for fact in self.found if fact.name != name),
            Fact(name=name, value=value, source=source),
        ]

    def heads(self, dim: int, *candidates: tuple[int | None, str]) -> int:
        """The number of heads, which must divide `dim`. Raises: CheckpointError."""
        heads = self.require("num_heads", *candidates)
        if heads < 1 or dim % heads:
            fitting = [n for n in range(1, dim + 1) if dim % n == 0]
            nearest = min(fitting, key=lambda n: abs(n - heads))
            raise CheckpointError(
                f"{self.name}: width {dim} is not divisible by {plural(heads, 'head')} ({self._source('num_heads')})",
                f"pass --num-heads {nearest}, or the number its authors used",
            )
        return heads

    def grid(self, count: int, patch: Size, *candidates: tuple[Size | None, str]) -> Size:
        """Rows and columns of a stored table of `count` patches.

        A candidate is an image size (h, w) in pixels. The user's size decides if it fits the count.
        If the table is a square of another count, the model was made for that square, and images
        are resized to the user's size.
        Raises: CheckpointError if no size fits.
        """
        sizes = [(self.options.image_size, OPTION), *candidates]
        for size, source in sizes:
            if size is not None:
                # With or without the incomplete patch at the edge.
                for rows, columns in (
                    (-(-size[0] // patch[0]), -(-size[1] // patch[1])),
                    (size[0] // patch[0], size[1] // patch[1]),
                ):
                    if rows * columns == count:
                        self.record("grid", (rows, columns), source)
                        return rows, columns
        from patchword.formats.checkpoint import square

        side = square(count)
        if side is None:
            given = [f"{s[0]} x {s[1]} ({source})" for s, source in sizes if s is not None]
            but = f"; {', '.join(given)} has another number of patches" if given else ""
            raise MissingFact(
                f"{self.name}: {plural(count, 'patch', 'patches')} cannot form a square grid, and no file states its shape{but}",
                "pass --image-size HEIGHTxWIDTH, the size the model was made for",
                "image_size",
            )
        self.record("grid", (side, side), "its square table")
        return side, side

    def preprocess(self, *candidates: tuple[Preprocess | None, str]) -> Preprocess:
        """The preprocessing: the first candidate that is not None, with the user's size, mean and std."""
        release = None if self.release is None else self.release.preprocess()
        beside = [c for c in candidates if ".json" in c[1]]
        rest = [c for c in candidates if c not in beside]
        places = [(p, s) for p, s in (*beside, (release, RELEASE), *rest) if p is not None]
        if not places:
            self.require("mean")
        chosen, source = places[0]
        self.record("preprocess", chosen, source)
        if self.options.image_size is not None and self.options.image_size != chosen.image_size:
            chosen = sized_as(chosen, self.options.image_size)
            self.record("image_size", self.options.image_size, OPTION)
        asked, told = self.options.mean, self.options.std
        mean, std = chosen.mean if asked is None else asked, chosen.std if told is None else told
        for name in ("mean", "std"):
            if getattr(self.options, name) is not None:
                self.record(name, getattr(self.options, name), OPTION)
        return replace(chosen, mean=mean, std=std)

    def check_all_used(self) -> None:
        """Raises: CheckpointError for an option that does not apply to this file."""
        used = {fact.name for fact in self.found if fact.source == OPTION}
        if self.options.image_size is not None and {"grid", "image_size", "preprocess"} & {
            f.name for f in self.found
        }:
            used.add("image_size")
        for name in ("num_heads", "image_size", "patch_size", "pool", "act", "eps", "mean", "std"):
            if getattr(self.options, name) is not None and name not in used:
                raise CheckpointError(
                    f"{self.name}: {_flag(name).split(' ')[0]} does not apply to a file of this layout",
                    "remove it" + ("; `patchword adapt` changes the patch" if name == "patch_size" else ""),
                )
        for name in ("decoder_num_heads", "norm_pix_loss"):
            if getattr(self.options, name) is not None and name not in used:
                raise CheckpointError(
                    f"{self.name}: {flag_of(name)} does not apply: the file has no decoder",
                    "remove it, or give a file with a decoder",
                )

    def inferred(self) -> list[str]:
        """A note for each fact that no file states."""
        return [note_of(fact) for fact in self.found if isinstance(fact.source, Inferred)]

    def _source(self, name: str) -> str:
        return next((fact.source for fact in self.found if fact.name == name), "")


def note_of(fact: Fact) -> str:
    """The note for a fact that no file states."""
    verb = "are" if fact.name == "preprocess" else "is"
    return f"{_shown(fact)} {verb} inferred from {fact.source}: no file states {_overridden(fact.name)}"


_WORDS = {
    "dilation": "whether the last stage of the trunk is dilated (DC5)",
    "decoder_num_heads": "the number of attention heads of the decoder",
    "norm_pix_loss": "whether the decoder predicts normalised patches",
    "num_heads": "the number of attention heads",
    "image_size": "the image size",
    "patch_size": "the patch size",
    "act": "the activation",
    "eps": "the epsilon of the norms",
    "pool": "the pooling",
    "mean": "the mean of the pixels",
    "std": "the standard deviation of the pixels",
}


def flag_of(option: str) -> str:
    """The command's option for a field of `Options`."""
    return "--class-names" if option == "classes" else f"--{option.replace('_', '-')}"


def _shown(fact: Fact) -> str:
    if isinstance(fact.value, Preprocess):
        numbers = [", ".join(f"{n:g}" for n in values) for values in (fact.value.mean, fact.value.std)]
        return f"mean ({numbers[0]}) and std ({numbers[1]})"
    return f"{fact.name} {fact.value:g}" if isinstance(fact.value, float) else f"{fact.name} {fact.value}"


def _overridden(name: str) -> str:
    if name == "preprocess":
        return "them (--mean and --std override them)"
    return f"it ({_flag(name).split(' ')[0]} overrides it)"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')} (in Python {name}=…)"


def by_width(table: Iterable[tuple[int, int]], dim: int) -> int | None:
    """The number of heads of the published size with that width."""
    return dict(table).get(dim)
