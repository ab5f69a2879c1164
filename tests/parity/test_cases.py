"""Every recorded checkpoint of the originals: its file is loaded, and must answer as the original did.

A case is known by its meta.json alone. One of each family is committed; PATCHWORD_CASES names
a folder with all of them.
"""

import pytest

from patchword.errors import UnknownLayout
from support.parity import Case, cases_in, differences, folders

CASES = cases_in(folders(), {"backbone"})
# Models that are refused by name, and the word that names them (docs/formats.md, docs/decisions).
REFUSED = {"samvit": "SAM's image encoder"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_file_answers_as_its_original_did(case: Case) -> None:
    if case.meta["family"] in REFUSED:
        with pytest.raises(UnknownLayout, match=REFUSED[case.meta["family"]]):
            case.load()
        return
    model = case.load()
    apart = differences(case, model)
    assert apart, "the case records nothing that this test knows"
    far = {name: value for name, value in apart.items() if value > case.meta["tolerance"]}
    assert not far, f"relative differences: {far}; {model.report}"
