"""What is varied: `positions.kind=none,learned` → a setting and its values; several of them → their combinations."""

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from patchword.errors import SettingsError, did_you_mean, near_text, nearest
from patchword.settings import setting_paths, to_plain, typed

# Short names of parts that have a usual one; the names of options (`lr`, `patch_size`) count too.
_SHORT = {
    "norm": "model.norm.kind",
    "patch": "model.patch.size",
    "pool": "model.head.pool.kind",
    "positions": "model.positions.kind",
}
# A word of the papers that several kinds have, and the kind that it stands for.
_WORDS = {("model.positions.kind", "relative"): "relative_bias"}
# Pre-training's own settings: a classifier has none of them.
_NOT_HERE = ("task.decoder", "task.watch")
_REFUSED = {
    "run.seed": "use --seeds N, which trains each value with N seeds",
    "run.split_seed": "remove it: another seed holds out other images, so the scores could not be compared",
}
_SIZE = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a varied setting: its label, and the settings (path → value) that it stands for."""

    label: str
    entries: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A varied setting: its path, the name that the user gave it, its values. note: what was understood, if not as written."""

    path: str
    name: str
    values: tuple[Value, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the settings compared: its name, and what it sets. values: the label of each factor's value."""

    name: str
    folder: str
    values: tuple[str, ...]
    entries: tuple[tuple[str, Any], ...]


def parse_vary(text: str) -> Factor:
    """`name=a,b,c` as a factor; commas within brackets belong to a value. Raises: SettingsError."""
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(
            f"--vary {text!r} has no '='",
            "write it as --vary NAME=A,B, e.g. --vary positions.kind=none,learned",
        )
    return factor(name.strip(), _split(values))


def factor(name: str, values: Sequence[Any]) -> Factor:
    """A factor of the setting with this name or end of a name. values: texts, or values as in `settings`.

    Raises: SettingsError for an unknown or ambiguous name, fewer than two values, one twice, or one of the wrong type.
    """
    from patchword.training.config import TrainSettings

    paths = {p: hint for p, hint in setting_paths(TrainSettings).items() if not p.startswith(_NOT_HERE)}
    path = _resolved(name, paths)
    if path in _REFUSED:
        raise SettingsError(f"--vary {name}: {path} cannot be compared", _REFUSED[path])
    known = paths[path] if isinstance(paths[path], tuple) else ()
    if len(values) < 2:
        given = f"only {str(values[0])!r}" if values and str(values[0]) else "no values"
        others = [kind for kind in known if kind not in map(str, values)][:3]
        example = ",".join([*map(str, values), *others]) if others else "A,B"
        raise SettingsError(
            f"--vary {name} has {given}, so there is nothing to compare",
            f"give two or more: {name}={example}",
        )
    found, notes = [], []
    for value in values:
        word = _WORDS.get((path, str(value)))
        if word is not None:
            notes.append(f"{value} means {word}")
        found.append(_value(path, value, word or value, paths[path]))
    plain = [repr(value.entries) for value in found]
    for index, same in enumerate(plain):
        if same in plain[:index]:
            raise SettingsError(
                f"--vary {name}: {found[plain.index(same)].label} and {found[index].label} are the same value"
                if found[plain.index(same)].label != found[index].label
                else f"--vary {name} has {found[index].label} twice",
                "give each value once",
            )
    return Factor(path=path, name=name, values=tuple(found), note="; ".join(notes))


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "[{(") - (char in ")}]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    found = [part.strip() for part in parts]
    return [part for part in found if part] if len(found) < 3 else found


def _resolved(name: str, paths: dict[str, Any]) -> str:
    """The full path of a setting. Raises: SettingsError with the nearest names, or with all that it could mean."""
    from patchword.training.overlay import PATHS

    options = {**PATHS, **_SHORT}
    path = options.get(name.lstrip("-").replace("-", "_"))
    if path is None and name in paths:
        path = name
    if path is None:
        ends = [p for p in paths if p.endswith(f".{name}")]
        if len(ends) > 1:
            shown = ", ".join(ends[:4]) + (f" and {len(ends) - 4} more" if len(ends) > 4 else "")
            raise SettingsError(f"--vary {name} could mean {shown}", "give more of the name")
        path = ends[0] if ends else None
    if path is None:
        # Compare with every end of each path, as a user may give any of them.
        by_end = {p.split(".", i)[-1]: p for p in paths for i in range(p.count(".") + 1)}
        close = nearest(name, [*options, *by_end])
        near = did_you_mean(list(dict.fromkeys(by_end.get(end, end) for end in close)))
        raise SettingsError(
            f"--vary {name}: unknown setting {name!r}{near}",
            "`patchword train DATA --dry-run` lists every setting",
        )
    if f"{path}.kind" in paths and path != "tune":
        path = f"{path}.kind"
    below = [p for p in paths if p.startswith(f"{path}.") and p.count(".") == path.count(".") + 1]
    if below and path not in options.values():
        raise SettingsError(
            f"--vary {name}: {path} has parts of its own", f"vary one of them: {', '.join(below)}"
        )
    return path


def _value(path: str, given: Any, meant: Any, hint: Any) -> Value:
    """One value with what it sets. Raises: SettingsError for one that the setting cannot have."""
    from patchword.training.config import TrainSettings

    label = given if isinstance(given, str) else str(given)
    if label == "":
        raise SettingsError(f"--vary {path} has an empty value", "remove the extra comma")
    if isinstance(hint, tuple):
        if meant not in hint:
            raise SettingsError(
                f"--vary {path}: {meant!r} is not a kind{near_text(str(meant), hint)}",
                f"use one of: {', '.join(hint)}",
            )
        return Value(label=label, entries=((path, meant),))
    if path == "tune" and isinstance(meant, str):
        from patchword.training.tune import parse_tune

        return Value(label=label, entries=((path, to_plain(parse_tune(meant))),))
    if path == "model":
        return Value(label=label, entries=((path, meant),))
    if path in ("run.weights", "task.distill.teacher") and os.path.exists(str(meant)):
        return Value(label=label, entries=((path, os.path.abspath(str(meant))),))
    if hint == _SIZE:
        meant = _sides(meant)
    if path == "run.weights" and str(meant).lower() == "none":
        return Value(label="none", entries=((path, ""),))
    return Value(
        label=label, entries=((path, to_plain(typed(TrainSettings, path, meant, f"--vary {path}"))),)
    )


def _sides(value: Any) -> Any:
    """4, "4" and "4x6" as rows and columns; anything else as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", value) if isinstance(value, str) else None
    return [int(found[1]), int(found[2] or found[1])] if found else value


def combinations(factors: Sequence[Factor]) -> tuple[Arm, ...]:
    """Every combination of the factors' values, in the order given. Raises: SettingsError for a setting that is varied twice."""
    paths = [f.path for f in factors]
    for path in paths:
        if paths.count(path) > 1:
            raise SettingsError(f"--vary sets {path} twice", "give all its values in one --vary")
    arms: list[Arm] = []
    for chosen in itertools.product(*(f.values for f in factors)):
        labels = tuple(value.label for value in chosen)
        folder = _free("_".join(map(_slug, labels)), {arm.folder for arm in arms})
        arms.append(
            Arm(
                name=", ".join(labels),
                folder=folder,
                values=labels,
                entries=tuple(itertools.chain.from_iterable(value.entries for value in chosen)),
            )
        )
    return tuple(arms)


def _slug(label: str) -> str:
    """A folder name: a path keeps its last part."""
    last = label.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", last).strip("-.")[:40] or "value"


def _free(name: str, taken: Iterable[str]) -> str:
    names, number = set(taken), 2
    free = name
    while free in names:
        free, number = f"{name}-{number}", number + 1
    return free
