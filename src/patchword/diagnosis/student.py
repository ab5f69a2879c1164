"""Run a Python file and find the model in it."""

import contextlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from torch import nn

from patchword.diagnosis.case import Factory, copier, quiet, seeded
from patchword.diagnosis.inputs import NoInput, find_input
from patchword.diagnosis.walk import modules_in
from patchword.errors import UserError, did_you_mean, nearest, suggestion

Size = tuple[int, int]
_MODULE = "patchword_student_file"


def split_target(target: str) -> tuple[Path, str]:
    """`my_vit.py:ViT` → the path and the name; without a name, "".

    Raises: UserError if there is no such Python file.
    """
    path, name = Path(target), ""
    if not path.exists() and ":" in target:
        before, _, name = target.rpartition(":")
        path = Path(before)
    if path.is_dir() or (path.exists() and path.suffix != ".py"):
        notebook = path.suffix == ".ipynb"
        raise UserError(
            f"{path} is {'a folder' if path.is_dir() else 'a notebook' if notebook else 'not a Python file'}",
            f"run `jupyter nbconvert --to script {path}` and pass the .py file"
            if notebook
            else "pass the .py file that defines the model",
        )
    if not path.exists():
        others = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist{suggestion(path.name, others)}",
            "pass the .py file that defines the model",
        )
    return path, name


def load_student(
    path: Path, name: str, *, size: Size | None = None, channels: int | None = None
) -> tuple[Factory, str]:
    """Run the file once, and return how to build its model, and what it is called.

    name: a class, a function that returns a module, or a module; "" to choose the only one that takes images. What the
    file prints goes to standard error, and its plots are not shown.
    Raises: UserError if the file or the model fails, or if the choice is not clear.
    """
    names = _run(path)
    if name:
        return _named(path, name, names)
    return _chosen(path, names, size, channels)


# Running -----------------------------------------------------------------------------------


class _Uncached(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is now: no bytecode of an earlier version is used, and none is written next to it."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(path: Path) -> dict[str, Any]:
    """The names that the file defines itself."""
    spec = importlib.util.spec_from_loader(_MODULE, _Uncached(_MODULE, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _as_a_script(path):
        sys.modules[_MODULE] = module
        try:
            spec.loader.exec_module(module)
        except SystemExit as error:
            raise UserError(f"{path} ends the program (exit code {error.code})", _GUARD) from error
        except ModuleNotFoundError as error:
            raise UserError(
                f"{path} needs {error.name}, which is not installed", f"pip install {error.name}"
            ) from error
        except SyntaxError as error:
            raise UserError(
                f"{path}, line {error.lineno}: {error.msg}", "fix the syntax first: `python` shows the place"
            ) from error
        # A student's file may raise anything.
        except Exception as error:
            raise UserError(f"{path}{_line(error, path)} fails: {_reason(error)}", _GUARD) from error
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


_GUARD = "put training and plots under `if __name__ == '__main__':`, so that the file only defines the model"


def _reason(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(error: BaseException, path: Path) -> str:
    """ ", line 12": the last line of the file itself in the traceback."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


@contextlib.contextmanager
def _as_a_script(path: Path) -> Iterator[None]:
    """Imports next to the file work, it gets no arguments, and plots are drawn nowhere."""
    arguments, paths, backend = sys.argv, list(sys.path), os.environ.get("MPLBACKEND")
    sys.argv, os.environ["MPLBACKEND"] = [str(path)], "Agg"
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr), seeded(0):
            yield
    finally:
        sys.argv, sys.path[:] = arguments, paths
        if backend is None:
            os.environ.pop("MPLBACKEND", None)
        else:
            os.environ["MPLBACKEND"] = backend


# Choosing ----------------------------------------------------------------------------------


def _named(path: Path, name: str, names: dict[str, Any]) -> tuple[Factory, str]:
    if name not in names:
        known = [
            n
            for n, value in names.items()
            if _is_class(value) or isinstance(value, nn.Module) or callable(value)
        ]
        near = did_you_mean(nearest(name, known))
        raise UserError(f"{path} does not define {name!r}{near}", f"name one of: {', '.join(known[:8])}")
    value = names[name]
    if isinstance(value, nn.Module):
        return copier(value), f"{path.name}:{name}"
    if not callable(value):
        raise UserError(
            f"{path}:{name} is {type(value).__name__}, not a model", "name a class, a function or a module"
        )
    _no_arguments(path, name, value)
    return value, f"{path.name}:{name}"


def _is_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _required(value: Any) -> list[str]:
    """The arguments without a default."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]


def _no_arguments(path: Path, name: str, value: Any) -> None:
    needed = _required(value)
    if needed:
        raise UserError(
            f"{path}:{name} needs {'the argument' if len(needed) == 1 else 'the arguments'} {', '.join(needed)}",
            f"add `model = {name}({needed[0]}=…)` to the file, or give {'it a default' if len(needed) == 1 else 'them defaults'}",
        )


def _chosen(
    path: Path, names: dict[str, Any], size: Size | None, channels: int | None
) -> tuple[Factory, str]:
    """The only model of the file that takes images and is not a part of another."""
    instances = {n: v for n, v in names.items() if isinstance(v, nn.Module)}
    made = {type(v) for v in instances.values()}
    classes = {n: v for n, v in names.items() if _is_class(v) and v.__module__ == _MODULE and v not in made}
    if not instances and not classes:
        functions = [n for n, v in names.items() if inspect.isfunction(v) and v.__module__ == _MODULE]
        raise UserError(
            f"{path} defines no torch module"
            + (f", only functions: {', '.join(functions[:5])}" if functions else ""),
            f"name the function that returns the model: {path}:{functions[0]}"
            if functions
            else "define a class that inherits from nn.Module",
        )
    needing = {n: _required(v) for n, v in classes.items() if _required(v)}
    builds: dict[str, Factory] = {n: copier(v) for n, v in instances.items()}
    builds |= {n: v for n, v in classes.items() if n not in needing}
    takers, failures = _takers(builds, size, channels)
    if len(takers) == 1:
        return builds[takers[0]], f"{path.name}:{takers[0]}"
    if takers:
        raise UserError(
            f"{path} defines {len(takers)} models that take images: {', '.join(takers)}",
            f"name one: {path}:{takers[-1]}",
        )
    if needing and not instances:
        name = list(needing)[-1]
        _no_arguments(path, name, names[name])
    name, failure = (
        list(failures.items())[-1] if failures else (next(iter(builds)), UserError("it takes no images"))
    )
    raise UserError(f"{path}:{name}: {failure.message}", failure.fix or _GUARD) from failure


def _takers(
    builds: dict[str, Factory], size: Size | None, channels: int | None
) -> tuple[list[str], dict[str, UserError]]:
    """The models that take images, of those that are not a part of another; and why the others don't."""
    built: dict[str, nn.Module] = {}
    failures: dict[str, UserError] = {}
    for name, build in builds.items():
        try:
            with quiet(), seeded(0):
                built[name] = build()
        # A constructor may raise anything.
        except Exception as error:
            failures[name] = UserError(
                f"cannot be built: {_reason(error)}", "build it without an error first"
            )
    parts = {
        type(part) for module in built.values() for _, part, _ in modules_in(module) if part is not module
    }
    takers = []
    for name, module in built.items():
        if type(module) in parts:
            continue
        try:
            with quiet():
                find_input(module, size, channels)
            takers.append(name)
        except NoInput as error:
            failures[name] = error
    return takers, failures
