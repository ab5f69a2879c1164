"""The backbone: what the papers say of it holds for every kind of part."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    MLPConfig,
    PatchConfig,
    ViTConfig,
)
from patchword.model.cost import cost
from patchword.model.kinds import (
    AttentionPool,
    BatchNormConfig,
    GroupNormConfig,
    MeanPool,
    NoPositions,
    RelativeBias,
)
from patchword.model.sizes import sized
from patchword.model.vit import PatchEmbed, ViT, cut_patches
from support.vit_configs import ALL, NO_CLASS, NORMS, POSITIONS, REGISTERS, tiny

kinds = pytest.mark.parametrize("config", ALL.values(), ids=list(ALL))


def build(config: ViTConfig, seed: int = 0, moved: float = 0.1) -> ViT:
    """In eval, with every parameter moved off its start, so that no zero hides a fault."""
    model = ViT(config, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * moved)
    return model.eval()


def images(config: ViTConfig, count: int = 2, seed: int = 2) -> Tensor:
    shape = count, config.image.channels, *config.image.size
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def test_the_patch_convolution_is_cutting_patches_and_one_product() -> None:
    """224 x 224 x 3 → 196 patches of 16 · 16 · 3 = 768 numbers; 197 with the class token."""
    config = sized("B/16")
    embed = PatchEmbed(config)
    x = torch.randn(1, 3, 224, 224)
    patches = cut_patches(x, (16, 16))
    assert patches.shape == (1, 196, 768)
    assert torch.equal(patches[0, 15].view(3, 16, 16), x[0, :, 16:32, 16:32])
    assert embed.proj.bias is not None
    product = patches @ embed.proj.weight.flatten(1).T + embed.proj.bias
    assert close(embed(x)[0], product)
    assert build(tiny(image=config.image, patch=config.patch, dim=768)).forward_features(x).shape == (
        1,
        197,
        768,
    )


@kinds
def test_the_model_has_the_parameters_that_the_arithmetic_says(config: ViTConfig) -> None:
    assert sum(p.numel() for p in ViT(config).parameters()) == cost(config).parameters


@kinds
def test_every_parameter_gets_a_gradient(config: ViTConfig) -> None:
    model = build(config).train()
    torch.manual_seed(0)
    model(images(config, 4)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


@kinds
def test_one_image_alone_answers_as_in_a_batch_of_64(config: ViTConfig) -> None:
    model, x = build(config), images(config, 64)
    with torch.inference_mode():
        assert close(model(x[:1]), model(x)[:1])


@kinds
def test_answering_for_the_pooled_tokens_alone_changes_nothing(config: ViTConfig) -> None:
    model, x = build(config), images(config)
    with torch.inference_mode():
        short = model(x), model.embed(x)
        model.blocks[-1].register_forward_hook(lambda *_: None)
        assert model._rows_needed() is None
        whole = model(x), model.embed(x)
    assert all(close(a, b, 1e-6) for a, b in zip(short, whole, strict=True))


@kinds
def test_any_image_size_is_answered(config: ViTConfig) -> None:
    model = build(config)
    with torch.inference_mode():
        for size in ((8, 6), (31, 47), (40, 12)):
            x = torch.randn(1, config.image.channels, *size)
            rows, columns = -(-size[0] // 8), -(-size[1] // 6)
            if config.patch.stem.kind != "none":
                rows, columns = config.grid_of(size)
            if config.patch.edge == "cut":
                rows, columns = size[0] // 8, size[1] // 6
            assert model(x).isfinite().all()
            tokens = model.forward_features(x)
            assert tokens.shape == (1, rows * columns + config.tokens.num_extra, config.dim)
            assert model.split(tokens, model.layout(x))["patches"].shape == (1, rows, columns, config.dim)


@kinds
def test_building_and_answering_on_meta_touches_no_memory(config: ViTConfig) -> None:
    with torch.device("meta"):
        model = ViT(config).eval()
        assert model(images(config).to("meta")).device.type == "meta"
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}


@kinds
def test_weights_go_into_a_model_built_on_meta(config: ViTConfig) -> None:
    model, x = build(config), images(config)
    with torch.device("meta"):
        empty = ViT(config).eval()
    empty.load_state_dict(model.state_dict(), assign=True)
    with torch.inference_mode():
        assert torch.equal(empty(x), model(x))


def test_no_pixel_is_lost_at_a_ragged_edge() -> None:
    model = build(tiny())
    x = torch.randn(1, 3, 17, 25)
    changed = x.clone()
    changed[..., -1, -1] += 10
    with torch.inference_mode():
        assert not close(model(x), model(changed), 1e-4)
        padded = torch.nn.functional.pad(x, (0, 5, 0, 7))
        assert torch.equal(model(x), model(padded))


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_without_positions_a_permutation_of_the_patches_cannot_be_told(pool: str) -> None:
    head = HeadConfig(num_classes=5) if pool == "class" else HeadConfig(pool=MeanPool(), num_classes=5)
    model = build(tiny(positions=NoPositions(), head=head))
    x = images(model.config)
    with torch.inference_mode():
        assert close(model(x), model(_permuted(x)), 1e-4)


@pytest.mark.parametrize("config", POSITIONS.values(), ids=list(POSITIONS))
def test_with_each_kind_of_positions_it_can(config: ViTConfig) -> None:
    model, x = build(config, moved=0.3), images(config)
    with torch.inference_mode():
        assert not close(model(x), model(_permuted(x)), 1e-3)


def _permuted(x: Tensor) -> Tensor:
    """The 2 x 4 patches of 8 x 6 pixels in another order."""
    order = torch.tensor([3, 0, 6, 5, 1, 7, 2, 4])
    patches = x.view(len(x), -1, 2, 8, 4, 6).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)[:, order]
    return patches.unflatten(1, (2, 4)).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


@kinds
def test_attention_maps_are_the_weights_that_the_fused_kernel_applies(config: ViTConfig) -> None:
    model, x = build(config), images(config)
    with torch.inference_mode():
        before = model(x)
        maps = model.attention_maps(x)
        assert torch.equal(model(x), before)
        assert list(maps) == [0, 1]
        count = config.num_tokens
        for index, weights in maps.items():
            assert weights.shape == (2, config.attention.num_heads, count, count)
            assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
            block, place = model.blocks[index], model.places(model.layout(x))[index]
            entered = _entering(model, x, index)
            _, _, v = block.attention._queries_keys_values(entered, place, None)
            by_hand = (weights @ v).transpose(1, 2).flatten(2)
            by_hand = block.attention.proj(block.attention.out_norm(by_hand))
            assert close(block.attention(entered, place), by_hand)


def test_asking_for_attention_maps_in_training_leaves_the_model_as_it_was() -> None:
    model = build(tiny(norm=BatchNormConfig(), block=BlockConfig(drop_path=0.5, dropout=0.5))).train()
    model.blocks[0].eval()  # frozen, say
    x, before = images(model.config), copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    maps = model.attention_maps(x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model.eval().attention_maps(x)[1], maps[1])


def _entering(model: ViT, x: Tensor, index: int) -> Tensor:
    """What the attention of block `index` is given."""
    seen: list[Tensor] = []
    hook = model.blocks[index].attention.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].clone())
    )
    model.forward_features(x)
    hook.remove()
    return seen[0]


def test_one_layer_and_some_heads_can_be_asked_for() -> None:
    model = build(tiny())
    x = images(model.config)
    maps = model.attention_maps(x, layers=[-1], heads=[2, 0])
    whole = model.attention_maps(x)
    assert list(maps) == [1] and torch.equal(maps[1], whole[1][:, [2, 0]])
    with pytest.raises(SettingsError, match="no layer 2"):
        model.attention_maps(x, layers=[2])


def test_drop_path_leaves_branches_out_in_training_and_is_off_in_eval() -> None:
    config = tiny(block=BlockConfig(drop_path=0.5))
    model, x = build(config), images(config, 16)
    torch.manual_seed(0)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    assert [block.drop_path1.rate for block in model.blocks] == [0.0, 0.5]


def test_drop_path_keeps_the_expectation() -> None:
    path = ViT(tiny(block=BlockConfig(drop_path=0.5))).blocks[1].drop_path2.train()
    torch.manual_seed(0)
    kept = path(torch.ones(4000, 1, 1)).flatten()
    assert set(kept.tolist()) == {0.0, 2.0} and abs(kept.mean() - 1) < 0.1


def test_the_same_generator_draws_the_same_weights() -> None:
    models = [ViT(tiny(), torch.Generator().manual_seed(7)).state_dict() for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.values() for m in models), strict=True))


def test_tokens_of_standardised_images_begin_with_variance_one() -> None:
    embed = ViT(sized("S/16")).patch_embed
    assert abs(embed(torch.randn(4, 3, 224, 224))[0].var() - 1) < 0.05


def test_queries_keys_and_values_are_drawn_each_for_itself() -> None:
    """Glorot and Bengio's uniform up to sqrt(6 / (inputs + outputs)), where outputs are those of one of the three."""
    config = tiny(dim=96, attention=AttentionConfig(num_heads=3), mlp=MLPConfig(hidden=48))
    block = ViT(config, torch.Generator().manual_seed(0)).blocks[0]
    for weight, bound in [
        *((part, (6 / 192) ** 0.5) for part in block.attention.qkv.weight.chunk(3)),
        (block.attention.proj.weight, (6 / 192) ** 0.5),
        (block.mlp.fc1.weight, (6 / 144) ** 0.5),
    ]:
        assert 0.98 * bound < weight.abs().max() <= bound
        assert abs(weight.std() / (bound / 3**0.5) - 1) < 0.05


