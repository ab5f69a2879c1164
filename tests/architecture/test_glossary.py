"""The glossary refers to existing code."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import patchword
from patchword.model.kinds import Positions

SOURCE = Path(patchword.__file__).parent
GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
PLACES = re.findall(r"`([\w/]+\.py)`: `(\w+)`", GLOSSARY.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), sorted(set(PLACES)))
def test_every_term_is_defined_where_the_glossary_says(file: str, name: str) -> None:
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {t.id for t in targets if isinstance(t, ast.Name)}
    assert name in defined


def test_the_glossary_refers_to_over_20_places() -> None:
    assert len(PLACES) > 20


def test_every_kind_of_positions_has_a_glossary_row() -> None:
    rows = re.findall(r"^\| (\w+) \|", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    assert {part.kind for part in get_args(Positions)} <= set(rows)
