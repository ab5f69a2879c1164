"""DETR and YOLOS as models: batches, padding, initial weights, settings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.detection import Batch, pad_batch
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR, shrink_padding
from patchword.model.detr.positions import LearnedPositions, SinePositions
from patchword.model.kinds import Combined, LearnedBetween, LearnedTokens
from patchword.model.matching import Targets
from patchword.model.set_loss import set_loss
from patchword.model.yolos import YOLOS
from patchword.model.yolos_config import YolosConfig

TRUNK = TrunkConfig(units=(1, 1, 1, 2), root=8, middle=(4, 4, 8, 8), outputs=(8, 16, 16, 24))
DETR_CONFIG = DetrConfig(
    trunk=TRUNK,
    dim=16,
    num_heads=2,
    hidden=32,
    encoder_depth=2,
    decoder_depth=3,
    num_queries=5,
    num_classes=3,
)
BACKBONE = ViTConfig(
    image=ImageConfig(size=(32, 48)),
    patch=PatchConfig(size=(8, 8), edge="cut"),
    dim=16,
    depth=3,
    tokens=TokensConfig(num_registers=5, registers_last=True),
    positions=Combined(added=LearnedTokens(), inner=LearnedBetween(grid=(3, 5))),
    attention=AttentionConfig(num_heads=2),
    head=HeadConfig(num_classes=0),
)
YOLOS_CONFIG = YolosConfig(backbone=BACKBONE, num_classes=3)
SIZES = [(64, 96), (50, 70), (96, 40), (64, 96)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(kind: str) -> DETR | YOLOS:
    """A detector whose answer depends on everything: norms of the trunk and biases are random too."""
    model = DETR(DETR_CONFIG, generator()) if kind == "detr" else YOLOS(YOLOS_CONFIG, generator())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.rand(tensor.shape, generator=generator(1)) * 0.2)
    return model.eval()


def pictures(sizes: list[tuple[int, int]] = SIZES) -> list[Tensor]:
    return [torch.randn((3, *size), generator=generator(2 + i)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("kind", ["detr", "yolos"])
@torch.no_grad()
def test_in_a_list_an_image_gets_the_answer_that_it_gets_alone(kind: str) -> None:
    model, images = made(kind), pictures()
    together = model(images)
    assert together.pred_logits.shape == (4, 5, 4)
    for index, image in enumerate(images):
        for alone in (model([image]), model(image[None])):
            assert (together.logits[:, index] - alone.logits[:, 0]).abs().max() < 1e-4
            assert (together.boxes[:, index] - alone.boxes[:, 0]).abs().max() < 1e-4
    assert (together.pred_logits[0] - together.pred_logits[3]).abs().max() > 1e-3


@torch.no_grad()
def test_cells_that_are_padding_are_not_read() -> None:
    model, batch = made("detr"), pad_batch(pictures())
    assert isinstance(model, DETR) and batch.padding is not None
    features, padding = model.features(batch)
    assert padding is not None and padding.any() and not padding.all()
    noise = torch.randn(features.shape, generator=generator(9)) * padding[:, None]
    answers = []
    for given in (features, features + noise):
        memory, positions = model.encode(given, padding)
        memory = torch.where(padding.flatten(1)[..., None], 0, memory)
        answers.append(model.decode(memory, positions, padding))
    assert (answers[0] - answers[1]).abs().max() < 1e-4
    memory, positions = model.encode(features + noise, padding)
    assert (model.decode(memory, positions, None) - answers[0]).abs().max() > 1e-3


@torch.no_grad()
def test_an_image_that_fills_its_padded_batch_gets_the_answer_that_it_gets_alone() -> None:
    model, images = made("detr"), pictures([(64, 96), (50, 70)])
    whole, alone = model(pad_batch(images)), model([images[0]])
    assert (whole.logits[:, 0] - alone.logits[:, 0]).abs().max() < 1e-4


def test_a_batch_holds_each_image_in_its_corner() -> None:
    images = pictures()
    batch = pad_batch(images)
    assert batch.images.shape == (4, 3, 96, 96) and batch.padding is not None
    for index, image in enumerate(images):
        rows, columns = image.shape[1:]
        assert torch.equal(batch.images[index, :, :rows, :columns], image)
        assert not batch.padding[index, :rows, :columns].any()
        assert batch.padding[index].sum() == 96 * 96 - rows * columns
        assert not (batch.images[index] * batch.padding[index]).any()
    assert pad_batch([images[0], images[3]]).padding is None
    with pytest.raises(SettingsError, match="no images"):
        pad_batch([])
    with pytest.raises(SettingsError, match="cannot form a batch"):
        pad_batch([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)])


def test_padding_is_that_of_the_nearest_pixel() -> None:
    padding = torch.zeros((1, 7, 10), dtype=torch.bool)
    padding[:, 4:], padding[..., 6:] = True, True
    cells = shrink_padding(padding, (3, 4))
    rows, columns = [int(i * 7 / 3) for i in range(3)], [int(j * 10 / 4) for j in range(4)]
    assert torch.equal(cells[0], padding[0][rows][:, columns])


def test_sines_are_scaled_to_the_real_part_of_an_image() -> None:
    positions = SinePositions(16)
    padding = torch.ones((2, 4, 6), dtype=torch.bool)
    padding[0, :2, :3], padding[1] = False, False
    padded = positions(padding).view(2, 4, 6, 16)
    alone = positions(torch.zeros((1, 2, 3), dtype=torch.bool)).view(2, 3, 16)
    torch.testing.assert_close(padded[0, :2, :3], alone)
    # Rows first, then columns; sines and cosines alternate.
    assert (padded[1, 0, :, :8] == padded[1, 0, :1, :8]).all() and (
        padded[1, :, 0, 8:] == padded[1, :1, 0, 8:]
    ).all()
    torch.testing.assert_close(alone.square().view(2, 3, 8, 2).sum(-1), torch.ones(2, 3, 8))


@pytest.mark.parametrize("kind", ["detr", "yolos"])
def test_every_weight_is_drawn_from_the_generator_and_trained(kind: str) -> None:
    def build() -> DETR | YOLOS:
        return DETR(DETR_CONFIG, generator(5)) if kind == "detr" else YOLOS(YOLOS_CONFIG, generator(5))

    torch.manual_seed(0)
    first = build().eval()
    torch.manual_seed(1)
    second = build().eval()
    for name, tensor in first.state_dict().items():
        assert tensor.isfinite().all() and torch.equal(tensor, second.state_dict()[name]), name
    targets = Targets.of([(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]])), *[_none()] * 3])
    set_loss(first(pictures()), targets).total.backward()
    silent = [
        name for name, weight in first.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    # Softmax cancels what only shifts all scores; in layer 0 all queries are the same, so their attention is flat.
    assert all("decoder.layers.0.attention" in name or "norm" in name for name in silent), silent


def _none() -> tuple[Tensor, Tensor]:
    return torch.zeros(0), torch.zeros(0, 4)


def test_the_trunks_norms_are_frozen() -> None:
    model = DETR(DETR_CONFIG, generator()).train()
    before = {name: tensor.clone() for name, tensor in model.trunk.named_buffers()}
    model(pictures()[0][None])
    assert before and all(torch.equal(before[name], tensor) for name, tensor in model.trunk.named_buffers())
    assert not any(isinstance(weight, nn.Parameter) for weight in before.values())


@pytest.mark.parametrize("order", ["pre", "post"])
@pytest.mark.parametrize("positions", ["sine", "learned"])
@torch.no_grad()
def test_every_variant_answers(order: str, positions: str) -> None:
    config = replace(DETR_CONFIG, order=order, positions=positions, decoder_heads=4, decoder_hidden=24)
    output = DETR(config, generator()).eval()(pictures())
    assert output.logits.shape == (3, 4, 5, 4) and output.logits.isfinite().all()
    assert output.boxes.min() > 0 and output.boxes.max() < 1


def test_learned_positions_end_at_their_table() -> None:
    with pytest.raises(SettingsError, match="learned positions exist for 50"):
        LearnedPositions(8)(torch.zeros((1, 51, 2), dtype=torch.bool))


@pytest.mark.parametrize("kind", ["detr", "yolos"])
def test_images_of_another_kind_are_refused(kind: str) -> None:
    model = made(kind)
    with pytest.raises(SettingsError, match="3 channels"):
        model(torch.zeros(1, 1, 64, 64))
    with pytest.raises(SettingsError, match="no images"):
        model([])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="evenly among 3 attention heads") as told:
        DetrConfig(num_heads=3)
    assert told.value.fix == "set detr.num_heads = 2"
    with pytest.raises(SettingsError, match="multiple of 4"):
        DetrConfig(dim=18, num_heads=2)
    with pytest.raises(SettingsError, match=r"trunk\.units"):
        TrunkConfig(units=(3, 4))
    with pytest.raises(SettingsError, match="detection tokens behind its patches"):
        YolosConfig(backbone=ViTConfig(head=HeadConfig(num_classes=0)))


def test_dilation_starts_with_the_second_unit_of_the_last_stage() -> None:
    trunk = DETR(replace(DETR_CONFIG, trunk=replace(TRUNK, dilation=True))).trunk
    units = [unit for stage in trunk.stages for unit in stage]
    assert [unit.conv2.dilation for unit in units] == [(1, 1)] * 4 + [(2, 2)]
    assert [unit.conv2.stride for unit in units] == [(1, 1), (2, 2), (2, 2), (1, 1), (1, 1)]


def test_positions_resampled_by_count_stay_for_an_image_whose_sides_are_exchanged() -> None:
    for by, stays in (("count", True), ("sides", False)):
        config = replace(BACKBONE, positions=LearnedTokens(resampled_by=by))
        positions = YOLOS(YolosConfig(backbone=config), generator()).backbone.positions
        table = positions.grid.flatten(0, 1)
        assert torch.equal(positions((4, 6)), table)
        assert torch.equal(positions((6, 4)), table) == stays
        assert positions((5, 7)).shape == (35, 16)


def test_dilation_keeps_the_size_of_the_last_stage() -> None:
    for dilation, grid in ((False, (2, 3)), (True, (4, 6))):
        config = replace(DETR_CONFIG, trunk=replace(TRUNK, dilation=dilation))
        features, _ = DETR(config, generator()).features(Batch(torch.zeros(1, 3, 64, 96)))
        assert features.shape[-2:] == grid == config.trunk.grid_of((64, 96))