def test_a_weight_that_nothing_draws_is_an_error() -> None:
    model = ViT(tiny())
    model.pool.table = torch.nn.Parameter(torch.empty(3))
    with pytest.raises(RuntimeError, match=r"does not initialise pool\.table"):
        model.init_weights()


def test_a_distilled_model_answers_the_mean_of_its_two_heads() -> None:
    model = build(ALL["distilled"])
    x = images(model.config)
    tokens = model.forward_features(x)
    by_head = {"class": model.head(tokens[:, 0]), "distillation": model.head_distillation(tokens[:, 1])}
    assert close(model(x), (by_head["class"] + by_head["distillation"]) / 2)
    assert all(close(logits, by_head[name]) for name, logits in model.logits_by_head(x).items())


@pytest.mark.parametrize("name", ["learned", "post norm", "CLIP", "joined, two blocks"])
def test_any_blocks_tokens_can_be_asked_for(name: str) -> None:
    model = build(ALL[name])
    x, seen = images(model.config), []
    hooks = [b.register_forward_hook(lambda _, __, out: seen.append(out)) for b in model.blocks]
    last = model.forward_features(x)
    for hook in hooks:
        hook.remove()
    assert all(torch.equal(t, s) for t, s in zip(model.encode(x, normed=False).values(), seen, strict=True))
    found = model.encode(x, layers=[-1, 0])
    assert list(found) == [1, 0]
    assert torch.equal(found[1], last) and torch.equal(found[0], model.norm(seen[0]))
    assert model.split(found[0], model.layout(x))["patches"].shape == (2, 2, 4, 24)
    with pytest.raises(SettingsError, match="no layer 2"):
        model.encode(x, layers=[2])


