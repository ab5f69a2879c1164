"""The ResNet of the hybrids."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.config import ImageConfig, PatchConfig, ViTConfig
from patchword.model.kinds import ResNetStem
from patchword.model.stem import ResNetFeatures, StandardisedConv


class TorchUnit(nn.Module):
    """jeonsworld's bottleneck in torch's own layers, with only the weights standardised by hand."""

    def __init__(self, inputs: int, middle: int, stride: int, first: bool) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.norm1, self.norm2 = (nn.GroupNorm(32, middle, eps=1e-6) for _ in range(2))
        self.norm3 = nn.GroupNorm(32, outputs, eps=1e-6)
        if first:
            self.proj = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.proj_norm = nn.GroupNorm(outputs, outputs)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        residual = self.proj_norm(self.proj(x)) if self.first else x
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(residual + self.norm3(self.conv3(y)))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_the_stem_of_jeonsworlds_port_is_torchs_layers_with_standardised_weights() -> None:
    config = ResNetStem(
        units=(2, 1, 1), width=32, weight_eps="variance", padding="symmetric", proj_norm="channel"
    )
    ours = ResNetFeatures(config, 3)
    generator = torch.Generator().manual_seed(0)
    for parameter in ours.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    stages = [
        nn.Sequential(TorchUnit(32, 32, 1, True), TorchUnit(128, 32, 1, False)),
        nn.Sequential(TorchUnit(128, 64, 2, True)),
        nn.Sequential(TorchUnit(256, 128, 2, True)),
    ]
    root = nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False)
    root_norm = nn.GroupNorm(32, 32, eps=1e-6)
    theirs = nn.Sequential(root, root_norm, nn.ReLU(), nn.MaxPool2d(3, 2, padding=0), *stages)
    names = {"root": "0", "root_norm": "1", "stages.0": "4", "stages.1": "5", "stages.2": "6"}
    state = {}
    for name, tensor in ours.state_dict().items():
        if tensor.ndim == 4:
            variance, mean = torch.var_mean(tensor, dim=[1, 2, 3], keepdim=True, unbiased=False)
            tensor = (tensor - mean) / torch.sqrt(variance + 1e-5)
        old = next(old for old in sorted(names, key=len, reverse=True) if name.startswith(f"{old}."))
        state[names[old] + name.removeprefix(old)] = tensor
    theirs.load_state_dict(state)
    for size in ((64, 64), (96, 80), (61, 47)):
        x = torch.randn(2, 3, *size, generator=generator)
        assert relative(ours(x), theirs(x)) < 1e-5
        assert ours(x).shape[-2:] == config.size_after(size)


@pytest.mark.parametrize("config", [ResNetStem(units=(1, 1), width=32), ResNetStem(units=(), width=64)])
def test_features_lie_where_the_config_says(config: ResNetStem) -> None:
    stem = ResNetFeatures(config, 3).requires_grad_(False)
    for size in ((32, 48), (33, 47), (7, 9)):
        features = stem(torch.zeros(1, 3, *size))
        assert features.shape[1:] == (config.features(3), *config.size_after(size))
        assert config.size_after(size) == tuple(-(-side // config.stride) for side in size)


def test_an_odd_row_of_padding_lies_behind() -> None:
    """As TensorFlow's SAME: a convolution of 3 with stride 2 over an even side sees no row before the first."""
    config = ResNetStem()
    assert config.pads(8, 3, 2) == (0, 1)
    assert config.pads(7, 3, 2) == (1, 1)
    assert config.pads(8, 7, 2) == (2, 3)
    assert config.pads(8, 1, 2) == (0, 0)


def test_the_scale_and_mean_of_a_weight_change_nothing() -> None:
    conv = StandardisedConv(3, 4, 3, ResNetStem())
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = conv(x)
        conv.weight.mul_(3).add_(0.7)
        assert relative(conv(x), before) < 1e-3


def test_a_width_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(SettingsError, match="width 40"):
        ResNetStem(width=40)
    with pytest.raises(SettingsError, match="too small for the stem"):
        ViTConfig(
            image=ImageConfig(size=(4, 4)),
            patch=PatchConfig(size=(1, 1), stem=ResNetStem(padding="symmetric")),
        )
