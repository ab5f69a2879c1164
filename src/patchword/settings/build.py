"""Convert plain data to the field types of settings dataclasses."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from patchword.errors import SettingsError, did_you_mean, near_text, plural


def kinds_of(hint: Any) -> list[Any]:
    """The dataclasses with a `kind` in a union."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()
    return [o for o in options if dataclasses.is_dataclass(o) and getattr(o, "kind", None) is not None]


def kept(kinds: list[Any], kind: Any, current: Any) -> dict[str, Any]:
    """The values of `current` for the fields of the new kind that have no default, such as the size of a resize."""
    wanted = [cls for cls in kinds if cls.kind == kind]
    return {
        field.name: getattr(current, field.name)
        for cls in wanted
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and hasattr(current, field.name)
    }


def check_kind_has(current: Any, kinds: list[Any], part: str, field: str, where: str) -> None:
    """Raises: SettingsError for a field that exists only in other kinds of this part."""
    having = [kind for kind in kinds if field in {f.name for f in dataclasses.fields(kind)}]
    if having and type(current) not in having:
        raise SettingsError(
            f"{where}: {part} of kind {type(current).kind!r} has no {field!r}",
            f"set {part}.kind to {' or '.join(repr(kind.kind) for kind in having)} as well",
        )


@functools.cache
def hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(hint: Any, data: Any, where: str, path: str, text: Any = None) -> Any:
    """Convert `data` to the type `hint`; `text` is the unparsed option, for string fields."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _build_union(typing.get_args(hint), data, where, path, text)
    if origin is typing.Literal:
        # "none" is a word here, as in --cache none, where other options read it as no value.
        allowed = typing.get_args(hint)
        return _build_literal(allowed, text if data is None and text in allowed else data, where, path)
    if origin is tuple:
        return _build_tuple(typing.get_args(hint), data, where, path)
    if dataclasses.is_dataclass(hint):
        if isinstance(data, hint):  # type: ignore[arg-type]
            return data
        return _build_dataclass(typing.cast(type, hint), data, where, path)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if hint is str and isinstance(text, str) and not isinstance(data, str):
        return text
    matches_type = isinstance(data, hint) and not (hint is int and isinstance(data, bool))
    if not matches_type:
        raise SettingsError(
            f"{where}: {path} is {data!r}, which is not {_type_name(hint)}",
            f"set {path} to {_type_name(hint)}",
        )
    if isinstance(data, float) and math.isnan(data):
        raise SettingsError(f"{where}: {path} is nan, which is not a number", f"set {path} to a number")
    return data


def _build_literal(allowed: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    if data not in allowed:
        near = near_text(str(data), [str(a) for a in allowed])
        raise SettingsError(
            f"{where}: {path} is {data!r}{near}", f"use one of: {', '.join(str(a) for a in allowed)}"
        )
    return data


def _build_tuple(args: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    if not isinstance(data, list | tuple):
        raise SettingsError(f"{where}: {path} is {data!r}, which is not a list", f"write {path} as [a, b]")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(build(args[0], item, where, f"{path}[{i}]") for i, item in enumerate(data))
    if len(args) != len(data):
        raise SettingsError(
            f"{where}: {path} has {plural(len(data), 'value')} instead of {len(args)}",
            f"give {plural(len(args), 'value')}",
        )
    return tuple(
        build(a, item, where, f"{path}[{i}]") for i, (a, item) in enumerate(zip(args, data, strict=True))
    )


def _build_union(options: tuple[Any, ...], data: Any, where: str, path: str, text: Any) -> Any:
    if data is None and type(None) in options:
        return None
    classes = [o for o in options if dataclasses.is_dataclass(o)]
    if any(isinstance(data, c) for c in classes):  # type: ignore[arg-type]
        return data
    if isinstance(data, Mapping) and classes:
        return build_kind(classes, data, where, path)
    scalars = [o for o in options if o is not type(None) and o not in classes]
    for option in scalars:
        try:
            return build(option, data, where, path, text)
        except SettingsError:
            continue
    names = " or ".join(_type_name(o) for o in options if o is not type(None))
    raise SettingsError(f"{where}: {path} is {data!r}, which is not {names}", f"set {path} to {names}")


def build_kind(classes: list[Any], data: Mapping[str, Any], where: str, path: str) -> Any:
    if len(classes) == 1 and "kind" not in data:
        return _build_dataclass(classes[0], data, where, path)
    by_kind = {c.kind: c for c in classes if getattr(c, "kind", None)}
    kind = data.get("kind")
    if kind not in by_kind:
        near = near_text(str(kind), by_kind)
        raise SettingsError(f"{where}: {path}.kind is {kind!r}{near}", f"use one of: {', '.join(by_kind)}")
    return _build_dataclass(by_kind[kind], data, where, path)


def _build_dataclass(cls: type, data: Any, where: str, path: str) -> Any:
    if not isinstance(data, Mapping):
        raise SettingsError(
            f"{where}: {path or cls.__name__} is {data!r}, which is not a table", "write it as a table"
        )
    rest = dict(data)
    kind = getattr(cls, "kind", None)
    if kind is not None and rest.pop("kind", kind) != kind:
        raise SettingsError(f"{where}: {path}.kind is {data['kind']!r}", f"use {kind!r}, the only kind here")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in rest:
        if key not in known:
            full = f"{path}.{key}" if path else key
            raise unknown(cls, key, full, where)
    types_of = hints(cls)
    values = {k: build(types_of[k], v, where, f"{path}.{k}" if path else k) for k, v in rest.items()}
    missing = [
        n
        for n, f in known.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(
            f"{where}: {path or cls.__name__} lacks {', '.join(missing)}", f"add {', '.join(missing)}"
        )
    return cls(**values)


def unknown(cls: Any, key: str, path: str, where: str) -> SettingsError:
    """The error for a name that `cls` does not have; for `lr` it suggests optim.lr."""
    same = [known for known in paths_of(cls) if known.endswith(f".{key}")][:3]
    known = sorted(f.name for f in dataclasses.fields(cls))
    near = did_you_mean(same) if same else near_text(key, known)
    fix = f"write it as {' or '.join(same)}" if same else f"use one of: {', '.join(known)}"
    return SettingsError(f"{where}: unknown setting {path!r}{near}", fix)


def paths_of(cls: Any) -> dict[str, Any]:
    """All dotted paths below a dataclass with the type of each, including those of every kind of a part."""
    found: dict[str, Any] = {}
    for name in (f.name for f in dataclasses.fields(cls)):
        hint = hints(cls)[name]
        found[name] = hint
        for part in (p for p in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(p)):
            found |= {f"{name}.{path}": below for path, below in paths_of(part).items()}
    return found


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
