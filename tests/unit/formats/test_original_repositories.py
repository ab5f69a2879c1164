"""Formats of the authors' own repositories: what tells them apart, what no tensor states, and what is refused by name."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from patchword.containers.stored import tensor_of
from patchword.errors import CheckpointError, UnknownLayout
from patchword.formats.facts import Options
from patchword.formats.read import Opened, open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.write import layouts_named, write_as
from support.parity import committed

HEADS = Options(num_heads=2)


def recorded(case: str, file: str, options: Options = HEADS) -> Opened:
    return open_foreign(committed() / case / file, options)


def state(opened: Opened) -> dict[str, Tensor]:
    return {name: tensor_of(entry) for name, entry in opened.checkpoint.tensors.items()}


def test_only_the_names_place_eva_clips_norms(tmp_path: Path) -> None:
    opened = recorded("eva_clip_small_enormous", "EVA02_CLIP_E_psz14_s4B.pt")
    assert opened.card.config.block.order == "res_post"
    torch.save(state(opened), tmp_path / "mine.pt")
    assert open_foreign(tmp_path / "mine.pt", HEADS).card.config.block.order == "pre"
    torch.save({"name": "EVA02-CLIP-bigE-14", "state_dict": state(opened)}, tmp_path / "mine.pt")
    assert open_foreign(tmp_path / "mine.pt", HEADS).card.config.block.order == "res_post"


def test_eva_clip_keeps_its_head_as_a_projection_and_drops_the_text_tower() -> None:
    opened = recorded("eva_clip_small_base", "EVA02_CLIP_B_psz16_s8B.pt")
    head = opened.card.config.head
    assert (head.projection, head.projection_bias, head.num_classes) == (6, True, 0)
    assert "the text tower" in {dropped.reason for dropped in opened.report.dropped}


def test_radio_joins_the_class_tokens_of_the_teachers_whose_summary_it_imitates(tmp_path: Path) -> None:
    opened = recorded("radio_small_training", "radio.pth.tar")
    assert opened.card.config.head.pool.tokens == (0, 2)  # type: ignore[union-attr]
    assert (
        recorded(
            "radio_small_training", "radio.pth.tar", Options(num_heads=2, pool="class")
        ).card.config.head.pool.kind
        == "class"
    )
    args = Namespace(teachers=[{"name": "clip"}, {"name": "clip"}, {"name": "sam"}, {"name": "dino"}])
    torch.save({"state_dict": state(opened), "args": args}, tmp_path / "radio.pth.tar")
    assert open_foreign(tmp_path / "radio.pth.tar", HEADS).card.config.head.pool.tokens == (0, 1, 2)  # type: ignore[union-attr]


def test_radio_takes_its_pixels_from_the_file() -> None:
    opened = recorded("radio_small_hub", "pytorch_model.bin")
    assert opened.card.preprocess.mean == pytest.approx((0.48, 0.45, 0.40))
    assert opened.card.preprocess.std == pytest.approx((0.26, 0.26, 0.27))


def test_a_last_norm_that_radios_code_removes_is_dropped_with_the_reason(tmp_path: Path) -> None:
    opened = recorded("radio_small_training", "radio.pth.tar")
    norm = {f"base_model.norm.{part}": torch.ones(8) for part in ("weight", "bias")}
    torch.save({"state_dict": state(opened) | norm, "args": Namespace(teachers=[])}, tmp_path / "a.pth.tar")
    found = open_foreign(tmp_path / "a.pth.tar", HEADS)
    assert found.card.config.head.norm == "none"
    assert any("leaves out" in dropped.reason for dropped in found.report.dropped)
    torch.save(
        {"state_dict": state(opened) | norm, "args": Namespace(model_norm=True)}, tmp_path / "b.pth.tar"
    )
    assert open_foreign(tmp_path / "b.pth.tar", HEADS).card.config.head.norm == "tokens"


@pytest.mark.parametrize("size", ["vit_small", "vit"])
def test_moco_is_written_as_its_linear_probe_saves_it(size: str, tmp_path: Path) -> None:
    opened = recorded("moco_small_linear", "linear-vit-s-300ep.pth.tar")
    source = Source(card=opened.card, tensors=read_tensors(opened))
    written = write_as(source, layouts_named("moco")[0], tmp_path / "moco.pth")
    tree = torch.load(written.path, weights_only=True)
    assert tree["arch"] == "vit" and all(name.startswith("module.") for name in tree["state_dict"])
    torch.save({**tree, "arch": size}, tmp_path / "again.pth")
    assert open_foreign(tmp_path / "again.pth", HEADS).layout.name == "moco"


def test_a_fine_tuned_mae_pytorch_needs_its_arguments(tmp_path: Path) -> None:
    opened = recorded(
        "mae_pytorch_small_finetuned", "checkpoint-99.pth", Options(num_heads=2, image_size=(16, 16))
    )
    assert opened.card.config.positions.kind == "sincos1d"
    torch.save({"model": state(opened)}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match="cls_token and pos_embed"):
        open_foreign(tmp_path / "bare.pth", HEADS)


def test_prithvi_reads_one_date_and_writes_the_others_back(tmp_path: Path) -> None:
    opened = recorded(
        "prithvi_small_dates", "Prithvi_EO_V2_dates.pt", Options(num_heads=2, image_size=(16, 16))
    )
    table = state(opened)["encoder.pos_embed"]
    assert table.shape[1] == 1 + 3 * 16 and opened.card.config.image.channels == 6
    assert torch.equal(read_tensors(opened)["positions.grid"].flatten(0, 1), table[0, 1:17])
    source = Source(
        card=opened.card,
        tensors=read_tensors(opened),
        layout=opened.layout,
        spelling=opened.description.spelling,
    )
    again = write_as(source, opened.layout, tmp_path / "prithvi.pt").reopened
    assert torch.equal(state(again)["encoder.pos_embed"], table)


PLAIN = {
    "patch_embed.proj.weight": torch.ones(768, 3, 2, 2),
    "cls_token": torch.ones(1, 1, 768),
    "blocks.0.norm1.weight": torch.ones(768),
}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"channel_cls_embed": torch.ones(1, 1, 256), "patch_embed.0.proj.weight": torch.ones(8, 4, 2, 2)},
            "SatMAE over groups of channels",
        ),
        (PLAIN | {"pos_embed": torch.ones(1, 5, 384)}, "SatMAE over several dates"),
        ({"base_model.blocks.0.attn.qkv.parametrizations.weight.original": torch.ones(8, 8)}, "factors"),
        (
            {
                "encoder.patch_embed.proj.weight": torch.ones(8, 3, 2, 4, 4),
                "encoder.cls_token": torch.ones(1, 1, 8),
            },
            "video",
        ),
    ],
)
def test_what_the_backbone_cannot_hold_is_refused_by_its_name(
    tensors: dict[str, Tensor], words: str, tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(UnknownLayout, match=words):
        open_foreign(tmp_path / "model.pth")
