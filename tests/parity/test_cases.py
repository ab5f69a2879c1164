"""Every recorded checkpoint of the originals: its file is loaded, and must answer as the original did.

A case is known by its meta.json alone. One of each family is committed; PATCHWORD_CASES names
a folder with all of them.
"""

import os
from pathlib import Path

import pytest
import torch

from patchword.errors import UnknownLayout
from support.parity import Case, answers, cases_in, difference

COMMITTED = Path(__file__).parents[1] / "data" / "parity" / "cases"
FOLDERS = [COMMITTED] + [Path(named) for named in [os.environ.get("PATCHWORD_CASES")] if named]
CASES = cases_in(FOLDERS, {"backbone"})
# What an original records beside the names that have one meaning everywhere, for finding faults.
MORE = {
    "rope_sin",
    "rope_cos",
    "patches",
}
# Models that are refused by name, and the word that names them (docs/formats.md, docs/decisions).
REFUSED = {"samvit": "SAM's image encoder"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_file_answers_as_its_original_did(case: Case) -> None:
    if case.meta["family"] in REFUSED:
        with pytest.raises(UnknownLayout, match=REFUSED[case.meta["family"]]):
            case.load()
        return
    arrays = case.arrays()
    model = case.load()
    apart = "head_input" in case.meta["outputs"]
    ours = answers(model, torch.from_numpy(arrays["image"]), recorded_apart=apart)
    if "logits_dist" in case.meta["outputs"] and "logits_cls" not in case.meta["outputs"]:
        # Recorded here: each head alone. The originals (timm, transformers) answer with their mean (tests/peers).
        ours["logits"] = ours["logits_cls"]
    compared = [name for name in case.meta["outputs"] if name not in MORE]
    assert compared, "the case records nothing that this test knows"
    far = {
        name: difference(ours[name], arrays[name])
        for name in compared
        if name not in ours or difference(ours[name], arrays[name]) > case.meta["tolerance"]
    }
    assert not far, f"relative differences: {far}; {model.report}"
