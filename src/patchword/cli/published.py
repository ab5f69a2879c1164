"""`patchword models --published`: list published weights, or show one with all its facts and sources."""

import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import click

from patchword.errors import CheckpointError, SettingsError, near_text

if TYPE_CHECKING:
    from patchword.hub.published import Release, Score

WIDTH = 80
NAME_WIDTH = 38
# Of several scores, the table shows the first kind in this list; the details show all.
SCORES = {
    "top-1": "",
    "box AP": "AP",
    "linear top-1": "lin",
    "zero-shot top-1": "zs",
    "k-NN top-1": "kNN",
    "fine-tuned top-1": "ft",
}
NOT_KNOWN = "not known"
ASKED = ("licence.code", "licence.weights", "licence.gated", "preprocessing", "model.parameters", "scores")


def show_published(names: Sequence[str], allow: Sequence[str], as_json: bool) -> None:
    """Print the releases that match `names` (families, names or parts of names), or all if there are none.

    allow: licences of weights to keep. Raises: CheckpointError for a name without a match, SettingsError for a
    licence that no release has.
    """
    found = chosen(names)
    kept = [release for release in found if not allow or release.licence.weights in _licences(allow)]
    if as_json:
        from patchword.settings import to_plain

        click.echo(json.dumps([to_plain(release) for release in kept], indent=2, ensure_ascii=False))
    elif len(kept) == 1 and len(names) == 1:
        _print_details(kept[0])
    else:
        _print_table(kept)
    if allow and len(kept) < len(found):
        unknown = sum(release.licence.weights is None for release in found)
        click.echo(
            f"{len(kept)} of {len(found)} releases have weights under {' or '.join(allow)}"
            + (f"; the licence of {unknown} is not known." if unknown else "."),
            err=True,
        )


def chosen(names: Sequence[str]) -> list["Release"]:
    """The releases that match each name, in catalogue order."""
    from patchword.hub.published import releases

    if not names:
        return list(releases())
    matching = {release.name for name in names for release in _matching(name)}
    return [release for release in releases() if release.name in matching]


def _matching(name: str) -> list["Release"]:
    """The releases that match by family, else by full name, else by bare name, else by part of the name."""
    from patchword.hub.published import find_release, releases

    key = _plain(name)
    tests: tuple[Callable[[Release], bool], ...] = (
        lambda r: _plain(r.family) == key,
        lambda r: _plain(r.name) == key,
        lambda r: key in map(_plain, r.bare_names),
        lambda r: key in _plain(r.name),
    )
    for test in tests:
        found = [release for release in releases() if test(release)]
        if found:
            return found
    families = dict.fromkeys(release.family for release in releases())
    near = near_text(name, families)
    if near:
        raise CheckpointError(
            f"no family or release is called {name!r}{near}", f"use one of: {', '.join(families)}"
        )
    return [find_release(name)]  # raises and suggests similar names


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def _licences(allow: Sequence[str]) -> set[str]:
    from patchword.hub.published import licences_in_use

    known = licences_in_use()
    wanted = {licence.strip().lower() for licence in allow}
    for licence in sorted(wanted - set(known)):
        raise SettingsError(
            f"--license-allow {licence}: no release has this licence{near_text(licence, known)}",
            f"use one of: {', '.join(known)}",
        )
    return wanted


# The table ------------------------------------------------------------------------------


def _print_table(found: list["Release"]) -> None:
    family = ""
    if found:
        click.echo(f"{'':<{NAME_WIDTH}}{'M':>6} {'pixels':>7} {'score':>9}  licence")
    for release in found:
        if release.family != family:
            click.echo("\n" + _family_line(release, found))
            family = release.family
        facts = _line_of(release)
        if len(release.name) > NAME_WIDTH:
            click.echo(release.name)  # never wrapped, so that it can be copied
            click.echo(" " * NAME_WIDTH + facts)
        else:
            click.echo(f"{release.name:<{NAME_WIDTH}}{facts}")
    if found:
        click.echo(
            "\nM: millions of parameters. Licence: of the weights; ? not known, * consent\n"
            "required. Score in %: top-1 on ImageNet-1k; lin linear probe (ReaL: on its\n"
            "labels), kNN nearest neighbours, zs zero-shot, ft fine-tuned; AP box AP on COCO.\n"
            "Give one full name to see all its facts and their sources.",
            err=True,
        )


