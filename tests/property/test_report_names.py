"""No name, whatever its characters, changes anything of the report but its text."""

import functools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.reports.html import write_report
from support.page import Page
from support.run_folder import write_sample

# Characters that mean something to HTML, templates, style sheets or scripts, and all of Unicode, surrogates too.
NAMES = st.lists(
    st.one_of(st.text(alphabet="<>&\"'`{}%#=/!-*\\\n\0 ab", max_size=20), st.text(max_size=20)),
    min_size=2,
    max_size=4,
    unique=True,
)


@functools.cache
def _plain_page(number: int) -> Page:
    return _page([f"class {i}" for i in range(number)])


def _page(names: list[str]) -> Page:
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder), names, epochs=1)
        return Page(write_report(folder).read_text(encoding="utf-8").replace(folder, "RUN"))


@settings(max_examples=25)
@given(NAMES)
def test_names_change_only_the_text(names: list[str]) -> None:
    page, plain = _page(names), _plain_page(len(names))
    assert page.elements == plain.elements
    assert sorted(name for name, _ in page.attributes) == sorted(name for name, _ in plain.attributes)
