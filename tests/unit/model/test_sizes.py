"""Named sizes, pinned to their published parameter counts; cost by arithmetic."""

import pytest

from patchword.errors import SettingsError
from patchword.model.cost import cost
from patchword.model.sizes import SIZES, canonical, sized, source_of

# 224 pixels, 1000 classes. The first seven as the papers' code and torchvision's and timm's
# model cards give them; the others as timm 1.0.31 counts the same architecture.
PUBLISHED = {
    "ViT-Ti/16": 5_717_416,
    "ViT-S/16": 22_050_664,
    "ViT-B/16": 86_567_656,
    "ViT-B/32": 88_224_232,
    "ViT-L/16": 304_326_632,
    "ViT-L/32": 306_535_400,
    "ViT-H/14": 632_045_800,
    "ViT-S/8": 22_055_272,
    "ViT-S/14": 22_004_584,
    "ViT-S/32": 22_878_952,
    "ViT-B/8": 86_576_872,
    "ViT-B/14": 86_475_496,
    "ViT-L/14": 304_203_752,
    "ViT-H/16": 632_199_400,
    "ViT-g/14": 1_012_611_432,
    "ViT-g/16": 1_012_780_392,
    "ViT-So400m/14": 428_833_704,
    "ViT-So400m/16": 428_971_944,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_named_size_has_its_published_parameters_to_the_digit(name: str) -> None:
    assert cost(sized(name)).parameters == PUBLISHED[name]


@pytest.mark.parametrize(("name", "gflops"), [("B/16", 35.1), ("Ti/16", 2.51)])
def test_work_counts_two_a_multiply_add_and_attention(name: str, gflops: float) -> None:
    assert cost(sized(name)).flops / 1e9 == pytest.approx(gflops, abs=0.05 if gflops > 3 else 0.005)


def test_siglips_so400m_has_its_published_parameters() -> None:
    assert cost(sized("So400m/14", num_classes=0)).parameters == 427_680_704


@pytest.mark.parametrize("name", ["ViT-B/16", "vit-b/16", "B/16", " b/16"])
def test_case_and_the_prefix_are_optional(name: str) -> None:
    assert canonical(name) == "ViT-B/16" and sized(name) == sized("ViT-B/16")


def test_a_patch_that_nobody_published_is_a_size_too() -> None:
    config = sized("Ti/4", image_size=(32, 48), in_channels=1, num_classes=10)
    assert config.grid_size == (8, 12) and config.image.channels == 1 and config.head.num_classes == 10


@pytest.mark.parametrize("name", ["ViT-Q/16", "Tiny/16", "ViT-B", "B/0", "B/x", "/16", "G/14"])
def test_an_unknown_size_names_the_nearest(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        sized(name)
    assert repr(name) in caught.value.message and "ViT-B/16" in caught.value.fix


def test_every_size_has_its_paper() -> None:
    assert all("et al." in source_of(name) or "DeiT" in source_of(name) for name in SIZES)
