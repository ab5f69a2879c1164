"""Every format against every small model: it writes what it always wrote, reads that back as the same model, or refuses.

`write_as` reads its own files and compares them with the model, so that a hash stands for a faithful file.
The hashes are in tests/data/formats.json; a pair that is not there is refused. After a change that is meant to write other
bytes: `PATCHWORD_RECORD=1 python -m pytest tests/property/test_formats.py`.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from patchword.formats.layout import Layout
from patchword.formats.layouts import LAYOUTS
from support.formats import FAMILIES, MODELS, VARIED, outcome, source_of

HASHES = Path(__file__).parents[1] / "data" / "formats.json"
# One in so many of the other models is a fast test.
_SHARE = 12


def _models() -> Iterator[object]:
    others = [name for name in MODELS if name not in FAMILIES]
    sample = {*list(FAMILIES)[::4], *others[::_SHARE]}
    for name in MODELS:
        yield pytest.param(name, marks=() if name in sample else pytest.mark.slow)


def _record(name: str, found: dict[str, str]) -> None:
    stored = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    stored[name] = found
    order = {model: stored[model] for model in (*MODELS, *VARIED) if stored.get(model)}
    HASHES.write_text(json.dumps(order, indent=0, sort_keys=False) + "\n")


def _compare(name: str, layouts: Iterable[Layout], folder: Path) -> None:
    source = source_of(name)
    found = {layout.name: outcome(source, layout, folder / layout.name) for layout in layouts}
    written = {layout: hashed for layout, hashed in found.items() if hashed != "CheckpointError"}
    if "PATCHWORD_RECORD" in os.environ:
        _record(name, written)
    assert written == json.loads(HASHES.read_text()).get(name, {})


@pytest.mark.parametrize("name", list(_models()))
def test_each_format_writes_what_it_always_wrote(tmp_path: Path, name: str) -> None:
    _compare(name, LAYOUTS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_a_familys_formats_hold_no_more_than_they_did(tmp_path: Path, name: str) -> None:
    """One thing differs from a model that they hold: what their readers' code cannot build is refused."""
    held = json.loads(HASHES.read_text()).get(VARIED[name][0], {})
    _compare(name, [layout for layout in LAYOUTS if layout.name in held], tmp_path)


def test_every_format_writes_one_of_its_own_family() -> None:
    written = {layout for of_model in json.loads(HASHES.read_text()).values() for layout in of_model}
    assert written == {layout.name for layout in LAYOUTS}
