"""DETR's trunk beside torchvision's and timm's, and whole detectors beside transformers', in both directions."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
)

from patchword.formats.detection.trunk import PLAIN, trunk_rows
from patchword.formats.rows import rules_of
from patchword.inference.detector import load_detector
from patchword.model.detection import pad_batch
from patchword.model.detr.config import TrunkConfig
from patchword.model.detr.trunk import Trunk

pytestmark = pytest.mark.peers


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(model: nn.Module) -> nn.Module:
    """With running statistics and norms of its own, so that each of them shows in the answer."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator(len(name))) * 0.5)
    return model.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def ours_with(theirs: nn.Module, config: TrunkConfig) -> Trunk:
    trunk = Trunk(config)
    there = {f"trunk.{name}": tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    state = theirs.state_dict()
    rules = list(rules_of(trunk_rows("", PLAIN, config), there, 1))
    trunk.load_state_dict({rule.ours[0].removeprefix("trunk."): state[rule.theirs[0]] for rule in rules})
    unused = state.keys() - {rule.theirs[0] for rule in rules}
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in unused)
    return trunk.eval()


@pytest.mark.parametrize(("name", "units"), [("resnet50", (3, 4, 6, 3)), ("resnet101", (3, 4, 23, 3))])
@pytest.mark.parametrize("dilation", [False, True])
@torch.no_grad()
def test_the_trunk_is_torchvisions(name: str, units: tuple[int, ...], dilation: bool) -> None:
    theirs = shaken(
        getattr(torchvision.models, name)(
            weights=None,
            norm_layer=torchvision.ops.FrozenBatchNorm2d,
            replace_stride_with_dilation=[False, False, dilation],
        )
    )
    body = torchvision.models._utils.IntermediateLayerGetter(theirs, {"layer4": "0"})
    images = torch.randn((1, 3, 70, 97), generator=generator())
    ours = ours_with(theirs, TrunkConfig(units=units, dilation=dilation))(images)
    assert relative(ours, body(images)["0"]) < 1e-5


@pytest.mark.parametrize("stride", [16, 32])
@torch.no_grad()
def test_the_trunk_is_timms(stride: int) -> None:
    theirs = shaken(timm.create_model("resnet50", pretrained=False, features_only=True, output_stride=stride))
    images = torch.randn((1, 3, 70, 97), generator=generator())
    ours = ours_with(theirs, TrunkConfig(dilation=stride == 16))(images)
    assert relative(ours, theirs(images)[-1]) < 1e-5


def small(**more: Any) -> DetrConfig:
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 2, 1, 2], out_features=["stage4"]
    )
    return DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=resnet,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        num_queries=6,
        id2label={0: "cat", 1: "dog", 2: "N/A", 3: "N/A"},
        **more,
    )


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("positions", ["sine", "learned"])
@torch.no_grad()
def test_detr_answers_as_transformers_and_the_other_way_round(
    auxiliary: bool, positions: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = small(auxiliary_loss=auxiliary, position_embedding_type=positions)
    theirs = shaken(DetrForObjectDetection(config))
    theirs.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    ours = load_detector(tmp_path / "theirs", device="cpu")
    assert [one.name for one in ours.classes] == ["cat", "dog", "N/A", "N/A"]
    assert [one.id for one in ours.classes] == [0, 1, 2, 3]
    batch = pad_batch(
        [torch.randn((3, 96, 64), generator=generator()), torch.randn((3, 70, 128), generator=generator(1))]
    )
    assert batch.padding is not None
    mask = (~batch.padding).long()
    expected, found = theirs(batch.images, mask), ours.model(batch)
    assert relative(found.pred_logits, expected.logits) < 2e-5
    assert relative(found.pred_boxes, expected.pred_boxes) < 2e-5
    ours.write(tmp_path / "ours", to="transformers-detr")
    back = DetrForObjectDetection.from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(back(batch.images, mask).logits, expected.logits)


@pytest.mark.parametrize("middle", [False, True])
@torch.no_grad()
def test_yolos_answers_as_transformers_and_the_other_way_round(middle: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=[32, 48],
        patch_size=8,
        num_detection_tokens=6,
        use_mid_position_embeddings=middle,
        num_labels=3,
    )
    theirs = YolosForObjectDetection(config)
    for weight in theirs.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator(2)) * 0.1)
    theirs.eval().save_pretrained(tmp_path / "theirs")
    ours = load_detector(tmp_path / "theirs", device="cpu")
    ours.write(tmp_path / "ours", to="transformers-yolos")
    back = YolosForObjectDetection.from_pretrained(tmp_path / "ours").eval()
    # The grid of the tables, its sides exchanged, and others.
    for size in ((32, 48), (48, 32), (40, 77)):
        images = torch.randn((2, 3, *size), generator=generator(3))
        expected, found = theirs(images), ours.model(images)
        assert relative(found.pred_logits, expected.logits) < 2e-5
        assert relative(found.pred_boxes, expected.pred_boxes) < 2e-5
        assert torch.equal(back(images).logits, expected.logits)


@torch.no_grad()
def test_transformers_reads_a_published_sized_detr_that_patchword_wrote(tmp_path: Path) -> None:
    from patchword.formats.detection.layout import capped
    from patchword.formats.detection.write import detector_layout, write_detector
    from patchword.model.detr.config import DetrConfig as OurConfig
    from patchword.model.detr.model import DETR
    from patchword.weights.detector_card import DetectionClass, DetectorCard

    config = OurConfig(encoder_depth=1, decoder_depth=1, num_classes=2)
    model = shaken(DETR(config, generator())).eval()
    classes = (DetectionClass(0, "cell"), DetectionClass(1, "plate"))
    card = DetectorCard(config=config, preprocess=capped(800, 1333), classes=classes)
    write_detector(card, model.state_dict(), detector_layout("transformers-detr"), tmp_path / "out")
    theirs = DetrForObjectDetection.from_pretrained(tmp_path / "out").eval()
    images = torch.randn((1, 3, 96, 128), generator=generator())
    assert relative(model(images).pred_logits, theirs(images).logits) < 2e-5
    assert theirs.config.id2label == {0: "cell", 1: "plate"}
