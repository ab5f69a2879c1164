"""Every published full-size checkpoint, by the names and shapes of its tensors: all of them find a home.

The model is built on the `meta` device and the rules are carried out there. PATCHWORD_KEYS
names a folder of more such lists (without it, `keys` beside PATCHWORD_CASES); a few are committed.
"""

from pathlib import Path

import pytest

from patchword.errors import UnknownLayout
from support.keys import folders, lists_in, opened, refused, unmapped

KEYS = lists_in(folders())


@pytest.mark.parametrize("file", KEYS.values(), ids=KEYS.keys())
def test_every_tensor_finds_a_home(file: Path) -> None:
    if (said := refused(file)) is not None:
        with pytest.raises(UnknownLayout, match=said):
            opened(file)
        return
    found = opened(file)
    assert found.report.filled == 1 and not found.report.new
    assert not unmapped(found)
