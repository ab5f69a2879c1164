"""What is tuned: parameter groups, frozen parts, adapters."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.config import BlockConfig, MLPConfig
from patchword.model.kinds import BatchNormConfig
from patchword.model.lora import LoRALinear, add_lora, merge, merged_state
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.training.ema import AveragedWeights
from patchword.training.groups import layer_of, parameter_groups, table, table_lines, train_mode
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import OptimSettings
from patchword.training.optimiser import set_lr
from patchword.training.tune import Full, Head, Last, LayerDecay, LoRA, TuneSettings, parse_tune
from support.rich import RICH
from support.vit_configs import ALL, tiny

EACH: tuple[TuneSettings, ...] = (Full(), Head(), Last(blocks=1), LayerDecay(), LoRA(rank=2))


class Wrapped(nn.Module):
    """As a task holds its model: a decoder and a frozen teacher beside the backbone."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit, self.decoder, self.teacher = vit, nn.Linear(24, 3), nn.Linear(24, 3).requires_grad_(False)


def _vit(config: Any = RICH) -> ViT:
    return ViT(config, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", Full()),
        ("head", Head()),
        ("last:3", Last(blocks=3)),
        ("llrd", LayerDecay(decay=0.65)),
        ("llrd:0.75", LayerDecay(decay=0.75)),
        ("lora", LoRA()),
        ("LoRA:4", LoRA(rank=4, alpha=8)),
    ],
)
def test_each_form_is_read_and_written(text: str, expected: TuneSettings) -> None:
    assert parse_tune(text) == expected == parse_tune(expected.text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("heads", "did you mean 'head'"),
        ("auto", "there is no 'auto'"),
        ("last", "last:2"),
        ("last:0", "last:2"),
        ("llrd:2", "llrd:0.65"),
        ("lora:x", "lora:8"),
        ("head:1", "--tune head"),
    ],
)
def test_anything_else_is_refused_with_the_nearest_form(text: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_tune(text)
    assert named in str(refused.value) and len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("config", [*ALL.values(), RICH], ids=[*ALL, "rich"])
def test_every_parameter_is_in_exactly_one_group(config: Any) -> None:
    base = _vit(config)
    for tune in EACH:
        module = Wrapped(copy.deepcopy(base))
        groups = parameter_groups(module, OptimSettings(method="muon"), tune)
        held = [id(p) for group in groups for p in group.parameters]
        assert sorted(held) == sorted(id(p) for p in module.parameters()), tune
        assert sum(row.count for row in table(groups, 1.0)) == sum(p.numel() for p in module.parameters())
        assert all(p.requires_grad == g.trainable for g in groups for p in g.parameters)
        assert module.decoder.weight.requires_grad and not module.teacher.weight.requires_grad


def test_what_is_trained_is_what_was_asked_for() -> None:
    def learned(tune: TuneSettings) -> set[str]:
        vit = _vit()
        parameter_groups(vit, OptimSettings(), tune)
        return {name for name, p in vit.named_parameters() if p.requires_grad}

    every = {name for name, _ in _vit().named_parameters()}
    assert learned(Full()) == learned(LayerDecay()) == every
    assert learned(Head()) == {"head.weight", "head.bias"}
    assert learned(Last(blocks=1)) == {n for n in every if n.startswith(("blocks.1.", "norm.", "head."))}
    adapted = {n for n in learned(LoRA()) if not n.startswith("head.")}
    assert adapted and all(n.startswith("blocks.") and ".lora_" in n for n in adapted)


def test_rates_fall_by_layer_as_in_mae() -> None:
    assert [layer_of(n, 12) for n in ("patch_embed.proj.weight", "positions.grid", "prefix.class_token")] == [
        0
    ] * 3
    assert [layer_of(f"blocks.{i}.norm1.weight", 12) for i in (0, 11)] == [1, 12]
    assert [layer_of(n, 12) for n in ("vit.norm.weight", "head.bias", "pool.q.weight")] == [13] * 3
    assert layer_of("attention_positions.tables.3", 12) == 4
    optimiser = make_optimiser(
        vit := _vit(), OptimSettings(), parameter_groups(vit, OptimSettings(), LayerDecay(decay=0.5))
    )
    set_lr(optimiser, 8.0)
    rates = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    assert [rates[id(p)] for p in (vit.positions.grid, vit.blocks[0].mlp.fc1.bias)] == [1.0, 2.0]
    assert [rates[id(p)] for p in (vit.blocks[1].mlp.fc1.weight, vit.head.weight)] == [4.0, 8.0]


def test_the_table_of_a_large_model_fits_a_terminal() -> None:
    with torch.device("meta"):
        vit = ViT(sized("l/16", num_classes=1000))
    for tune in (Full(), LayerDecay(), Last(blocks=3), LoRA()):
        groups = parameter_groups(vit, OptimSettings(), tune)
        rows = table(groups, 1e-3)
        lines = table_lines(rows)
        assert len(rows) <= 12 and max(map(len, lines)) <= 80
        assert lines[-1].endswith(f"{sum(p.numel() for p in vit.parameters()):,}")
    assert any(row.name.startswith("LoRA, blocks 1 to 24") for row in rows)


def _saved_bytes(vit: ViT) -> int:
    saved: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in vit.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    kept = []
    train_mode(vit)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept.append(vit(torch.randn(4, 3, 16, 24)))
    return sum(saved.values())


def test_frozen_parts_store_no_activations() -> None:
    def of(depth: int, tune: TuneSettings) -> int:
        vit = _vit(tiny(depth=depth))
        parameter_groups(vit, OptimSettings(), tune)
        return _saved_bytes(vit)

    assert of(2, Head()) == of(6, Head()) < 4 * 24 * 4 + 500
    assert of(3, Last(blocks=2)) == of(6, Last(blocks=2)) < of(6, Full()) / 2


def test_frozen_blocks_drop_nothing_and_keep_their_running_averages() -> None:
    config = tiny(depth=3, norm=BatchNormConfig(), block=BlockConfig(drop_path=0.9, dropout=0.5))
    vit = _vit(config)
    parameter_groups(vit, OptimSettings(), Last(blocks=1))
    train_mode(vit)
    frozen = [*vit.blocks[0].modules(), *vit.blocks[1].modules(), vit.dropout]
    assert not any(m.training for m in frozen)
    assert vit.blocks[2].drop_path1.training and vit.norm.training
    before = vit.blocks[0].norm1.running_mean.clone()
    vit(torch.randn(4, 3, 16, 24))
    assert torch.equal(vit.blocks[0].norm1.running_mean, before)
    parameter_groups(vit, OptimSettings(), Full())
    train_mode(vit)
    assert all(m.training for m in vit.modules())


@pytest.mark.parametrize("name", ["rich", "qv bias", "sub-LN", "CLIP", "registers last"])
def test_adapters_start_at_the_base_and_merge_into_plain_weights(name: str) -> None:
    base = _vit(RICH if name == "rich" else ALL[name]).eval()
    vit = copy.deepcopy(base)
    add_lora(
        vit,
        rank=2,
        alpha=4,
        parts=("q", "v", "proj", "fc1", "fc2"),
        generator=torch.Generator().manual_seed(1),
    )
    images = torch.randn(3, 3, 16, 24)
    assert torch.equal(vit(images), base(images))
    for layer in (m for m in vit.modules() if isinstance(m, LoRALinear)):
        nn.init.normal_(layer.lora_b, std=0.5)
    adapted = vit(images).detach()
    assert (adapted - base(images)).norm() > 0.01 * adapted.norm()
    plain = copy.deepcopy(base)
    plain.load_state_dict(merged_state(vit), strict=True)
    assert (plain(images) - adapted).norm() < 1e-5 * adapted.norm()
    width = vit.blocks[0].attention.width
    keys = slice(width, 2 * width)
    assert torch.equal(
        plain.blocks[0].attention.qkv.weight[keys], base.blocks[0].attention.qkv.weight[keys]
    ), "keys have no adapter"
    merge(vit)
    assert vit.state_dict().keys() == base.state_dict().keys()
    assert (vit(images) - adapted).norm() < 1e-5 * adapted.norm()


def test_adapters_learn_and_the_base_does_not() -> None:
    vit = _vit()
    groups = parameter_groups(vit, OptimSettings(lr=0.1), LoRA(rank=2, dropout=0.1))
    optimiser = make_optimiser(vit, OptimSettings(lr=0.1), groups)
    before = {name: p.detach().clone() for name, p in vit.named_parameters()}
    average = AveragedWeights(vit, 0.9)
    for step in (1, 2):
        train_mode(vit)
        optimiser.zero_grad()
        vit(torch.randn(4, 3, 16, 24)).square().sum().backward()
        optimiser.step()
        average.update(step)
    moved = {name for name, p in vit.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {n for n in before if ".lora_" in n or n.startswith("head.")}
    assert merged_state(average.model).keys() == _vit().state_dict().keys()


def test_adapters_that_do_not_fit_are_refused() -> None:
    refused: list[tuple[nn.Module, TuneSettings, str]] = [
        (nn.Linear(2, 2), LoRA(), "no blocks"),
        (_vit(), LoRA(rank=25), "up to 24"),
        (_vit(), Last(blocks=3), "last:2"),
        (_vit(ALL["first, no class token"]), Head(), "no head"),
    ]
    for module, tune, named in refused:
        with pytest.raises(SettingsError) as error:
            parameter_groups(module, OptimSettings(), tune)
        assert named in str(error.value) and len(str(error.value).splitlines()) == 2
        assert not any(isinstance(m, LoRALinear) for m in module.modules())
    with pytest.raises(SettingsError, match="did you mean 'proj'"):
        LoRA(parts=("proja",))


def test_averages_share_what_is_frozen() -> None:
    vit = _vit(tiny(mlp=MLPConfig(hidden=40)))
    parameter_groups(vit, OptimSettings(), Head())
    average = AveragedWeights(vit, 0.5)
    assert average.model.blocks[0].mlp.fc1.weight is vit.blocks[0].mlp.fc1.weight
    nn.init.ones_(vit.head.weight)
    average.update(1000)
    assert average.model.head.weight is not vit.head.weight
    assert not torch.equal(average.model.head.weight, vit.head.weight)
    assert vit.head.weight.requires_grad
