"""Every planted mistake is named, with its place; correct models of many kinds have no mistakes."""

from collections.abc import Callable

import pytest
from torch import nn

import patchword as pw
from patchword.diagnosis.findings import Diagnosis
from support.student_vits import CORRECT, ExamplesViT, StudentViT

# mistake: (letter of the probe, words of the title, the module). The probe that must name it, at least as a departure.
PLANTED: dict[str, tuple[str, str, str]] = {
    "image.view into patches": ("e", "", "embed"),
    "channels not moved": ("e", "only some channels", "embed"),
    "rows and columns mixed": ("e", "not square patches", "embed"),
    "height and width swapped": ("e", "height and width are swapped", "embed"),
    "convolution reshaped": ("e", "complete image", "embed"),
    "last rows lost": ("d", "do not reach the output", ""),
    "one channel only": ("e", "only some channels", "embed"),
    "heads split by view": ("f", "heads are split or joined", "blocks.0.attention"),
    "heads joined without transpose": ("f", "heads are split or joined", "blocks.0.attention"),
    "heads split and joined by view": ("f", "heads are split or joined", "blocks.0.attention"),
    "attention over heads": ("k", "over the heads", "blocks.0.attention"),
    "norm over tokens and channels": ("f", "norm averages over tokens", "blocks.0.norm1"),
    "softmax over queries": ("k", "over the queries", "blocks.0.attention"),
    "softmax over heads": ("k", "over the heads", "blocks.0.attention"),
    "softmax over the batch": ("a", "other images", "blocks.0.attention"),
    "no scale": ("k", "not scaled", "blocks.0.attention"),
    "scale by model width": ("k", "not scaled", "blocks.0.attention"),
    "scale by number of heads": ("k", "not scaled", "blocks.0.attention"),
    "scale by head width without root": ("k", "not scaled", "blocks.0.attention"),
    "scale the wrong way round": ("k", "not scaled", "blocks.0.attention"),
    "scale after softmax": ("k", "after the softmax", "blocks.0.attention"),
    "causal mask": ("k", "causal", "blocks.0.attention"),
    "keys instead of values": ("k", "values and keys", "blocks.0.attention"),
    "one matrix for q and k": ("k", "queries and keys", "blocks.0.attention"),
    "sequence first": ("a", "other images", "blocks.0.attention.attention"),
    "batch size in the tokens": ("a", "only with batches of 8", "cls"),
    "positions per image": ("a", "place of an image", "StudentViT"),
    "squeezed": ("a", "fails with batches of 1", ""),
    "batch averaged": ("a", "other images", "StudentViT"),
    "one position row": ("g", "no effect", "positions"),
    "positions by index": ("g", "no effect", "positions"),
    "positions never added": ("l", "never used", "positions"),
    "positions dropped": ("l", "never used", "positions"),
    "positions in a list": ("l", "not a parameter", "tables[0]"),
    "a parameter moved to a device": ("l", "on a GPU", "cls"),
    "class token drawn in forward": ("b", "random", "StudentViT"),
    "class token appended": ("h", "reads a patch token", ""),
    "class token never used": ("l", "never used", "cls"),
    "last token read": ("h", "reads a patch token", ""),
    "blocks in a list": ("l", "not registered", "blocks[0]"),
    "the same block everywhere": ("l", "the same block", "blocks"),
    "one block in a loop": ("l", "serves several places", "blocks.0"),
    "one norm for both places": ("l", "several names", "blocks.0.norm1"),
    "no residual around attention": ("i", "around attention", "blocks.0"),
    "no residual around the MLP": ("i", "around MLP", "blocks.0"),
    "residual after the norm": ("i", "after the norm", "blocks"),
    "no norm in the blocks": ("j", "no norm in the blocks", "blocks.0.attention.q"),
    "no norm before attention": ("j", "before attention", "blocks.0.attention.q"),
    "no norm before the MLP": ("j", "before the MLP", "blocks.0.mlp.0"),
    "no norm before the head": ("i", "no norm before the head", ""),
    "batch norm over tokens": ("c", "other images", "blocks.0.norm1.norm"),
    "no activation": ("m", "the MLP has two linear layers", "blocks.0.mlp"),
    "two linear layers as head": ("m", "the head has two linear layers", "head"),
    "softmax before the loss": ("m", "already a softmax", ""),
    "tanh at the output": ("m", "tanh", ""),
    "functional dropout": ("b", "random", "blocks.0"),
    "dropout as the share to keep": ("m", "drops 90 %", "blocks.0.mlp.2"),
    "frozen by accident": ("l", "frozen", "embed"),
    "output detached": ("l", "gradient is cut", "StudentViT"),
    "weights from N(0, 1)": ("m", "first loss is far above chance", ""),
}
# Not wrong in every family, so no more than notes.
NOTES = {"post-norm": ("i", "post-norm blocks"), "rows shifted": ("l", "never used")}
FAST = ("heads split and joined by view", "no residual around the MLP", "scale by model width")


def _titles(found: Diagnosis) -> list[str]:
    return [f"{f.level} {f.probe[0]} {f.title} ({f.module})" for f in found.findings]


def _named(found: Diagnosis, probe: str, title: str, module: str) -> bool:
    return any(
        f.probe[0] == probe and title in f.title and (not module or f.module == module)
        for f in (*found.mistakes, *found.departures)
    )


def _check(fault: str) -> None:
    found = pw.diagnose(lambda: StudentViT(fault))
    assert _named(found, *PLANTED[fault]), _titles(found)
    for finding in found.findings:
        assert finding.got and finding.expected and finding.cure and finding.learn and finding.did


@pytest.mark.parametrize("fault", FAST)
def test_a_planted_mistake_is_named(fault: str) -> None:
    _check(fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in PLANTED if fault not in FAST])
def test_each_planted_mistake_is_named(fault: str) -> None:
    _check(fault)


@pytest.mark.slow
@pytest.mark.parametrize("fault", NOTES)
def test_what_some_families_do_is_a_note(fault: str) -> None:
    found = pw.diagnose(lambda: StudentViT(fault))
    probe, title = NOTES[fault]
    assert any(f.probe[0] == probe and title in f.title for f in found.notes), _titles(found)
    assert not found.mistakes, _titles(found)


def test_the_well_known_example_is_told_that_it_ignores_the_image() -> None:
    found = pw.diagnose(ExamplesViT)
    assert found.findings[0].title == "the output does not depend on the image"
    expected = [
        ("a", "only with batches of 10", "class_token"),
        ("a", "other images", "layers.0.attention"),
        ("k", "never exchange information", "layers.0.attention"),
        ("g", "the same position", "position"),
        ("l", "serves several places", "layers.0.norm"),
        ("m", "two linear layers", "head"),
    ]
    missed = [e for e in expected if not _named(found, *e)]
    assert not missed, _titles(found)


def _silent(build: Callable[[], nn.Module]) -> None:
    found = pw.diagnose(build)
    assert not found.mistakes and not found.departures and not found.skipped, (
        _titles(found),
        found.skipped,
    )


@pytest.mark.parametrize("name", ["plain", "pairs, mean, fused"])
def test_a_correct_model_has_no_mistakes(name: str) -> None:
    _silent(CORRECT[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CORRECT if name not in ("plain", "pairs, mean, fused")])
def test_correct_models_have_no_mistakes(name: str) -> None:
    _silent(CORRECT[name])


def test_the_callers_module_and_generator_stay_as_they_were() -> None:
    import torch

    module = StudentViT()
    module.train()
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    pw.diagnose(module)
    assert torch.equal(torch.rand(2), expected) and module.training
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in module.parameters())