def _family_line(release: "Release", found: list["Release"]) -> str:
    papers = [paper.arxiv for other in found if other.family == release.family for paper in other.papers]
    return f"{release.family} (arXiv {', '.join(dict.fromkeys(papers))})" if papers else release.family


def _line_of(release: "Release") -> str:
    model = release.model
    millions = "" if model.parameters is None else _millions(model.parameters)
    pixels = "" if model.image_size is None else _pixels(model.image_size)
    licence = (release.licence.weights or "?") + ("*" if release.licence.gated else "")
    return f"{millions:>6} {pixels:>7} {_score(release.scores):>9}  {licence}".rstrip()


def _millions(parameters: int) -> str:
    """Millions with one decimal below 1000: 5.7, 86.6, 6,716."""
    millions = parameters / 1e6
    return f"{millions:,.0f}" if millions >= 1000 else f"{millions:.1f}"


def _pixels(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _score(scores: tuple["Score", ...]) -> str:
    shown = min(
        scores, key=lambda s: list(SCORES).index(s.metric) if s.metric in SCORES else 99, default=None
    )
    if shown is None:
        return ""
    label = "ReaL" if shown.data == "ImageNet-ReaL" else SCORES.get(shown.metric, "")
    return f"{shown.value:.1f} {label}".rstrip()


# One release ----------------------------------------------------------------------------


def _print_details(release: "Release") -> None:
    click.echo(f"{release.name}\n{release.family}, format {release.format}\n")
    for part, facts in _facts(release).items():
        by_source: dict[str, list[str]] = {}
        for path, value in facts.items():
            short = path.removeprefix(f"{part}.") + " " if path != part else ""
            by_source.setdefault(release.source_of(path), []).append(f"{short}{_text(value)}")
        label = part
        for source, texts in by_source.items():
            _wrapped(label, ", ".join(texts))
            _wrapped("", f"[{source}]")
            label = ""
    for score in release.scores:
        setting = f" ({score.setting})" if score.setting else ""
        _wrapped("score", f"{score.value:g} % {score.metric} on {score.data}{setting}")
        _wrapped("", f"[{score.source}]")
    known = {path for facts in _facts(release).values() for path in facts}
    missing = [path for path in ASKED if not any(k == path or k.startswith(f"{path}.") for k in known)]
    missing = [path for path in missing if path != "scores" or not release.scores]
    missing = [path for path in missing if path != "licence.gated" or release.place.hub]
    if missing:
        _wrapped(NOT_KNOWN, ", ".join(missing))


def _facts(release: "Release") -> dict[str, dict[str, Any]]:
    """Part → (dotted path → value), without unknown values."""
    from patchword.hub.published import FACTS
    from patchword.settings import leaves

    found: dict[str, dict[str, Any]] = {}
    for part in FACTS:
        value = getattr(release, part)
        if part == "papers":
            paths = {part: "; ".join(f"{paper.title}, arXiv {paper.arxiv}" for paper in value)}
        else:
            paths = leaves(value, f"{part}.") if is_dataclass(value) else {part: value}
        paths = {path: v for path, v in paths.items() if v not in (None, (), "") and not _ours(path)}
        if paths:
            found[part] = paths
    return found


def _ours(path: str) -> bool:
    """Whether this is one of patchword's own reading settings, which no publisher specifies."""
    return path.startswith("preprocessing.reading.") or path in (
        "preprocessing.version",
        "preprocessing.in_channels",
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) and value > 9999 else f"{value}"


def _wrapped(label: str, text: str) -> None:
    indent = " " * 16
    lines = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    click.echo(f"{label:<16}" + f"\n{indent}".join(lines))
