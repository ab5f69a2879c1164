"""Pages of the site that come from elsewhere: the README, every command, every public name, the list of decisions.

MkDocs calls the functions. Links out of docs/ have no page, so that only their text stays.
"""

import importlib
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

import patchword
from patchword.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
COPIES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(docs/([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {name: _copied((ROOT / source).read_text(encoding="utf-8")) for name, source in COPIES.items()}
    pages |= {"commands.md": _commands(), "names.md": _names(), "decisions/index.md": _decisions()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Drop links to files that are not part of the site."""
    there = Path(page.file.src_uri).parent

    def kept(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = target.partition("#")[0]
        if not path or "://" in path:
            return match.group()
        found = files.get_file_from_path(_joined(there, path))
        return match.group() if found else text

    return _LINK.sub(kept, markdown)


def _joined(folder: Path, path: str) -> str:
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _copied(text: str) -> str:
    """A file of the repository's root as a page: links to docs/ become relative to it."""
    text = _IMAGE.sub(r"![\1](\2)", text)
    text = re.sub(r"\]\(docs/", "](", text)
    for page, source in COPIES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return text


def _commands() -> str:
    parts = ["# Commands\n\nWhat `patchword COMMAND --help` prints.\n"]
    for verb, (place, _) in VERBS.items():
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        context = click.Context(
            command, info_name=f"patchword {verb}", max_content_width=100, terminal_width=100
        )
        parts.append(f"## {verb}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _names() -> str:
    parts = ["# Names in Python\n\nEverything that `import patchword as pw` offers.\n"]
    parts += [f"::: {patchword.place_of(name)}\n" for name in patchword.__all__]
    return "\n".join(parts)


def _decisions() -> str:
    rows = []
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append(f"- [{title}]({path.name})")
    return "# Decisions\n\nWhy things are as they are, with measurements.\n\n" + "\n".join(rows) + "\n"
