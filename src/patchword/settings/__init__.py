"""Trees of frozen dataclasses ↔ plain dicts and TOML, with the source of each value.

This package is domain-independent: it works on any frozen dataclass whose fields are numbers,
strings, booleans, None, tuples, other such dataclasses, or unions of them. The dataclasses in a
union are distinguished by `kind`, a class variable that is written next to their fields:
`positions = Learned | Rope2d` becomes `{"kind": "rope2d", "theta": 100.0}`.
"""

import copy
import dataclasses
import json
import math
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from patchword.errors import SettingsError, escape_surrogates, is_control, near_text
from patchword.settings.build import (
    build,
    build_kind,
    check_kind_has,
    hints,
    kept,
    kinds_of,
    paths_of,
    unknown,
)

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A dataclass tree as dicts, lists and scalars, with `kind` first if there is one.

    None is kept as None; `to_toml` omits such keys.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = getattr(type(value), "kind", None)
        plain = {} if kind is None else {"kind": kind}
        plain |= {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return plain
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value


def from_plain(cls: type[T], data: Any, where: str = "settings") -> T:
    """Build the dataclass `cls` from the output of `to_plain`; absent keys take their defaults.

    Raises: SettingsError with `where`, the key and the most similar known key, or the value
    and its expected type.
    """
    return typing.cast(T, build(cls, data, where, ""))


def replace_at(settings: T, path: str, value: Any, where: str = "option") -> T:
    """The same tree with the value at the dotted `path` replaced and checked.

    `value` may be text (from `-o a.b=c`), parsed according to the field's type.
    Raises: SettingsError for an unknown path (with similar names) or a value of the wrong type.
    """
    return typing.cast(T, _put(settings, path, value, where, dataclasses.replace))


def replace_all(settings: T, changes: Iterable[tuple[str, Any, str]]) -> T:
    """The same tree with several (path, value, where) replaced, checked after all replacements.

    Values that are valid only together (a width and its heads, a kind and its fields) can therefore be
    given in any order. Raises: SettingsError, like `replace_at`.
    """
    for path, value, where in _kinds_first(changes):
        settings = _put(settings, path, value, where, _unchecked_replace)
    return from_plain(type(settings), to_plain(settings))


def _kinds_first(changes: Iterable[tuple[str, Any, str]]) -> list[tuple[str, Any, str]]:
    """Move each kind before the fields of its part from the same source; keep the order otherwise."""
    ordered: list[tuple[str, Any, str]] = []
    for change in changes:
        part, _, last = change[0].rpartition(".")
        at = len(ordered)
        if last == "kind":
            below = (
                i
                for i, (path, _, where) in enumerate(ordered)
                if where == change[2] and path.startswith(f"{part}.")
            )
            at = next(below, at)
        ordered.insert(at, change)
    return ordered


def typed(cls: type, path: str, value: Any, where: str) -> Any:
    """`value` converted to the type of the dotted `path` below `cls`; text is parsed like an option's.

    Raises: SettingsError for a value of the wrong type.
    """
    *parts, name = path.split(".")
    owner: Any = cls
    for part, below in zip(parts, [*parts[1:], name], strict=True):
        owner = hints(owner)[part]
        # Of a part of several kinds, the first that has the field.
        owner = next((kind for kind in kinds_of(owner) if below in hints(kind)), owner)
    plain = _from_text(value) if isinstance(value, str) else value
    return build(hints(owner)[name], plain, where, path, text=value)


def merged(base: Any, given: Any) -> Any:
    """Merge `given` over plain `base`: tables key by key, but a part of another kind is replaced completely.

    None is omitted, as TOML has no null: an absent key takes its default, which is None for every such field.
    """
    if not isinstance(base, Mapping) or not isinstance(given, Mapping):
        return given
    if given.get("kind", base.get("kind")) != base.get("kind"):
        return given
    keys = {**base, **given}
    both = {k: merged(base.get(k), given[k]) if k in given else _without_none(base[k]) for k in keys}
    return _without_none(both)


def _without_none(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {k: _without_none(v) for k, v in plain.items() if v is not None}
    return plain


def _unchecked_replace(settings: Any, **values: Any) -> Any:
    changed = copy.copy(settings)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def _put(settings: Any, path: str, value: Any, where: str, replace: Callable[..., Any]) -> Any:
    head, _, rest = path.partition(".")
    known = {f.name: f for f in dataclasses.fields(settings)}
    if head == "kind" and not rest:
        raise SettingsError(
            f"{where}: {path!r} does not specify which part's kind to set",
            "put the part's name in front, e.g. model.positions.kind",
        )
    if head not in known:
        raise unknown(type(settings), head, path, where)
    current = getattr(settings, head)
    kinds = kinds_of(hints(typing.cast(Any, type(settings)))[head])
    if rest == "kind" and kinds:
        same = getattr(type(current), "kind", None) == value
        new = (
            current
            if same
            else build_kind(kinds, {**kept(kinds, value, current), "kind": value}, where, head)
        )
    elif rest:
        if not dataclasses.is_dataclass(current):
            raise SettingsError(
                f"{where}: unknown setting {path!r}, because {head!r} has no parts", f"set {head} itself"
            )
        check_kind_has(current, kinds, head, rest.partition(".")[0], where)
        new = _put(current, rest, value, where, replace)
    else:
        hint = hints(typing.cast(Any, type(settings)))[head]
        new = build(hint, _from_text(value) if isinstance(value, str) else value, where, head, text=value)
    return replace(settings, **{head: new})


def setting_paths(cls: type) -> dict[str, Any]:
    """The dotted path of every setting below `cls` and its type; a part of several kinds has its `kind` as well.

    The type of a kind is the tuple of the names it may have.
    """
    found: dict[str, Any] = {}
    for path, hint in paths_of(cls).items():
        found[path] = hint
        if kinds := kinds_of(hint):
            found[f"{path}.kind"] = tuple(kind.kind for kind in kinds)
    return found


def parse_override(text: str) -> tuple[str, str]:
    """Split `train.lr=3e-4` into path and value text."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SettingsError(
            f"option -o {text!r} has no '='", "write it as -o name.part=value, e.g. -o optim.lr=3e-4"
        )
    return path.strip(), value.strip()


def leaves(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf value by its dotted path, in field order."""
    found: dict[str, Any] = {}
    if getattr(type(settings), "kind", None) is not None:
        found[f"{prefix}kind"] = type(settings).kind
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as nested dicts. Raises: SettingsError with the file and line."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not valid TOML ({error})", "correct that line, or give another file"
        ) from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises: SettingsError if it cannot be read."""
    place = Path(path)
    try:
        return place.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        near = near_text(place.name, [p.name for p in place.parent.glob("*")])
        raise SettingsError(f"{path} does not exist{near}", "give a file that exists") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        what = "is a folder, not a file" if place.is_dir() else f"cannot be read ({error.strerror})"
        raise SettingsError(f"{path} {what}", "give a readable file") from error


def to_json(plain: Any, **how: Any) -> str:
    """Plain values as printable UTF-8 JSON (control characters are escaped) that reads back the same.

    how: arguments of `json.dumps`.
    """
    text = escape_surrogates(json.dumps(plain, ensure_ascii=False, **how))
    if text.replace("\n", "").isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if c != "\n" and is_control(c) else c for c in text)


def to_toml(settings: Any, sources: Mapping[str, str] | None = None) -> str:
    """The tree as TOML, with each leaf's source as a comment.

    `sources` maps a dotted path to a word such as "default", "recipe" or "option"; a path
    without an entry takes the source of the nearest part above it. None is omitted, because
    TOML has no null and an absent key reads back as the default. None in a field with
    another default is refused, because it would not read back.
    """
    lines: list[str] = []
    _write_table(settings, "", sources or {}, lines)
    return "\n".join(lines).strip() + "\n"


def _write_table(settings: Any, prefix: str, sources: Mapping[str, str], lines: list[str]) -> None:
    if getattr(type(settings), "kind", None) is not None:
        lines.append(_line("kind", type(settings).kind, prefix + "kind", sources))
    tables = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            tables.append((field.name, value))
        elif value is None:
            if field.default is not None:
                raise SettingsError(
                    f"{prefix}{field.name} is None, which TOML cannot represent", "give it a value"
                )
        else:
            lines.append(_line(field.name, to_plain(value), prefix + field.name, sources))
    for name, value in tables:
        lines.extend(["", f"[{prefix}{name}]"])
        _write_table(value, f"{prefix}{name}.", sources, lines)


def _line(name: str, value: Any, path: str, sources: Mapping[str, str]) -> str:
    source = source_of(path, sources)
    return f"{name} = {_toml_value(value)}" + (f"  # {source}" if source else "")


def with_leaf(toml: str, path: str, value: Any, source: str) -> str:
    """The text of `to_toml` with the leaf at `path` replaced; the sources of all others stay. Raises: KeyError."""
    table, _, name = path.rpartition(".")
    lines, here, found = toml.splitlines(), "", False
    for i, line in enumerate(lines):
        if line.startswith("["):
            here = line.strip("[]")
        elif here == table and line.startswith(f"{name} = "):
            lines[i], found = f"{name} = {_toml_value(to_plain(value))}  # {source}", True
    if not found:
        raise KeyError(path)
    return "\n".join(lines) + "\n"


def source_of(path: str, sources: Mapping[str, str]) -> str:
    """The source of the leaf at `path`: its own entry, or the nearest one above it.

    The source of a part's kind is also the source of that kind's defaults.
    """
    while True:
        if path in sources:
            return sources[path]
        kind = f"{path.rpartition('.')[0]}.kind"
        if kind in sources:
            return sources[kind]
        if "." not in path:
            return sources.get("", "")
        path = path.rpartition(".")[0]


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"{type(value).__name__} has no TOML form")


def _from_text(text: str) -> Any:
    """Parse an option's text as TOML; text that is not TOML stays text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
