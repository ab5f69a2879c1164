"""The measures of `patchword learn` against exact numbers, closed forms and computations written out here."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from patchword.lessons.laboratory import SMALL_VIT, Laboratory
from patchword.lessons.measures.attention import (
    all_heads,
    entering,
    entropy,
    head_by_hand,
    mean_distance,
    uniform_distance,
)
from patchword.lessons.measures.border import border_response, gradient_by_distance
from patchword.lessons.measures.fields import (
    effective_field,
    resnet,
    share_inside,
    spread,
    theoretical_field,
    uniform_stack,
    vgg16,
)
from patchword.lessons.measures.gradients import gradient_norms
from patchword.lessons.measures.holes import accuracy, dropped, in_pieces
from patchword.lessons.measures.matching import assignment, cross_attention
from patchword.lessons.measures.norms import norm_facts, norms_of
from patchword.lessons.measures.order import shuffle_change, shuffled, without_positions
from patchword.lessons.measures.patches import convolution_and_linear, largest_difference, principal_filters
from patchword.lessons.measures.positions import cosine_table, rotated_products, row_column_share, sines
from patchword.lessons.measures.stream import read_after_each_block, stream
from patchword.lessons.resnet import Padding, SmallResNet
from patchword.lessons.scene import compose, trained_detector
from patchword.model.config import HeadConfig, TokensConfig, ViTConfig
from patchword.model.detection import DetectionOutput
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR
from patchword.model.kinds import (
    Learned,
    MeanPool,
    NoPositions,
    RelativeBias,
    Rope2d,
    SinCos1d,
    SinCos2d,
)
from patchword.model.matching import Targets
from patchword.model.vit import ViT

KINDS = [Learned(), SinCos1d(), SinCos2d(), Rope2d(), RelativeBias()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vit_of(seed: int = 0, **changes: Any) -> ViT:
    """A ViT whose every weight is drawn anew, so that nothing is zero or one."""
    vit = ViT(replace(SMALL_VIT, **changes), generator(seed)).eval()
    source = generator(seed + 1)
    with torch.no_grad():
        for weight in vit.parameters():
            weight += torch.randn(weight.shape, generator=source) * 0.1
    return vit


def images_of(count: int = 2, side: int = 8) -> Tensor:
    return torch.randn(count, 1, side, side, generator=generator(9))


@pytest.mark.parametrize("positions", KINDS, ids=lambda kind: kind.kind)
def test_a_shuffle_of_patches_is_seen_with_positions_and_not_without(positions: Any) -> None:
    vit = vit_of(positions=positions)
    assert shuffle_change(vit, images_of()) > 1e-3
    assert shuffle_change(without_positions(vit), images_of()) < 1e-5
    assert isinstance(without_positions(vit).config.positions, NoPositions)


def test_shuffling_moves_patches_and_changes_no_pixel() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8)
    mixed = shuffled(images, (2, 2), seed=3)
    patches = {tuple(p.flatten().tolist()) for p in images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4)}
    assert {
        tuple(p.flatten().tolist()) for p in mixed.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4)
    } == patches
    assert not torch.equal(mixed, images)


def test_positions_that_depend_on_the_row_alone_are_explained_by_rows() -> None:
    rows = torch.eye(3)[torch.arange(12) // 4]
    row, column = row_column_share(cosine_table(rows), (3, 4))
    assert row == pytest.approx(1) and column == pytest.approx(0)
    both = row_column_share(cosine_table(sines((4, 4), 48, axes=2)), (4, 4))
    assert sum(both) == pytest.approx(1, abs=1e-6) and both[0] == pytest.approx(both[1])


def test_products_of_rotated_ones_are_the_mean_cosine_of_the_angles() -> None:
    vit = vit_of(
        positions=Rope2d(), tokens=TokensConfig(), attention=replace(SMALL_VIT.attention, head_dim=8)
    )
    layout = vit.layout(images_of())
    place = vit.places(layout)[0]
    assert place.cos is not None and place.sin is not None
    found = rotated_products(place, 8, layout.grid, layout.num_prefix)
    cos, sin = (t[layout.num_prefix : layout.num_prefix + 4].double() for t in (place.cos, place.sin))
    first = cos[0] + sin[0]
    assert found == pytest.approx(((cos + sin) @ first / 8).tolist(), abs=1e-6)
    assert found[0] == pytest.approx(1, abs=1e-6)


def test_only_batch_norm_lets_other_images_change_the_first() -> None:
    tokens, others = (
        torch.randn(4, 6, 16, generator=generator()),
        torch.randn(3, 6, 16, generator=generator(1)) + 2,
    )
    facts = {name: norm_facts(norm, tokens, others) for name, norm in norms_of(16).items()}
    assert facts["batch"].mates > 0.1
    assert all(facts[name].mates == 0 for name in ("layer", "rms", "group", "instance"))
    # Only norms of single tokens are untouched by padding.
    assert {name for name, one in facts.items() if one.padding == 0} == {"layer", "rms"}
    assert facts["layer"].by_token < 1e-5 < facts["rms"].by_token
    assert facts["batch"].by_channel < 1e-5 and facts["batch"].by_image > 1e-2
    assert facts["instance"].by_image < 1e-5


def test_with_post_norm_the_last_gradient_does_not_fall_with_depth() -> None:
    images, labels = images_of(8), torch.arange(8)
    last = {
        (o, d): gradient_norms(SMALL_VIT, o, d, images, labels)[-1] for o in ("pre", "post") for d in (2, 12)
    }
    assert last["pre", 12] < 0.7 * last["pre", 2] and last["post", 12] > 0.6 * last["post", 2]
    assert len(gradient_norms(SMALL_VIT, "pre", 5, images, labels)) == 5


def test_the_patch_convolution_is_a_matrix_product() -> None:
    vit = vit_of()
    pair = convolution_and_linear(vit, images_of(2, 9))
    assert pair[0].shape == (2, 16, 48) and largest_difference(pair) < 1e-6
    # Written out for one patch.
    weight, bias = vit.patch_embed.proj.weight.flatten(1), vit.patch_embed.proj.bias
    patch = images_of(2, 9)[1, :, 2:4, 4:6].flatten()
    assert torch.allclose(pair[0][1, 4 + 2], weight @ patch + bias, atol=1e-5)


def test_principal_filters_explain_everything_together() -> None:
    vit = vit_of()
    found = principal_filters(vit)
    assert float(found.shares.sum()) == pytest.approx(1) and found.components.shape == (4, 1, 2, 2)
    assert (found.shares.diff() <= 0).all()
    flat = found.components.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(4, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("positions", KINDS, ids=lambda kind: kind.kind)
@pytest.mark.parametrize("qk_norm", ["none", "layer"])
@pytest.mark.parametrize("bias", ["qkv", "qv", "none"])
def test_a_head_by_hand_is_the_models_head(positions: Any, qk_norm: Any, bias: Any) -> None:
    attention = replace(SMALL_VIT.attention, qk_norm=qk_norm, bias=bias)
    vit = vit_of(positions=positions, attention=attention)
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    found = head_by_hand(vit, images_of(), layer=2, head=1, token=5)
    reference = vit.attention_maps(images_of(), [2])[2][0, 1, 5]
    assert torch.allclose(found.weights.float(), reference, atol=1e-5) and found.difference < 1e-5
    assert float(found.weights.sum()) == pytest.approx(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit.state_dict().items())


def test_the_distance_of_uniform_attention_is_the_mean_over_pairs() -> None:
    grid, span = (14, 14), (16, 16)
    places = [(16 * r, 16 * c) for r in range(14) for c in range(14)]
    closed = sum(math.dist(a, b) for a, b in itertools.product(places, places)) / 196**2
    assert uniform_distance(grid, span) == pytest.approx(closed, abs=1e-6)
    even = torch.full((196, 196), 1 / 196)
    assert float(mean_distance(even, grid, span)) == pytest.approx(closed, abs=1e-6)
    assert float(mean_distance(torch.eye(196), grid, span)) == 0
    assert float(entropy(even[0])) == pytest.approx(math.log2(196)) and float(entropy(torch.eye(4)[0])) == 0


def test_all_heads_agree_with_the_attention_maps() -> None:
    vit = vit_of(tokens=TokensConfig(num_registers=2))
    found = all_heads(vit, images_of())
    weights = vit.attention_maps(images_of(), [1])[1][:, 2, 3:, :].double()
    assert float(found.elsewhere[1, 2]) == pytest.approx(float(weights[..., :3].sum(-1).mean()), abs=1e-6)
    assert float(found.entropy[1, 2]) == pytest.approx(float(entropy(weights).mean()), abs=1e-6)
    own = mean_distance(weights[..., 3:], (4, 4), (2, 2)).mean()
    assert float(found.distance[1, 2]) == pytest.approx(float(own), abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "tokens": TokensConfig(class_token=False),
            "head": HeadConfig(pool=MeanPool(), num_classes=10, norm="pooled"),
        },
    ],
    ids=["class", "mean"],
)
def test_the_last_reading_of_the_stream_is_the_models_answer(changes: dict[str, Any]) -> None:
    vit = vit_of(**changes)
    reading = read_after_each_block(vit, images_of())
    assert reading.shape == (4, 2, 10)
    assert torch.allclose(reading[-1], vit(images_of()).softmax(-1), atol=1e-6)
    flow = stream(vit, images_of())
    lengths = [float(one.tokens.norm(dim=-1).mean()) for one in entering(vit, images_of())]
    assert flow.entering == pytest.approx(lengths) and len(flow.added) == 4


# Corner and edge over centre, with uniform kernels: (4/9, 6/9) for one layer with zeros.
EXACT = {
    ("zeros", 1): (4 / 9, 6 / 9),
    ("zeros", 4): ((35 / 81) ** 2, 35 / 81),
    ("zeros", 8): (0.105, 0.324),
    ("zeros", 16): (0.056, 0.237),
    ("replicate", 1): (1, 1),
    ("replicate", 16): (1, 1),
    ("reflect", 8): (0.3415, 0.5844),
    ("none", 4): (1.5e-4, 0.0123),
}


@pytest.mark.parametrize(("case", "expected"), EXACT.items(), ids=str)
def test_the_border_of_uniform_convolutions_is_exact(case: Any, expected: tuple[float, float]) -> None:
    padding, layers = case
    assert border_response(layers, padding) == pytest.approx(expected, abs=1e-3)


def test_zero_padding_is_the_walk_that_leaves_the_image() -> None:
    """Along one axis, the response at the border is the chance that steps of -1, 0 and 1 never leave the image."""
    stay = torch.ones(33, dtype=torch.float64)
    for _ in range(8):
        padded = torch.nn.functional.pad(stay, (1, 1))
        stay = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    found = border_response(8, "zeros", 33)
    assert found.edge == pytest.approx(float(stay[0])) and found.corner == pytest.approx(float(stay[0]) ** 2)


def test_patches_of_a_vit_have_no_border() -> None:
    vit = vit_of()
    assert (
        gradient_by_distance(lambda x: vit.patch_embed(x)[0][:, :, :1] * 0 + x.mean(), images_of()) == [1] * 4
    )
    flat = SmallResNet(padding="replicate", generator=generator()).eval()
    weak = SmallResNet(padding="zeros", generator=generator()).eval()
    assert (
        gradient_by_distance(lambda x: weak.root(x).abs(), images_of(32))[0]
        < gradient_by_distance(lambda x: flat.root(x).abs(), images_of(32))[0]
    )


def test_theoretical_fields_of_known_networks() -> None:
    assert theoretical_field(vgg16()) == 212
    assert theoretical_field(resnet((2, 2, 2, 2), bottleneck=False)) == 435
    assert theoretical_field(resnet((3, 4, 6, 3), bottleneck=True)) == 427
    assert theoretical_field(resnet((3, 4, 6, 3), bottleneck=True, stride_on_3x3=False)) == 483


def test_a_theoretical_field_is_what_a_unit_depends_on() -> None:
    cnn = SmallResNet(generator=generator()).eval()
    images = torch.rand(1, 1, 40, 40, generator=generator(2))
    field = effective_field(lambda x: cnn.features(x)[:, :, 10, 10], images)
    assert int((field.sum(0) > 0).sum()) <= theoretical_field(cnn.layers)
    assert float(field.sum()) == pytest.approx(1)


@pytest.mark.parametrize("layers", [1, 4, 16, 64])
def test_the_effective_field_grows_with_the_root_of_the_layers(layers: int) -> None:
    found = uniform_stack(layers)
    assert found.deviation == pytest.approx(math.sqrt(layers * 8 / 12), rel=0.05)
    assert found.side == 2 * layers + 1
    expected = {16: (17, 0.27), 64: (33, 0.07)}
    if layers in expected:
        assert (found.above, round(found.area, 2)) == expected[layers]


def test_the_spread_of_a_field_is_its_deviation_per_axis() -> None:
    field = torch.zeros(5, 5, dtype=torch.float64)
    field[0, 2] = field[4, 2] = field[2, 0] = field[2, 4] = 0.25
    assert spread(field) == pytest.approx(math.sqrt(2)) and share_inside(field, 0, 2, 1, 1) == 0.25


def test_holes_and_pieces() -> None:
    images = images_of(20) + 10
    assert (dropped(images, 0.5, 2) == 0).flatten(1).double().mean(1).tolist() == [0.5] * 20
    assert torch.equal(dropped(images, 0.0, 2), images) and torch.equal(in_pieces(images, 1), images)
    pieces = in_pieces(images, 4)
    assert torch.equal(pieces.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    orders = {tuple(image.flatten().argsort().tolist()) for image in pieces}
    assert len(orders) == 20
    labels = torch.arange(20) % 10
    assert accuracy(lambda x: torch.eye(10)[labels], images, labels) == 1


def test_the_matching_is_the_cheapest_of_all_assignments() -> None:
    source = generator(5)
    output = DetectionOutput(
        torch.randn(2, 1, 5, 4, generator=source), torch.rand(2, 1, 5, 4, generator=source) * 0.4 + 0.3
    )
    targets = Targets.of([(torch.tensor([0, 2, 1]), torch.rand(3, 4, generator=source) * 0.4 + 0.3)])
    found = assignment(output, targets)
    totals = [
        float(found.costs[torch.tensor(order), torch.arange(3)].sum())
        for order in itertools.permutations(range(5), 3)
    ]
    assert found.total == pytest.approx(min(totals)) and len(set(found.queries.tolist())) == 3


@pytest.mark.slow
def test_a_small_detr_learns_one_scene_by_heart() -> None:
    scans = Laboratory().test
    image, targets = compose(scans.images, scans.labels)
    detr = trained_detector(image, targets, generator())
    with torch.no_grad():
        output = detr(image)
    found = assignment(output, targets)
    boxes = output.boxes[-1, 0][found.queries]
    assert torch.allclose(boxes, targets.boxes, atol=0.05)
    assert torch.equal(output.logits[-1, 0][found.queries].argmax(-1), targets.labels)


def test_cross_attention_is_what_the_decoder_multiplies_values_with() -> None:
    trunk = TrunkConfig(units=(1, 1, 1, 1), root=4, middle=(4, 4, 4, 4), outputs=(8, 8, 8, 8), channels=1)
    detr = DETR(
        DetrConfig(
            trunk=trunk,
            dim=8,
            num_heads=1,
            hidden=8,
            encoder_depth=1,
            decoder_depth=2,
            num_queries=3,
            num_classes=2,
        ),
        generator(),
    ).eval()
    layer = detr.decoder.layers[-1].cross_attention
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, given, out: seen.append((given[2], out)))
    images = torch.randn(1, 1, 64, 96, generator=generator(1))
    weights = cross_attention(detr, images)
    hook.remove()
    assert weights.shape == (1, 3, 2, 3) and torch.allclose(weights.sum((2, 3)), torch.ones(1, 3), atol=1e-5)
    values, out = seen[-1]
    weight, bias = layer.qkv.weight[16:], layer.qkv.bias[16:]
    by_hand = layer.proj(weights.flatten(2) @ (values @ weight.T + bias))
    assert torch.allclose(by_hand, out, atol=1e-5)


def test_a_small_resnet_pads_as_asked() -> None:
    paddings: tuple[Padding, ...] = ("zeros", "replicate", "reflect")
    for padding in paddings:
        cnn: nn.Module = SmallResNet(padding=padding, generator=generator())
        assert cnn(images_of()).shape == (2, 10)
    config: ViTConfig = SMALL_VIT
    assert sum(p.numel() for p in cnn.parameters()) < sum(p.numel() for p in ViT(config).parameters())
