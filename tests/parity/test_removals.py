"""Each tensor that a recorded file's model takes, removed by itself: the file is refused, or the tensor is explained here.

By names and shapes alone, over one case a family. The message names the tensor, by what stands after its tower's name.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from patchword.containers.stored import Stored, open_stored
from patchword.errors import CheckpointError
from patchword.formats.read import Opened, resolve
from support.parity import Case, cases_in, committed, options_of

CASES = [case for case in cases_in([committed()], {"backbone"}) if case.meta["family"] != "samvit"]
# What may be gone without a trace or without an effect, and why.
SPARED = {
    r".*relative_position_index|.*rope\.freqs_(cos|sin)": "computed from the grid",
    r".*mask_token": "stands for hidden patches in pre-training",
    r".*post_layernorm\.(weight|bias)": "CLIP's classifier does not read it",
    r"visual\.proj": "a tower by itself may have been cut before its projection",
    r"register_tokens": "lucidrains' SimpleViT without them is a file of the same names",
    r"(.*/)?cls": "big_vision's mean pool leaves no tensor",
    r"pos_embedding": "big_vision's sines leave no tensor",
    r"(image_encoder\.)?preprocessor\.pos_embed": "AIMv2 at native resolution computes sines and has no table",
    r"(radio_model\.)?summary_idxs": "RADIO's code computes it from the teachers in its arguments, which the file keeps",
}
TOWER = re.compile(
    r"(visual\.trunk\.|dinov2_with_registers\.|params/|img/|opt/target/|Transformer/(posembed_input/)?)+"
)


def without(stored: Stored, wrapper: str, name: str) -> Stored | None:
    """The file without the tensor of that name; None where its tensors lie deeper than in one wrapper."""
    tree = dict(stored.tree)
    inner = tree.get(wrapper)
    if isinstance(inner, Mapping) and name in inner:
        tree[wrapper] = {key: entry for key, entry in inner.items() if key != name}
    elif name in tree:
        del tree[name]
    else:
        return None
    return replace(stored, tree=tree)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_removed_tensor_is_missed(case: Case) -> None:
    options, stored = options_of(case.meta["hints"], case.folder), open_stored(case.path)
    whole: Opened = resolve(stored, options)
    wrapper = whole.checkpoint.wrapper.partition(":")[0]
    unnoticed, unnamed = [], []
    # Of parts that stand in every block, the first.
    first = {re.sub(r"\d+", "N", n, count=1): n for rule in whole.plan.rules[::-1] for n in rule.theirs}
    for name in first.values():
        torn = without(stored, wrapper, name)
        if torn is None:
            continue
        try:
            resolve(torn, options)
            unnoticed.append(name)
        except CheckpointError as error:
            if TOWER.sub("", name, count=1) not in str(error):
                unnamed.append(name)
    assert not [name for name in unnoticed if not any(re.fullmatch(spared, name) for spared in SPARED)]
    assert not unnamed


def test_a_torn_layer_may_be_left_out_whole_and_is_told() -> None:
    case = next(case for case in CASES if case.meta["family"] == "vit" and "transformers" in case.name)
    options, stored = options_of(case.meta["hints"], case.folder), open_stored(case.path)
    name = next(name for name in stored.tree if name.endswith("1.attention.attention.query.weight"))
    torn = without(stored, "", name)
    assert torn is not None
    with pytest.raises(CheckpointError, match=re.escape(f"lacks {name}")):
        resolve(torn, options)
    report = resolve(torn, replace(options, allow_partial=True)).report
    assert report.new == ("blocks.1.attention.qkv.weight",)
    assert any(len(part.names) == 2 and f"lacks {name}" in part.reason for part in report.dropped)
