"""A user's own file: what stands next to the backbone, and facts that no file states; and files that are no ViT."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import patchword as pw
from patchword.cli.inspect import inspect
from patchword.errors import CheckpointError, UnknownLayout
from patchword.formats.facts import Options
from patchword.formats.layout import Description
from patchword.formats.layouts.plain import DeiT
from patchword.formats.layouts.torchvision import TorchvisionViT
from patchword.formats.read import Opened, open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.write import written_tensors
from patchword.images.preprocess import Preprocess
from patchword.model.config import HeadConfig, ImageConfig, PatchConfig, TokensConfig, ViTConfig
from patchword.model.kinds import ClassPool
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from support.vit_configs import tiny

SIDE = {"image": ImageConfig(size=(32, 32)), "patch": PatchConfig(size=(8, 8))}


def state(config: ViTConfig, layout: type[DeiT | TorchvisionViT] = DeiT, seed: int = 0) -> dict[str, Tensor]:
    card = ModelCard(config=config, preprocess=Preprocess.simple(config.image.size))
    spelled = layout().spelling(card)
    described = Description(config=config, preprocess=card.preprocess, spelling=spelled)
    vit = ViT(config, torch.Generator().manual_seed(seed))
    return written_tensors(layout(), described, vit.state_dict())


WITH_HEAD = state(tiny(**SIDE))
BARE = state(tiny(**SIDE, head=HeadConfig(num_classes=0)))


def below(word: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{word}.{name}": tensor for name, tensor in tensors.items()}


def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(rows, columns), f"{name}.bias": torch.ones(rows)}


def opened(folder: Path, tree: object, name: str = "mine.ckpt", **options: object) -> Opened:
    torch.save(tree, folder / name)
    return open_foreign(folder / name, Options(num_heads=3, **options))  # type: ignore[arg-type]


SIBLINGS = {
    "temperature": {"temperature": torch.zeros(())},
    "projector": {**linear("projector.0", 8, 24), **linear("projector.2", 8, 8)},
    "EMA copy": below("ema", BARE),
    "text tower": {f"text.layer.{i}.query.weight": torch.ones(4, 4) for i in range(3)},
    "LoRA": {"lora_A.weight": torch.ones(2, 24)},
}


@pytest.mark.parametrize("kind", SIBLINGS)
def test_below_and_drop_read_a_backbone_next_to_any_sibling_and_list_what_is_left_out(
    kind: str, tmp_path: Path
) -> None:
    tree = {"state_dict": below("net", BARE) | SIBLINGS[kind]}
    with pytest.raises(UnknownLayout, match=r"--below net|--drop"):
        opened(tmp_path, tree)
    words = sorted({name.partition(".")[0] for name in SIBLINGS[kind]})
    for options in ({"below": "net."}, {"drop": tuple(words)}):
        found = opened(tmp_path, tree, **options)
        assert torch.equal(read_tensors(found)["norm.weight"], BARE["norm.weight"])
        assert {n for d in found.report.dropped for n in d.names} == set(SIBLINGS[kind])


def test_below_reaches_what_a_training_file_holds_next_to_the_weights_that_are_taken(tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in BARE.items()}
    found = opened(tmp_path, {"model": BARE, "shadow": {"net": other}}, below="shadow.net")
    assert torch.equal(read_tensors(found)["norm.weight"], BARE["norm.weight"] + 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"drop": ("haed.*",)}, "matches none"), ({"below": "modle"}, "did you mean 'model'")],
)
def test_a_prefix_or_pattern_that_fits_nothing_is_an_error(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path, below("model", BARE), **options)


@pytest.mark.parametrize(
    "metric", ["train_acc.tp", "val_accuracy.total", "loss_fn.weight", "metrics.f1.confmat", "n_averaged"]
)
def test_metrics_of_trainers_are_left_out_unasked_and_listed(metric: str, tmp_path: Path) -> None:
    found = opened(tmp_path, {"state_dict": below("model", WITH_HEAD) | {metric: torch.zeros(5)}})
    assert found.card.config.head.num_classes == 5
    listed = [n for d in found.report.dropped for n in d.names]
    assert listed == [metric] or metric == "n_averaged"


@pytest.mark.parametrize("name", ["head.1", "fc", "classifier.1", "my_output", "head.fc"])
@pytest.mark.parametrize("word", ["", "backbone"])
def test_a_linear_head_is_read_under_any_name(name: str, word: str, tmp_path: Path) -> None:
    tree = (below(word, BARE) if word else BARE) | linear(name, 5, 24)
    found = opened(tmp_path, tree)
    assert found.card.config.head.num_classes == 5 and read_tensors(found)["head.weight"].eq(1).all()
    assert any(f"{name}.weight" in note for note in found.report.notes)


@pytest.mark.parametrize("extra", [linear("projector", 5, 24), linear("a", 5, 24) | linear("b", 7, 24)])
def test_a_layer_that_may_be_no_head_is_not_taken_for_one(extra: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(UnknownLayout):
        opened(tmp_path, BARE | extra)


def test_torchvisions_average_is_taken_as_its_script_evaluates_it(tmp_path: Path) -> None:
    last, average = (state(tiny(**SIDE), TorchvisionViT, seed) for seed in (0, 1))
    tree = {"model": last, "model_ema": {"n_averaged": torch.tensor(9), **below("module", average)}}
    found = opened(tmp_path, tree)
    assert torch.equal(read_tensors(found)["head.weight"], average["heads.head.weight"])
    assert any("torchvision's script" in note for note in found.report.notes)


@pytest.mark.parametrize("name", ["linear-vit-s-300ep.pth.tar", "checkpoint.pth.tar"])
def test_moco_v3_has_twelve_heads(name: str, tmp_path: Path) -> None:
    config = tiny(**SIDE, dim=384, depth=1)
    torch.save(
        {"arch": "vit_small", "epoch": 9, "state_dict": below("module", state(config))}, tmp_path / name
    )
    found = open_foreign(tmp_path / name)
    assert found.card.config.attention.num_heads == 12
    assert any("num_heads 12 is inferred" in note and "MoCo v3" in note for note in found.report.notes)


def test_what_is_inferred_from_the_width_is_noted_and_what_is_said_is_not(tmp_path: Path) -> None:
    torch.save(state(tiny(**SIDE, dim=192, depth=1)), tmp_path / "mine.pth")
    notes = open_foreign(tmp_path / "mine.pth").report.notes
    assert any("num_heads 3 is inferred from the width 192" in note for note in notes)
    said = open_foreign(tmp_path / "mine.pth", Options(num_heads=3)).report.notes
    assert not any("num_heads" in note for note in said)


def test_a_distilled_model_without_head_answers_by_the_mean_of_both_tokens(tmp_path: Path) -> None:
    head = HeadConfig(pool=ClassPool(), num_classes=0, distilled=True)
    config = tiny(**SIDE, tokens=TokensConfig(distillation_token=True), head=head)
    torch.save({"model": state(config)}, tmp_path / "mine.pth")
    model = pw.load(tmp_path / "mine.pth", num_heads=3, device="cpu")
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = model.vit.forward_features(images)
        assert torch.allclose(model.vit(images), tokens[:, :2].mean(1), atol=1e-6)


def test_a_gate_under_a_config_that_names_none_is_read_as_silu_and_noted(tmp_path: Path) -> None:
    from patchword.formats.layouts.timm import Timm
    from patchword.formats.write import write_as
    from patchword.model.config import MLPConfig

    config = tiny(**SIDE, mlp=MLPConfig(hidden=40, gated=True, activation="silu"))
    card = ModelCard(config=config, preprocess=Preprocess.simple((32, 32)))
    write_as(Source(card=card, tensors=ViT(config).state_dict()), Timm(), tmp_path / "out")
    words = json.loads((tmp_path / "out/config.json").read_text())
    words["model_args"].pop("act_layer")
    words["architecture"] = "vit_huge_patch14_224"  # as Virchow's: its class is none that JSON can name
    (tmp_path / "out/config.json").write_text(json.dumps(words))
    found = open_foreign(tmp_path / "out")
    assert found.card.config.mlp.activation == "silu"
    assert any("act silu is inferred" in note for note in found.report.notes)


# Files that are no ViT --------------------------------------------------------------------

OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "resnet": ({"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 1, 1), "fc.weight": (9, 64)}, "ResNet"),
    "convnext": ({"stem.0.weight": (8, 3, 4, 4), "stages.0.blocks.0.conv_dw.weight": (8, 1, 7, 7)}, "ConvNeXt"),
    "swin": ({"layers.0.blocks.0.attn.relative_position_bias_table": (169, 3), "patch_embed.proj.weight": (9, 3, 4, 4)}, "Swin"),
    "bert": ({"bert.embeddings.word_embeddings.weight": (9, 8), "bert.encoder.layer.0.attention.self.query.weight": (8, 8)}, "BERT"),
    "yolo": ({"model.0.conv.weight": (16, 3, 3, 3), "model.2.cv1.conv.weight": (9, 9, 1, 1)}, "YOLO"),
    "unet": ({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3), "up_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "U-Net"),
    "mmpretrain": ({f"backbone.layers.{i}.{n}": (8, 8) for i in range(2) for n in ("attn.relative_position_bias_table", "ffn.layers.0.0.weight")}, "mmpretrain"),
    "video": ({"patch_embed.proj.weight": (48, 6, 1, 16, 16), "blocks.0.norm1.weight": (48,)}, "span time"),
    "yolos": ({"backbone.det_token": (1, 9, 8), "backbone.blocks.0.norm1.weight": (8,), "class_embed.layers.0.weight": (8, 8)}, "YOLOS"),
    "ours": ({"patch_embed.proj.weight": (8, 3, 4, 4), "blocks.0.attention.qkv.weight": (24, 8), "blocks.0.mlp.fc1.weight": (8, 8)}, "without its card"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_that_is_not_read_is_named_and_not_called_incomplete(kind: str, tmp_path: Path) -> None:
    shapes, words = OTHERS[kind]
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "m.pth")
    with pytest.raises(UnknownLayout, match=words) as refused:
        open_foreign(tmp_path / "m.pth")
    assert "whole file" not in str(refused.value) and "lacks" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.onnx", b"\x08\x08\x12\x07pytorch" + bytes(50), "ONNX"),
        ("model.xml", b'<?xml version="1.0"?><net name="vit"/>', "OpenVINO"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite"),
        ("m.msgpack", b"\x81\xa6params\x82\xa4head" + bytes(50), "Flax"),
        ("m.gguf", b"GGUF" + bytes(50), "GGUF"),
        ("m.mlmodel", b"\x08\x04\x12\x10" + bytes(50), "Core ML"),
        ("orbax/manifest.ocdbt", b"\x0c\xdb", "Orbax"),
        ("saved/saved_model.pb", b"\x08\x01\x12\x80", "SavedModel"),
        ("tf/m.data-00000-of-00001", bytes(9), "TensorFlow checkpoint"),
        ("paddle/m.pdparams", b"\x80\x02}", "Paddle"),
        ("adapter/adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "org/vit"}', "LORA adapter of org/vit"),
    ],
)  # fmt: skip
def test_a_container_of_another_framework_is_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    if name.startswith("adapter"):
        torch.save({"base_model.model.q.lora_A.weight": torch.zeros(2, 8)}, path.parent / "adapter_model.bin")
    said = CliRunner().invoke(inspect, [str(path if path.parent == tmp_path else path.parent)])
    assert isinstance(said.exception, CheckpointError) and words in said.exception.message