def test_tokens_are_named_and_ordered() -> None:
    model = build(tiny(tokens=REGISTERS))
    x = images(model.config)
    tokens = model.forward_features(x)
    parts = model.split(tokens, model.layout(x))
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "class": (2, 1, 24),
        "registers": (2, 2, 24),
        "patches": (2, 2, 4, 24),
    }
    assert model.num_prefix == 3 and close(model.embed(x), parts["class"][:, 0])


def test_images_of_other_channels_are_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="3 channels"):
        build(tiny())(torch.randn(1, 1, 16, 24))


def test_names_in_the_weights_file_stay_as_they_are() -> None:
    """They are in every file that was ever written: a change here is a change of format."""
    names = [n for n in ViT(tiny(tokens=REGISTERS)).state_dict() if not n.startswith("blocks.1.")]
    branch = ["norm1", "attention.qkv", "attention.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    assert names == [
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "prefix.class_token",
        "prefix.registers",
        "positions.grid",
        "positions.prefix",
        *(f"blocks.0.{part}.{kind}" for part in branch for kind in ("weight", "bias")),
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    ]


def test_names_of_the_rarer_parts_stay_as_they_are() -> None:
    rare = {
        name: set(ViT(ALL[name]).state_dict()) - set(ViT(tiny()).state_dict())
        for name in (
            "distilled",
            "qv bias",
            "relative_bias",
            "rope2d, stored",
            "rope2d_mixed",
            "layer scale",
        )
    }
    assert {"prefix.distillation_token", "head_distillation.weight"} <= rare["distilled"]
    assert {"blocks.0.attention.q_bias", "blocks.0.attention.v_bias"} <= rare["qv bias"]
    assert {"attention_positions.tables.0", "attention_positions.tables.1"} <= rare["relative_bias"]
    assert {"attention_positions.periods"} <= rare["rope2d, stored"]
    assert {"attention_positions.frequencies"} <= rare["rope2d_mixed"]
    assert {"blocks.0.scale1.weight", "blocks.1.scale2.weight"} <= rare["layer scale"]


