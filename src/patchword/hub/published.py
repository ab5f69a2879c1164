"""The well-known releases: what was published under a name, and facts missing from its weights file.

The facts are in `releases/*.toml`, one file per family, each with its source. Anything else is
unknown: nothing is guessed. This module does not import torch and reads files only when needed.

    [sources]        short name → the text that cites where a fact was read
    [common]         defaults for every release of the file
    [group.NAME]     defaults for releases with group = "NAME"
    [[release]]      one release; its tables override the group's, which override the common ones
"""

import functools
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any, Literal

from patchword.errors import CheckpointError, SettingsError, nearest
from patchword.images.preprocess import Preprocess
from patchword.model.config import Activation
from patchword.model.kinds import Size
from patchword.settings import from_plain

Format = Literal[
    "google", "timm", "transformers", "torchvision", "deit", "mae", "dino", "dinov2", "dinov3",
    "ijepa", "beit", "eva", "openai_clip", "open_clip", "detr", "yolos",
]  # fmt: skip

MAX_LISTED = 12
# Lists that equal another one without some rows. Unlike Google's ImageNet-21k, fall11.tar has no "picture" and no
# "bleacher" (timm 1.0.31, data/_info).
SHORTER = {"imagenet-22k": ("imagenet-21k", (9205, 15027))}
FACTS = ("place", "model", "preprocessing", "classes", "licence", "papers", "trained_on")


@dataclass(frozen=True, kw_only=True)
class ReleaseLocation:
    """Where the file is published.

    hub: "org/name" on the Hugging Face hub, `file` within it (None: the folder's usual one), `revision` (None: the
    newest). url: the publisher's address of the file. page: where to request access. files: the names it was
    published under. sha256: hash of the file at url.
    """

    hub: str | None = None
    file: str | None = None
    revision: str | None = None
    url: str | None = None
    page: str | None = None
    files: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about the network that the weights do not state.
    size: our name of the shape, "ViT-B/16". parameters: count for the image model in this file, with its head.
    pool: the `kind` of the pool; "joined" is the class token and the mean of the patches. image_size, patch_size: (rows, columns); the positions are made for image_size.
    """

    size: str | None = None
    parameters: int | None = None
    num_heads: int | None = None
    eps: float | None = None
    act: Activation | None = None
    pool: Literal["class", "mean", "attention", "first", "joined"] | None = None
    image_size: Size | None = None
    patch_size: Size | None = None


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The head's classes. names: a list for `class_names`, None if only `count` is known."""

    count: int
    names: str | None = None


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Lower-case SPDX names if there is one; None: unknown. gated: the hub requires consent first."""

    code: str | None = None
    weights: str | None = None
    gated: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Paper:
    title: str
    arxiv: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """A reported number. metric: "top-1", "k-NN top-1", "zero-shot top-1", "box AP"… in per cent; setting: how it was measured, if not obvious."""

    value: float
    metric: str
    data: str
    source: str
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of the fact at a dotted path ("model.eps", or "model" for all of it)."""

    fact: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """One set of weights as published in one format. aliases: its bare names."""

    name: str
    family: str
    format: Format
    aliases: tuple[str, ...] = ()
    place: ReleaseLocation = ReleaseLocation()
    model: ModelFacts = ModelFacts()
    preprocessing: Preprocess | None = None
    classes: Classes | None = None
    licence: Licence = Licence()
    papers: tuple[Paper, ...] = ()
    trained_on: str | None = None
    scores: tuple[Score, ...] = ()
    sources: tuple[Source, ...] = ()

    def preprocess(self) -> Preprocess | None:
        """The preprocessing that its authors (or the publisher of this copy) evaluate with; None: unknown."""
        return self.preprocessing

    def source_of(self, fact: str) -> str:
        """The source of a fact: its own or that of the nearest part above it; "" if there is none."""
        known = {source.fact: source.text for source in self.sources}
        while fact and fact not in known:
            fact = fact.rpartition(".")[0]
        return known.get(fact, "")

    @property
    def bare_names(self) -> tuple[str, ...]:
        """Names without publisher or tag, which other releases may share."""
        last = self.name.rpartition("/")[2]
        untagged = last.partition(".")[0] if self.format == "timm" else last
        sizes = () if self.model.size is None else (self.model.size,)
        return tuple(dict.fromkeys((last, untagged, *self.aliases, *sizes)))


@functools.cache
def releases() -> tuple[Release, ...]:
    """All releases, family by family. Raises: CheckpointError if a file of releases is malformed."""
    found = [release for name in _texts() for release in _family(name)]
    names = Counter(_key(release.name) for release in found)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise CheckpointError(
            f"releases: {', '.join(twice)} is listed twice", "give each release a unique name"
        )
    return tuple(found)


def find_release(name: str) -> Release:
    """The release with a full name ("facebook/dino-vits16"), or with a bare name that is unique.
    Case, and "-" or "_", do not matter. Raises: CheckpointError that lists all releases with a bare
    name, or the names nearest to an unknown one.
    """
    key = _key(name)
    full, bare = _index()
    if key in full:
        return full[key]
    meant = bare.get(key, ())
    if len(meant) == 1:
        return meant[0]
    if meant:
        listed = [f"{release.name} ({_told_apart(release)})" for release in meant[:MAX_LISTED]]
        rest = [f"and {len(meant) - MAX_LISTED} more"] if len(meant) > MAX_LISTED else []
        raise CheckpointError(
            f"{len(meant)} releases are called {name!r}:\n    " + "\n    ".join([*listed, *rest]),
            f"use one of the full names, such as {meant[0].name}",
        )
    near = near_releases(name)
    clause = f" (near: {', '.join(near)})" if near else ""
    raise CheckpointError(
        f"no published release is called {name!r}{clause}", "`patchword models --published` lists them all"
    )


