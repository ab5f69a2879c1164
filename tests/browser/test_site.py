"""`make docs`: the site builds without a warning, has every command and public name, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import patchword
from patchword.cli.verbs import VERBS

pytest.importorskip("mkdocs")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# A page that loads something: not a link that a reader follows, and not the namespace of a picture.
LOADED = re.compile(r"""(?:src|<link[^>]* href)=["']?(https?:)?//""")


def test_the_site_documents_every_command_and_name_and_opens_from_disk(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    commands = (tmp_path / "site/commands.html").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f'id="{verb}"' not in commands] == []
    names = (tmp_path / "site/names.html").read_text(encoding="utf-8")
    assert [n for n in patchword.__all__ if f'id="{patchword.place_of(n)}"' not in names] == []
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    assert [p.name for p in pages if LOADED.search(p.read_text(encoding="utf-8"))] == []
