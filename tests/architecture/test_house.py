"""Code style: sorted public names, short files and functions, commands with help."""

import ast
import importlib
from pathlib import Path

import click
import pytest

import patchword
from patchword.cli.verbs import VERBS

SOURCE = Path(patchword.__file__).parent
# vit.py is read once, in order, so it may be longer.
LONGEST = {"model/vit.py": 600}
LONGEST_BY_DEFAULT = 400
LONGEST_FUNCTION = 60


def _python_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_the_public_names_are_sorted_and_exist() -> None:
    assert patchword.__all__ == sorted(patchword.__all__)
    for name in patchword.__all__:
        assert getattr(patchword, name) is not None


@pytest.mark.parametrize("path", _python_files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST.get(path.relative_to(SOURCE).as_posix(), LONGEST_BY_DEFAULT)


@pytest.mark.parametrize("path", _python_files(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_functions_are_short(path: Path) -> None:
    functions = [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)
    ]
    long = [
        f"{f.name} ({f.end_lineno - f.lineno})"
        for f in functions
        if f.end_lineno - f.lineno > LONGEST_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_command_with_a_short_help_line(verb: str) -> None:
    place, help_line = VERBS[verb]
    module, _, attribute = place.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help and 0 < len(help_line) <= 68
