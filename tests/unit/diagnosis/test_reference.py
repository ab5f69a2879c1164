"""The comparison with patchword's own ViT names what no invariant shows."""

import pytest
from torch import nn

import patchword as pw
from support.student_vits import CORRECT, StudentViT


def changed(eps: float = 1e-5, activation: nn.Module | None = None) -> StudentViT:
    model = StudentViT()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    for block in model.blocks:
        block.mlp[1] = activation or nn.GELU()
    return model


@pytest.mark.slow
def test_it_says_what_must_be_chosen_for_equal_layers() -> None:
    start = "compared with patchword's ViT with the same weights:"
    assert pw.diagnose(lambda: changed(1e-6)).compared == f"{start} equal in every layer"
    assert "with eps 1e-05 in the norms" in pw.diagnose(changed).compared
    found = pw.diagnose(lambda: changed(1e-6, nn.ReLU()))
    assert found.compared == f"{start} equal in every layer, with relu as activation (the paper: gelu)"
    assert "equal in every layer" in pw.diagnose(CORRECT["encoder"]).compared


@pytest.mark.slow
def test_it_names_the_first_layer_that_differs() -> None:
    found = pw.diagnose(lambda: changed(1e-6, nn.ELU()))
    assert found.compared.endswith("blocks.0.mlp is the first layer that differs")
    assert "blocks.0.attention is the first" in pw.diagnose(lambda: StudentViT("no scale")).compared