def near_releases(name: str) -> list[str]:
    """The release names, full or bare, most similar to this one."""
    return nearest(name, [*(r.name for r in releases()), *(b for r in releases() for b in r.bare_names)])


def is_release(name: str) -> bool:
    """Whether any release has this full or bare name."""
    full, bare = _index()
    return _key(name) in full or _key(name) in bare


def release_of_file(file_name: str) -> Release | None:
    """The release whose file was published under exactly this name; None if there is not exactly one."""
    found = [release for release in _that_mention(file_name) if file_name in release.place.files]
    return found[0] if len(found) == 1 else None


def release_of_hub(hub: str, file: str = "") -> Release | None:
    """The release at "org/name" on the hub (in `file`, if one folder holds several)."""
    found = [
        r for r in _that_mention(hub) if r.place.hub == hub and (not file or r.place.file in (None, file))
    ]
    return found[0] if len(found) == 1 else None


def licences_in_use() -> tuple[str, ...]:
    """All licences of the weights, sorted."""
    return tuple(sorted({r.licence.weights for r in releases() if r.licence.weights}))


@functools.cache
def class_names(names: str) -> tuple[str, ...]:
    """The names of a list, such as "imagenet-1k", in the order of the head's rows; each is unique.

    Raises: CheckpointError for an unknown list.
    """
    if names in SHORTER:
        longer, without = SHORTER[names]
        return tuple(name for index, name in enumerate(class_names(longer)) if index not in without)
    folder = files("patchword.hub").joinpath("classes")
    path = folder.joinpath(f"{names}.txt")
    if not path.is_file():
        there = [path.name.removesuffix(".txt") for path in folder.iterdir() if path.name.endswith(".txt")]
        raise CheckpointError(
            f"no list of class names is called {names!r}",
            f"use one of: {', '.join(sorted([*there, *SHORTER]))}",
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def parse(text: str, where: str) -> list[Release]:
    """Parse one file of releases. Raises: CheckpointError with the file, the release and the problem."""
    try:
        data = tomllib.loads(text)
        unknown = set(data) - {"sources", "common", "group", "release"}
        if unknown:
            raise SettingsError(
                f"{where}: unknown table {min(unknown)!r}", "see the docstring of published.py"
            )
        return [_build(data, raw, where) for raw in data.get("release", [])]
    except (tomllib.TOMLDecodeError, SettingsError) as error:
        message = error.message if isinstance(error, SettingsError) else f"{where}: {error}"
        raise CheckpointError(message, getattr(error, "fix", "")) from error


@functools.cache
def _texts() -> dict[str, str]:
    """The files of releases, unparsed."""
    folder = files("patchword.hub").joinpath("releases")
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda p: p.name)
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


@functools.cache
def _family(file: str) -> tuple[Release, ...]:
    return tuple(parse(_texts()[file], file))


def _that_mention(value: str) -> list[Release]:
    """The releases of the files that contain the text: parsing all of them would slow down every load."""
    return [release for name, text in _texts().items() if f'"{value}"' in text for release in _family(name)]


def _build(data: Mapping[str, Any], raw: Mapping[str, Any], where: str) -> Release:
    where = f"{where}, {raw.get('name', 'a release without a name')}"
    group, groups = raw.get("group"), data.get("group", {})
    if group is not None and group not in groups:
        raise SettingsError(f"{where}: no group is called {group!r}", f"use one of: {', '.join(groups)}")
    merged = _laid_over(_laid_over(data.get("common", {}), groups.get(group, {})), raw)
    merged.pop("group", None)
    texts = data.get("sources", {})
    facts = {field.name for field in fields(Release)} & set(FACTS)
    for fact in merged.get("sources", {}):
        if fact.partition(".")[0] not in facts:
            raise SettingsError(
                f"{where}: a source for {fact!r}, which is not a fact", f"use one of: {', '.join(FACTS)}"
            )
    merged["sources"] = [
        {"fact": fact, "text": _text(texts, key, where)} for fact, key in merged.get("sources", {}).items()
    ]
    merged["scores"] = [
        {**score, "source": _text(texts, score.get("source", ""), where)}
        for score in merged.get("scores", [])
    ]
    return from_plain(Release, merged, where)


def _text(texts: Mapping[str, str], key: str, where: str) -> str:
    if key not in texts:
        raise SettingsError(f"{where}: no source is called {key!r}", f"use one of: {', '.join(texts)}")
    return texts[key]


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables; one with its own `kind` replaces the lower one, whose fields belong to another kind."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and "kind" not in value:
            merged[key] = _laid_over(below, value)
        else:
            merged[key] = value
    return merged


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-")


@functools.cache
def _index() -> tuple[dict[str, Release], dict[str, tuple[Release, ...]]]:
    """Full names, and bare names with all their releases."""
    full = {_key(release.name): release for release in releases()}
    bare: dict[str, tuple[Release, ...]] = {}
    for release in releases():
        for key in dict.fromkeys(map(_key, release.bare_names)):
            bare[key] = (*bare.get(key, ()), release)
    return full, bare


def _told_apart(release: Release) -> str:
    """What distinguishes a release from others with the same name, in a few words."""
    size = release.model.image_size
    parts: Iterable[str | None] = (
        release.family,
        release.trained_on,
        None if size is None else f"{size[0]} pixels",
        f"{release.format} file",
    )
    return ", ".join(part for part in parts if part)
