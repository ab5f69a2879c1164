"""The model in words: the numbers of the paper, and a sentence for every kind of part."""

import json
import typing
from pathlib import Path

import pytest

from patchword.images.preprocess import Preprocess
from patchword.model import kinds
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.sizes import sized
from patchword.reports.html import write_report
from patchword.reports.model_facts import model_facts
from patchword.weights.card import CARD_KEY, ModelCard, Provenance, card_to_json
from support.run_folder import write_sample

SMALL = ViTConfig(
    image=ImageConfig(size=(64, 64)),
    patch=PatchConfig(size=(8, 8)),
    dim=96,
    depth=6,
    head=HeadConfig(num_classes=5),
)


def test_base_16_has_the_numbers_of_the_paper() -> None:
    facts = model_facts(sized("ViT-B/16"), None)
    assert (facts.grid, facts.patches, facts.pixels, facts.tokens) == ((14, 14), 196, 768, 197)
    assert facts.parameters == 86_567_656 and round(facts.gflops, 1) == 35.1
    assert not facts.padded and facts.prefix == "the class token"


def test_a_ragged_edge_is_said_to_be_filled() -> None:
    facts = model_facts(ViTConfig(image=ImageConfig(size=(60, 100)), patch=PatchConfig(size=(16, 8))), 3)
    assert facts.padded and facts.grid == (4, 13) and facts.config.head.num_classes == 3


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (TokensConfig(class_token=False), ""),
        (TokensConfig(num_registers=1), "the class token and 1 register"),
        (
            TokensConfig(distillation_token=True, num_registers=4),
            "the class token, the distillation token and 4 registers",
        ),
    ],
)
def test_tokens_that_are_no_patches_are_named(tokens: TokensConfig, words: str) -> None:
    head = HeadConfig(pool=kinds.MeanPool())
    assert model_facts(ViTConfig(tokens=tokens, head=head), None).prefix == words


@pytest.mark.parametrize("kind", typing.get_args(kinds.Positions), ids=lambda k: k.kind)
def test_every_kind_of_positions_has_its_sentence(kind: type) -> None:
    assert len(model_facts(ViTConfig(positions=kind()), None).positions) > 20


@pytest.mark.parametrize("kind", typing.get_args(kinds.Norm), ids=lambda k: k.kind)
def test_every_norm_says_what_it_averages(kind: type) -> None:
    assert "mean" in model_facts(ViTConfig(norm=kind()), None).norm


@pytest.mark.parametrize("kind", typing.get_args(kinds.Pool), ids=lambda k: k.kind)
def test_every_pool_has_its_words(kind: type) -> None:
    assert len(model_facts(ViTConfig(head=HeadConfig(pool=kind())), None).pool) > 10


def test_a_fine_grid_is_not_drawn_cell_by_cell() -> None:
    facts = model_facts(ViTConfig(image=ImageConfig(size=(1024, 1024)), patch=PatchConfig(size=(8, 8))), 2)
    assert facts.picture.count('class="cell"') == 1 and "16,385 tokens" in facts.picture


def test_the_weights_say_model_and_provenance(tmp_path: Path) -> None:
    write_sample(tmp_path, ["daisy", "dandelion", "roses", "sunflowers", "tulips"])
    told = Provenance(patchword="0.1.0", seed=7, recipe="small <photos>", facts={"torch": "2.15.0"})
    preprocess = Preprocess.simple((64, 64), 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    card = card_to_json(ModelCard(config=SMALL, preprocess=preprocess, provenance=told))
    header = json.dumps({"__metadata__": {CARD_KEY: card}}).encode()
    (tmp_path / "last.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<strong>64 patches of 8&#8201;×&#8201;8 pixels</strong>" in text
    assert "small &lt;photos&gt;" in text and "2.15.0" in text
    (tmp_path / "last.safetensors").write_bytes(b"cut off")
    assert "patches of" not in write_report(tmp_path).read_text(encoding="utf-8")


def test_the_settings_say_the_model_where_weights_are_not_there(tmp_path: Path) -> None:
    write_sample(tmp_path, ["daisy", "tulips"])
    with (tmp_path / "config.toml").open("a") as file:
        file.write("\n[model]\ndim = 64\n[model.attention]\nnum_heads = 4\n[model.patch]\nsize = [32, 32]\n")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<strong>49 patches of 32&#8201;×&#8201;32 pixels</strong>" in text and "outputs 2 scores" in text