@pytest.mark.parametrize("config", NORMS.values(), ids=list(NORMS))
def test_a_model_learns_with_each_norm(config: ViTConfig) -> None:
    model = ViT(config, torch.Generator().manual_seed(0)).train()
    x, labels = images(config, 8), torch.arange(8) % 5
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_part_of_no_known_kind_is_refused_when_the_config_is_made() -> None:
    """Built, it would be a model without that part, or a file that nothing reads back."""
    for parts in ({"positions": "learned"}, {"norm": HeadConfig()}, {"head": HeadConfig(pool="mean")}):  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match="not a known kind"):
            tiny(**parts)


def test_contradictions_are_refused_with_what_mends_them() -> None:
    with pytest.raises(SettingsError, match="class token") as caught:
        tiny(tokens=NO_CLASS)
    assert "mean" in caught.value.fix
    with pytest.raises(SettingsError, match="evenly among 5"):
        tiny(attention=AttentionConfig(num_heads=5))
    with pytest.raises(SettingsError, match="attention pool's hidden width, 30,"):
        tiny(
            norm=GroupNormConfig(num_groups=4),
            mlp=MLPConfig(hidden=40, inner_norm=True),
            head=HeadConfig(pool=AttentionPool(hidden=30), num_classes=5),
        )


def test_models_of_one_seed_share_the_initial_weights_of_the_parts_they_have_in_common() -> None:
    """Other positions, another pool or a deeper model shift no draw of the rest; another seed shifts all."""
    base = ViTConfig(image=ImageConfig(size=(16, 16)), patch=PatchConfig(size=(8, 8)), dim=32, depth=2,
                     attention=AttentionConfig(num_heads=2), head=HeadConfig(num_classes=3))  # fmt: skip
    others = [
        replace(base, positions=RelativeBias()),
        replace(base, depth=3),
        replace(base, patch=PatchConfig(size=(4, 4))),
        replace(base, head=HeadConfig(pool=AttentionPool(), num_classes=3)),
    ]
    first = ViT(base, torch.Generator().manual_seed(7)).state_dict()
    for config in others:
        tensors = ViT(config, torch.Generator().manual_seed(7)).state_dict()
        equal = [n for n in first if n in tensors and tensors[n].shape == first[n].shape]
        shared = [n for n in equal if not n.startswith("positions.")]
        assert any(name.startswith("blocks.1.") for name in shared) and "prefix.class_token" in shared
        assert all(torch.equal(first[name], tensors[name]) for name in shared)
    again = ViT(base, torch.Generator().manual_seed(8)).state_dict()
    assert not torch.equal(again["head.weight"], first["head.weight"])
    generator = torch.Generator().manual_seed(7)
    one, two = (ViT(base, generator).state_dict()["head.weight"] for _ in range(2))
    assert not torch.equal(one, two)  # a generator that goes on gives other weights
