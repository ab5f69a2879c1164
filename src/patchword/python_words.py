"""Rewrite command-line messages for Python callers: `--image-size` becomes `image_size`, `-o optim.lr=1` a settings entry."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

from patchword.errors import PatchwordError

P = ParamSpec("P")
T = TypeVar("T")
_OTHER_NAMES = {"class_names": "classes", "output": "out", "map": "source"}
_OTHER_NAMES |= {"method": "methods", "class": "class_name", "score_fill": "score_fills"}
_METHODS = ("embed", "predict")
_VERBS = (
    "adapt",
    "check",
    "compare",
    "convert",
    "diagnose",
    "evaluate",
    "inspect",
    "learn",
    "pretrain",
    "search",
    "train",
)


def in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap `function` so that its errors mention Python parameters instead of options and commands.

    Of a generator function, also those that are raised while iterating.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with _rewritten():
            return function(*args, **kwargs)

    @functools.wraps(function)
    def iterated(*args: P.args, **kwargs: P.kwargs) -> Any:
        with _rewritten():
            yield from cast("Iterable[Any]", function(*args, **kwargs))

    return iterated if inspect.isgeneratorfunction(function) else called


@contextmanager
def _rewritten() -> Iterator[None]:
    try:
        yield
    except PatchwordError as error:
        error.message, error.fix = as_python(error.message), as_python(error.fix)
        error.args = (error.message,)
        raise


def as_python(text: str) -> str:
    """Rewrite a message of the command for the library. Complete commands with arguments stay, as users can run them."""
    parts = text.split("`")
    parts[::2] = [_options(part) for part in parts[::2]]
    parts[1::2] = [_command(part) for part in parts[1::2]]
    return "`".join(parts)


def _options(text: str) -> str:
    text = re.sub(r"--[a-z-]+(?: [A-Z,]+)? \(in Python ([^)]*)\)", r"\1", text)
    text = re.sub(r"-o ([a-z_0-9.]+)=([^\s,;]+)", r"settings={'\1': \2}", text)
    text = re.sub(r"-o (?=[a-z_]+\.)", "settings ", text)
    return re.sub(r"(?<![\w-])--([a-z][a-z-]+)", lambda found: _parameter(found[1]), text)


def _parameter(option: str) -> str:
    name = option.replace("-", "_").removeprefix("to_")
    return _OTHER_NAMES.get(name, name)


def _command(text: str) -> str:
    words = text.split()
    if words[:2] == ["patchword", "train"] and "--resume" in words:
        data = "" if words[2].startswith("-") else f"{words[2]!r}, "
        extend = f", extend={words[words.index('--extend') + 1]}" if "--extend" in words else ""
        return f"pw.train({data}resume={words[words.index('--resume') + 1]!r}{extend})"
    if words[:3] == ["patchword", "compare", "--resume"]:
        return f"pw.compare(resume={words[3]!r})"
    if len(words) == 2 and words[0] == "patchword" and words[1] in _VERBS:
        return f"pw.{words[1]}"
    if len(words) == 2 and words[0] == "patchword" and words[1] in _METHODS:
        return f"model.{words[1]}"
    return text if words[:1] == ["patchword"] else _options(text)
