"""The methods against references in float64 with attention written out, and against what they promise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from patchword.errors import SettingsError
from patchword.explaining.distance import attention_distance, uniform_distance
from patchword.explaining.methods.outliers import CUT
from patchword.explaining.methods.record import recorded
from patchword.explaining.methods.table import METHODS, maps_by_name
from patchword.explaining.methods.value_norm import moved, row_scale
from patchword.explaining.settings import MethodSettings
from patchword.model.config import AttentionConfig, BlockConfig, HeadConfig, TokensConfig, ViTConfig
from patchword.model.kinds import AttentionPool, JoinedPool, MaxPool, MeanPool, RelativeBias, Rope2d
from patchword.model.vit import ViT
from support.photos import photos
from support.planted import coloured, hand_set
from support.vit_configs import NO_CLASS, REGISTERS, tiny

AWARE = [name for name, method in METHODS.items() if method.class_aware]
FREE = [name for name, method in METHODS.items() if not method.class_aware]
MEAN = HeadConfig(num_classes=5, pool=MeanPool())
MODELS = {
    "class token": tiny(depth=3),
    "mean pool": tiny(depth=3, tokens=NO_CLASS, head=MEAN),
    "registers": tiny(depth=3, tokens=REGISTERS),
    "registers last": tiny(depth=3, tokens=TokensConfig(num_registers=2, registers_last=True), head=MEAN),
    "rope": tiny(depth=3, positions=Rope2d()),
    "relative bias": tiny(depth=3, positions=RelativeBias()),
    "query norm": tiny(depth=3, attention=AttentionConfig(num_heads=3, qk_norm="layer")),
    "attention pool": tiny(depth=3, tokens=NO_CLASS, head=HeadConfig(num_classes=5, pool=AttentionPool())),
    "joined": tiny(depth=3, head=HeadConfig(num_classes=5, pool=JoinedPool(class_layers=2))),
    "layer scale": tiny(depth=3, block=BlockConfig(layer_scale=0.3)),
}


def build(config: ViTConfig, seed: int = 0) -> ViT:
    """In float64, with weights large enough that attention and answers differ between images."""
    vit = ViT(config, torch.Generator().manual_seed(seed)).double().eval()
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if "norm" not in name:
                parameter.mul_(3)
    return vit


def some(config: ViTConfig, count: int = 8) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *config.image.size, generator=draws, dtype=torch.float64)


def written_out(vit: ViT, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and the attention weights of all blocks, pool last, as tensors of the graph that carry gradients."""
    config, weights = vit.config, []
    x, layout = vit.embed_tokens(images)
    layers = []
    for block, place in zip(vit.blocks, vit.places(layout), strict=True):
        x = place.enter(x)
        attention = block.attention
        q, k, v = (
            attention.qkv(block.norm1(x))
            .view(*x.shape[:2], 3, attention.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        q, k = place.turn(attention.q_norm(q)), place.turn(attention.k_norm(k))
        scores = q @ k.transpose(2, 3) / attention.head_dim**0.5
        weights.append((scores if place.bias is None else scores + place.bias).softmax(3))
        x = x + block.scale1(attention.proj((weights[-1] @ v).transpose(1, 2).flatten(2)))
        x = x + block.scale2(block.mlp(block.norm2(x)))
        layers.append(vit.norm(x))
    if isinstance(config.head.pool, AttentionPool):
        pool, tokens = vit.pool, layout.select(layers[-1], "patches")
        q = pool.q(pool.probe).view(1, pool.num_heads, 1, -1)
        k, v = pool.kv(tokens).view(*tokens.shape[:2], 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights.append((q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3))
        y = pool.proj((weights[-1] @ v).flatten(1))
        return vit.head(y + pool.mlp(pool.norm(y))), weights
    reads = config.head.pool.layers(config.depth)
    return vit.head(vit.pooled([layers[i] for i in reads], layout)), weights


def read_by_hand(vit: ViT, matrices: list[torch.Tensor], first: torch.Tensor | None = None) -> torch.Tensor:
    """The rows of M_L … M_1 that the head reads, [B, N]; matrices [B, N, N] of the blocks. first: of an attention pool."""
    pool, front = vit.config.head.pool, vit.config.tokens.num_prefix
    size = matrices[0].shape[1]
    patches = slice(front, front + vit.config.grid_size[0] * vit.config.grid_size[1])
    products = [torch.eye(size, dtype=torch.float64)]
    for matrix in matrices:
        products.append(matrix @ products[-1])
    if first is not None:
        row = torch.zeros(len(first), 1, size, dtype=torch.float64)
        row[:, 0, patches] = first
        return (row @ products[-1])[:, 0]
    if isinstance(pool, JoinedPool):
        parts = [products[-2][:, 0], products[-1][:, 0], products[-1][:, patches].mean(1)]
        return sum(parts) / 3  # type: ignore[return-value]
    return products[-1][:, 0] if vit.config.head.pool.reads_first else products[-1][:, patches].mean(1)


def on_patches(vit: ViT, row: torch.Tensor) -> torch.Tensor:
    front = vit.config.tokens.num_prefix
    down, across = vit.config.grid_size
    return row[:, front : front + down * across].view(-1, down, across)


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
@pytest.mark.parametrize("name", MODELS)
def test_rollout_equals_a_product_of_matrices(name: str, fuse: Any) -> None:
    vit = build(MODELS[name])
    images = some(vit.config, 3)
    with torch.no_grad():
        _, weights = written_out(vit, images)
    for discard in (0.0, 0.9):
        matrices = []
        for each in weights[: vit.config.depth]:
            joined = {"mean": each.mean(1), "max": each.amax(1), "min": each.amin(1)}[fuse].clone()
            for matrix in joined:
                dropped = matrix.flatten().argsort()[: int(matrix.numel() * discard)]
                matrix.view(-1)[dropped] = 0
            joined += torch.eye(joined.shape[1], dtype=torch.float64)
            matrices.append(joined / joined.sum(2, keepdim=True))
        first = weights[-1].mean(1)[:, 0] if name == "attention pool" else None
        row = read_by_hand(vit, matrices, first)
        [maps] = maps_by_name("rollout", vit, images, settings=MethodSettings(fuse=fuse, discard=discard))
        torch.testing.assert_close(maps.values, on_patches(vit, row), atol=1e-9, rtol=1e-9)
        # All tokens together hold everything.
        held = maps.values.sum((1, 2)) + sum(share for share in maps.elsewhere.values())
        torch.testing.assert_close(held, torch.ones_like(held))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_relevance_equals_autograd_through_attention_written_out(name: str, start: int) -> None:
    vit = build(MODELS[name])
    images = some(vit.config, 3)
    logits, weights = written_out(vit, images)
    classes = torch.tensor([0, 3, 4])
    torch.testing.assert_close(logits, vit(images))
    grads = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), weights)
    steps = [(a * g).clamp(min=0).mean(1).detach() for a, g in zip(weights, grads, strict=True)]
    matrices = [
        torch.eye(step.shape[1], dtype=torch.float64) + (step if block >= start else 0 * step)
        for block, step in enumerate(steps[: vit.config.depth])
    ]
    row = read_by_hand(vit, matrices, steps[-1][:, 0] if name == "attention pool" else None)
    [maps] = maps_by_name("relevance", vit, images, classes, MethodSettings(start=start))
    torch.testing.assert_close(maps.values, on_patches(vit, row), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("name", ["class token", "mean pool", "attention pool", "rope"])
def test_integrated_relevance_is_relevance_by_the_mean_gradient_on_the_way(name: str) -> None:
    vit = build(MODELS[name])
    images, classes = some(vit.config, 2), torch.tensor([0, 3])
    places, shares = np.polynomial.legendre.leggauss(3)
    _, weights = written_out(vit, images)
    steps = [torch.zeros_like(a) for a in weights]
    for place, share in zip(places, shares, strict=True):
        logits, on_the_way = written_out(vit, images * (place + 1) / 2)
        grads = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), on_the_way)
        steps = [step + grad * share / 2 for step, grad in zip(steps, grads, strict=True)]
    steps = [(a * step).clamp(min=0).mean(1).detach() for a, step in zip(weights, steps, strict=True)]
    matrices = [torch.eye(step.shape[1], dtype=torch.float64) + step for step in steps[: vit.config.depth]]
    row = read_by_hand(vit, matrices, steps[-1][:, 0] if name == "attention pool" else None)
    [maps] = maps_by_name("integrated-relevance", vit, images, classes, MethodSettings(steps=3))
    torch.testing.assert_close(maps.values, on_patches(vit, row), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_attention_shows_the_softmax_of_each_block_and_head(name: str) -> None:
    vit = build(MODELS[name])
    images = some(vit.config, 2)
    with torch.no_grad():
        _, weights = written_out(vit, images)
    found = maps_by_name("attention", vit, images, settings=MethodSettings(layers=(0, -1), heads="all"))
    assert [maps.label for maps in found[::3]] == ["attention, block 0, head 0", "attention, block 2, head 0"]
    eye = torch.eye(weights[0].shape[3], dtype=torch.float64)[None]
    if name == "attention pool":
        rows = read_by_hand(vit, [eye], weights[-1].mean(1)[:, 0])
        [own] = maps_by_name("attention", vit, images)
        torch.testing.assert_close(own.values, on_patches(vit, rows))
    elif name == "joined":
        # The last block is read by the class token and by the mean; the one before it by the class token alone.
        rows = read_by_hand(vit, [eye, eye]) * 3 / 2 - eye[:, 0] / 2
    else:
        rows = read_by_hand(vit, [eye])
    for maps, (block, head) in zip(found, [(b, h) for b in (0, 2) for h in range(3)], strict=True):
        row = (rows[:, None] @ weights[block][:, head])[:, 0]
        torch.testing.assert_close(maps.values, on_patches(vit, row.expand(len(images), -1)))


def test_the_answer_is_bit_equal_and_prefix_tokens_are_named() -> None:
    vit = build(tiny(tokens=REGISTERS)).float()
    images = some(vit.config).float()
    with torch.inference_mode():
        assert torch.equal(recorded(vit, images).answer, vit(images))
    [maps] = maps_by_name("attention", vit, images)
    assert maps.elsewhere.keys() == {"class", "registers"}
    held = maps.values.sum((1, 2)) + sum(maps.elsewhere.values())
    torch.testing.assert_close(held, torch.ones(8))


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_equals_single_images(name: str) -> None:
    vit = build(tiny(tokens=REGISTERS))
    images, classes = some(vit.config), torch.arange(8) % 5
    settings = MethodSettings(steps=4)
    fitted = maps_by_name(name, vit, images, classes, settings)[0].values
    for index in (0, 7) if name != "pca" else ():
        one = maps_by_name(name, vit, images[index : index + 1], classes[index : index + 1], settings)[0]
        torch.testing.assert_close(one.values[0], fitted[index])
    assert fitted.shape[:3] == (8, *vit.config.grid_size)


def test_integrated_gradients_add_up_to_the_change_of_the_logit() -> None:
    vit = ViT(tiny(), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        vit.positions.grid.mul_(25)  # as large as patches, as after training
    pixels = torch.from_numpy(photos()[:4, :16, :24].copy()).float().permute(0, 3, 1, 2) / 128 - 1
    classes = vit(pixels).argmax(1)
    for fill in ("mean", "blur"):
        [maps] = maps_by_name("integrated-gradients", vit, pixels, classes, MethodSettings(fill=fill))
        difference = maps.facts["difference"].abs()
        assert ((maps.facts["sum"] - maps.facts["difference"]).abs() <= 0.01 * difference + 1e-5).all()
        assert difference.max() > 1e-3
        torch.testing.assert_close(maps.values.sum((1, 2)), maps.facts["sum"], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("out_norm", [False, True])
def test_value_norm_vectors_add_up_to_the_output_of_attention(out_norm: bool) -> None:
    vit = build(
        tiny(
            tokens=REGISTERS,
            block=BlockConfig(layer_scale=0.3),
            attention=AttentionConfig(num_heads=3, out_norm=out_norm),
        )
    )
    images = some(vit.config, 2)
    with torch.no_grad():
        record = recorded(vit, images)
        attended = record.seen[0]
        parts = torch.einsum("bhij,bjhc->bijc", attended.weights(), moved(vit, 0, attended))
        parts = parts * row_scale(vit, 0, attended)[..., None]
        block = vit.blocks[0]
        out = block.scale1(block.attention(attended.tokens, vit.places(record.layout)[0]))
        bias = block.attention.proj.bias
        if out_norm:
            bias = bias + block.attention.out_norm.bias @ block.attention.proj.weight.T
        torch.testing.assert_close(parts.sum(2) + bias * block.scale1.weight, out)
        [maps] = maps_by_name("value-norm", vit, images, settings=MethodSettings(layers=(0,)))
        torch.testing.assert_close(maps.values, on_patches(vit, parts[:, 0].norm(dim=-1)))


def test_occlusion_is_leaving_one_patch_out() -> None:
    vit = build(tiny(tokens=REGISTERS, positions=Rope2d()))
    images, classes = some(vit.config, 2), torch.tensor([1, 2])
    with torch.no_grad():
        whole = vit(images)
        hidden = images.clone()
        hidden[:, :, 8:16, 6:12] = 0
        [maps] = maps_by_name("occlusion", vit, images, classes)
        expected = (whole - vit(hidden)).gather(1, classes[:, None])[:, 0]
        torch.testing.assert_close(maps.values[:, 1, 1], expected)
        [maps] = maps_by_name("occlusion", vit, images, classes, MethodSettings(fill="drop"))
        x, layout = vit.embed_tokens(images)
        kept = torch.tensor([i for i in range(x.shape[1]) if i != vit.num_prefix + 5])
        places = [place.select(kept.expand(2, -1)) for place in vit.places(layout)]
        shorter = layout._replace(grid=(1, layout.num_patches - 1))
        dropped = vit.answer(x[:, kept], shorter, places)
        torch.testing.assert_close(maps.values[:, 1, 1], (whole - dropped).gather(1, classes[:, None])[:, 0])


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_the_only_patch_that_counts_is_found_at_every_place(step: int) -> None:
    vit, places = hand_set(), torch.arange(0, 64, step)
    images, classes = coloured(places.tolist()), torch.zeros(len(places), dtype=torch.long)
    for name in (
        "occlusion",
        "integrated-gradients",
        "gradient-activation",
        "relevance",
        "integrated-relevance",
        "rollout",
        "attention",
        "value-norm",
    ):
        [maps] = maps_by_name(name, vit, images, classes, MethodSettings(steps=4))
        assert torch.equal(maps.values.flatten(1).argmax(1), places), name


def test_methods_that_know_the_class_mark_its_own_patch_and_the_others_the_same_for_both() -> None:
    vit = hand_set()
    red, green = list(range(0, 64, 21)), list(range(63, -1, -21))
    images = coloured(red, green)
    for name in METHODS:
        of_red, of_green = (
            maps_by_name(name, vit, images, torch.full((len(red),), index), MethodSettings(steps=4))[0].values
            for index in (0, 1)
        )
        if name not in AWARE:
            assert torch.equal(of_red, of_green), name
        elif name != "grad-cam":
            assert of_red.flatten(1).argmax(1).tolist() == red, name
            assert of_green.flatten(1).argmax(1).tolist() == green, name


@pytest.mark.parametrize("registers", [0, 4])
def test_planted_outliers_are_counted_and_others_are_not_reported(registers: int) -> None:
    config = tiny(tokens=TokensConfig(num_registers=registers))
    vit = ViT(
        replace(config, image=replace(config.image, size=(40, 48))), torch.Generator().manual_seed(0)
    ).eval()
    images = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    [plain] = maps_by_name("outliers", vit, images)
    assert plain.facts["outliers"].tolist() == [0, 0]
    for row, column in ((0, 0), (2, 5), (4, 7)):
        images[1, :, row * 8 : row * 8 + 8, column * 6 : column * 6 + 6] *= 50
    [planted] = maps_by_name("outliers", vit, images)
    assert planted.facts["outliers"].tolist() == [0, 3]
    assert planted.values[1, 2, 5] > CUT * planted.facts["median"][1]


def test_pca_gives_the_same_image_the_same_colours_and_shares_of_one() -> None:
    vit = build(tiny(tokens=REGISTERS))
    images = some(vit.config, 4)
    [maps] = maps_by_name("pca", vit, torch.cat((images, images[:1])))
    assert torch.equal(maps.values[0], maps.values[4]) and 0 <= maps.values.min() <= maps.values.max() <= 1
    shares = [float(maps.facts[f"variance_{i}"][0]) for i in (1, 2, 3)]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1


def test_the_maximum_is_read_by_the_channels_each_patch_wins() -> None:
    vit = build(tiny(depth=1, tokens=NO_CLASS, head=HeadConfig(num_classes=5, pool=MaxPool())))
    images = some(vit.config, 2)
    with torch.no_grad():
        tokens = vit.forward_features(images)
        weights = vit.attention_maps(images)[0].mean(1)
    row = torch.nn.functional.one_hot(tokens.argmax(1), tokens.shape[1]).double().mean(1)
    [maps] = maps_by_name("attention", vit, images)
    torch.testing.assert_close(maps.values.flatten(1), (row[:, None] @ weights)[:, 0])


def test_the_distance_of_attention_has_its_closed_values() -> None:
    grid = (14, 14)
    places = [(row, column) for row in range(14) for column in range(14)]
    apart = [((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a, b in places for c, d in places]
    mean = 16 * sum(apart) / len(apart)
    uniform = torch.full((3, 196, 196), 1 / 196)
    assert attention_distance(uniform, grid, (16, 16)).tolist() == pytest.approx([mean] * 3, rel=1e-6)
    assert uniform_distance(grid, (16, 16)) == pytest.approx(mean, rel=1e-12)
    assert float(attention_distance(torch.eye(196), grid)) == 0


@pytest.mark.parametrize(
    ("name", "settings", "found", "fix"),
    [
        (
            "attention",
            MethodSettings(layers=(2,)),
            "there is no layer 2: the model has 2 blocks",
            "layers 0 to 1",
        ),
        (
            "attention",
            MethodSettings(heads=(-4,)),
            "there is no head -4: the model has 3 heads",
            "heads 0 to 2",
        ),
        ("pca", MethodSettings(layers=(7,)), "no layer 7", "0 to 1"),
        ("relevance", MethodSettings(start=5), "no layer 5", "0 to 1"),
        ("integrated-gradients", MethodSettings(fill="drop"), "left-out tokens", "mean or blur"),
        ("integrated-relevance", MethodSettings(fill="drop"), "left-out tokens", "mean or blur"),
        ("rolout", MethodSettings(), "unknown method 'rolout' (did you mean 'rollout'?)", "use one of"),
    ],
)
def test_what_is_not_there_is_refused(name: str, settings: MethodSettings, found: str, fix: str) -> None:
    vit = build(tiny())
    with pytest.raises(SettingsError) as caught:
        maps_by_name(name, vit, some(vit.config, 1), torch.tensor([0]), settings)
    assert found in caught.value.message and fix in caught.value.fix


@pytest.mark.parametrize("name", AWARE)
def test_a_map_of_a_class_needs_classes(name: str) -> None:
    vit = build(tiny(head=HeadConfig(num_classes=0)))
    with pytest.raises(SettingsError, match="no classes"):
        maps_by_name(name, vit, some(vit.config, 1), torch.tensor([0]))


@pytest.mark.parametrize(
    "wrong", [{"fuse": "men"}, {"fill": "black"}, {"discard": 1.0}, {"discard": float("nan")}, {"steps": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        MethodSettings(**wrong)
