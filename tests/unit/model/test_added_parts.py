"""Plain attention pools, means of prefix tokens, rotated class tokens and nearest positions, each written out once more."""

import pytest
import torch

from patchword.errors import SettingsError
from patchword.model.config import AttentionConfig, HeadConfig
from patchword.model.kinds import AttentionPool, IndexCoordinates, Learned, MeanPool, Resample, Rope2d
from patchword.model.resample import resample_grid
from patchword.model.vit import ViT
from support.vit_configs import NO_CLASS, REGISTERS, tiny


def model_and_image(**parts: object) -> tuple[ViT, torch.Tensor]:
    model = ViT(tiny(**parts), torch.Generator().manual_seed(0)).eval()
    return model, torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_plain_attention_pool_is_one_linear_layer_of_means_weighted_by_its_query() -> None:
    model, image = model_and_image(
        tokens=NO_CLASS,
        attention=AttentionConfig(num_heads=3, bias="none"),
        head=HeadConfig(pool=AttentionPool(plain=True), num_classes=0),
    )
    tensors = model.state_dict()
    assert not any(name.startswith(("pool.q.", "pool.mlp.", "pool.norm.")) for name in tensors)
    assert "pool.kv.bias" not in tensors
    x = model.forward_features(image)
    keys, values = (x @ part.T for part in tensors["pool.kv.weight"].chunk(2))
    heads = []
    for head in range(3):
        channels = slice(head * 8, head * 8 + 8)
        weights = (keys[..., channels] @ tensors["pool.probe"][channels] / 8**0.5).softmax(1)
        heads.append((weights[..., None] * values[..., channels]).sum(1))
    expected = torch.cat(heads, -1) @ tensors["pool.proj.weight"].T + tensors["pool.proj.bias"]
    torch.testing.assert_close(model.embed(image), expected)


@torch.no_grad()
def test_the_mean_of_the_prefix_reads_class_token_and_registers_alone() -> None:
    model, image = model_and_image(
        tokens=REGISTERS, head=HeadConfig(pool=MeanPool(over="prefix"), num_classes=0)
    )
    torch.testing.assert_close(model.embed(image), model.forward_features(image)[:, :3].mean(1))
    with pytest.raises(SettingsError, match="in front of the patches"):
        tiny(tokens=NO_CLASS, head=HeadConfig(pool=MeanPool(over="prefix")))


@torch.no_grad()
def test_class_angles_turn_the_class_token_and_no_other() -> None:
    model, image = model_and_image(
        dim=48,
        tokens=REGISTERS,
        positions=Rope2d(theta=1e4, coordinates=IndexCoordinates(), class_angles=True),
    )
    model.attention_positions.class_angles.copy_(torch.linspace(-1, 2, 8))
    place = model.places(model.layout(image))[0]
    assert place.cos is not None and place.sin is not None
    torch.testing.assert_close(place.cos[0, :8], torch.linspace(-1, 2, 8).cos())
    assert (place.cos[1:3] == 1).all() and (place.sin[1:3] == 0).all()
    # The first patch has row and column 0.
    assert (place.cos[3] == 1).all() and not (place.cos[4] == 1).all()
    with pytest.raises(SettingsError, match="class_angles"):
        tiny(dim=48, tokens=NO_CLASS, positions=Rope2d(class_angles=True), head=HeadConfig(pool=MeanPool()))


@pytest.mark.parametrize("grid", [(5, 2), (3, 7), (1, 4)])
def test_the_nearest_rule_takes_a_stored_row_for_each_patch(grid: tuple[int, int]) -> None:
    table = torch.arange(12.0).reshape(4, 3, 1)
    found = resample_grid(table, grid, Resample(interpolation="nearest", antialias=False))[..., 0]
    rows, columns = ([i * old // new for i in range(new)] for old, new in zip((4, 3), grid, strict=True))
    assert torch.equal(found, table[rows][:, columns, 0])
    with pytest.raises(SettingsError, match="nearest"):
        Learned(resample=Resample(interpolation="nearest"))
