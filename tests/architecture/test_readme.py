"""Every command, option and link in the README, the docs and the report exists."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

import patchword
from patchword.cli.verbs import VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEMPLATES = Path(patchword.__file__).parent / "reports" / "templates"
WRITTEN = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(TEMPLATES.glob("*.j2"))]
PAGES = {p.name: p.read_text(encoding="utf-8") for p in GUIDES}
# A template placeholder stands for one word, such as a path.
PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


def _commands() -> list[str]:
    found = set()
    for text in PAGES.values():
        for line in re.findall(
            r"(?:^    |`|<code>)(patchword [^`<\n]+)", PLACEHOLDER.sub("WORD", text), re.MULTILINE
        ):
            found.add(line.split("  #")[0].strip())
    return sorted(found)


@pytest.mark.parametrize("line", _commands())
def test_every_command_shown_exists_and_accepts_its_options(line: str) -> None:
    _, verb, *rest = shlex.split(line)
    if verb.startswith("-"):
        return
    assert verb in VERBS
    module, _, attribute = VERBS[verb][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    command.make_parser(click.Context(command)).parse_args(rest)


def _mentioned_in_source() -> list[tuple[str, str]]:
    """Return (file, verb) for each `patchword VERB` in a string of the source: messages, docstrings, help."""
    found = []
    for file in sorted(Path(patchword.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                verbs = re.findall(r"(?:`|^ *|: )patchword ([a-z]+)(?=[ `])", node.value, re.MULTILINE)
                found += [(file.name, verb) for verb in verbs]
    return found


def test_every_command_mentioned_in_the_source_exists() -> None:
    mentioned = _mentioned_in_source()
    assert len(mentioned) > 10
    assert [(file, verb) for file, verb in mentioned if verb not in VERBS] == []


def test_every_command_is_documented() -> None:
    assert {line.split()[1] for line in _commands()} >= set(VERBS)


def _python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_is_valid_and_its_names_exist() -> None:
    blocks = _python_blocks()
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pw":
                assert node.attr in patchword.__all__


def test_every_make_target_mentioned_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for target in re.findall(r"(?:^    |`)make ([\w-]+)", page, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_link_target_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not heading or heading in _anchors(linked), target


def _anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_its_image_is_small() -> None:
    assert len(README.splitlines()) < 200
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size < 150_000
