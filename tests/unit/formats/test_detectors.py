"""Files of detectors that are incomplete, ambiguous, wrong, or hold more than a detector."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import patchword
from patchword.errors import (
    CheckpointError,
    KeyMismatch,
    MissingFact,
    SettingsError,
    ShapeMismatch,
    UnknownLayout,
)
from patchword.formats.detection.layout import DetectorOptions, capped
from patchword.formats.detection.read import open_detector, read_detector_tensors
from patchword.formats.detection.write import detector_layout, write_detector
from patchword.formats.facts import Options
from patchword.formats.layouts.transformers_config import JsonConfig
from patchword.formats.layouts.transformers_preprocess import read_preprocess
from patchword.formats.read import open_foreign
from patchword.images.geometry import Capped
from patchword.inference.detector import load_detector
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.detr.config import DetrConfig, TrunkConfig
from patchword.model.detr.model import DETR
from patchword.model.kinds import Combined, LearnedBetween, LearnedTokens
from patchword.model.yolos import YOLOS
from patchword.model.yolos_config import YolosConfig
from patchword.weights.detector_card import DetectionClass, DetectorCard

TRUNK = TrunkConfig(units=(1, 1, 1, 1), root=4, middle=(2, 2, 2, 4), outputs=(8, 8, 8, 16), dilation=True)
DETR_CONFIG = DetrConfig(
    trunk=TRUNK, dim=8, num_heads=2, hidden=8, encoder_depth=1, decoder_depth=2, num_queries=3, num_classes=2
)
PLAIN = replace(DETR_CONFIG, trunk=replace(TRUNK, dilation=False))
BACKBONE = ViTConfig(
    image=ImageConfig(size=(32, 48)),
    patch=PatchConfig(size=(16, 16), edge="cut"),
    dim=8,
    depth=2,
    tokens=TokensConfig(num_registers=4, registers_last=True),
    positions=Combined(
        added=LearnedTokens(resampled_by="count"), inner=LearnedBetween(grid=(1, 5), resampled_by="count")
    ),
    attention=AttentionConfig(num_heads=2),
    head=HeadConfig(num_classes=0),
)
YOLOS_CONFIG = YolosConfig(backbone=BACKBONE, num_classes=2)
CLASSES = (DetectionClass(0, "cell"), DetectionClass(1, "plate"))


def written(folder: Path, config: DetrConfig | YolosConfig = DETR_CONFIG, to: str = "detr") -> Path:
    """A file of random weights."""
    model = DETR(config) if isinstance(config, DetrConfig) else YOLOS(config)
    card = DetectorCard(config=config, preprocess=capped(800, 1333), classes=CLASSES)
    return write_detector(card, model.state_dict(), detector_layout(to), folder / "file.pth").path


def saved(folder: Path, tensors: dict[str, Tensor], args: Any = None, name: str = "changed.pth") -> Path:
    """The file of another program: tensors and perhaps the arguments of its script."""
    path = folder / name
    torch.save({"model": tensors, **({} if args is None else {"args": args})}, path)
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def test_what_the_authors_script_stores_is_read(tmp_path: Path) -> None:
    found = load_detector(written(tmp_path), device="cpu")
    assert found.card.config == DETR_CONFIG
    assert {fact.source for fact in found.report.facts if fact.name in ("num_heads", "dilation")} == {
        "args in the file"
    }
    assert found.classes == (DetectionClass(0), DetectionClass(1))  # the format has no names
    assert found.preprocess == capped(800, 1333)


def test_a_fact_that_no_file_states_is_asked_for(tmp_path: Path) -> None:
    bare = saved(tmp_path, tensors_of(written(tmp_path)))
    with pytest.raises(MissingFact, match="attention heads"):
        load_detector(bare)
    with pytest.raises(CheckpointError) as told:
        patchword.load_detector(bare)
    assert told.value.fix == "pass num_heads=…"
    found = patchword.load_detector(bare, num_heads=2, dilation=True, device="cpu", classes=["cell", "plate"])
    assert found.card.config == DETR_CONFIG and found.classes == CLASSES
    assert not any("dilation" in note for note in found.report.notes)


def test_dc5_in_the_name_of_a_file_is_believed_and_its_absence_is_told(tmp_path: Path) -> None:
    tensors = tensors_of(written(tmp_path))
    named = saved(tmp_path, tensors, {"nheads": 2}, "my-DC5.pth")
    plain = saved(tmp_path, tensors, {"nheads": 2}, "mine.pth")
    dilated, other = load_detector(named, device="cpu"), load_detector(plain, device="cpu")
    assert isinstance(dilated.card.config, DetrConfig) and isinstance(other.card.config, DetrConfig)
    assert dilated.card.config.trunk.dilation and not other.card.config.trunk.dilation
    assert "dilation False is inferred" in str(other.report) and "inferred" not in str(dilated.report)


def test_the_detector_of_a_segmentation_model_is_read_and_the_rest_listed(tmp_path: Path) -> None:
    tensors = tensors_of(written(tmp_path))
    inside = {f"detr.{name}": tensor for name, tensor in tensors.items()}
    more = {"mask_head.lay1.weight": torch.zeros(2), "bbox_attention.q_linear.bias": torch.zeros(2)}
    opened = open_detector(saved(tmp_path, inside | more, {"nheads": 2, "dilation": True}))
    assert opened.card.config == DETR_CONFIG
    assert {name for part in opened.report.dropped for name in part.names} == more.keys()
    assert "segmentation head" in opened.report.dropped[0].reason


def test_the_trunks_classifier_and_counters_are_skipped_with_a_reason(tmp_path: Path) -> None:
    tensors = tensors_of(written(tmp_path))
    extra = {
        "backbone.0.body.fc.weight": torch.zeros(2, 2),
        "backbone.0.body.bn1.num_batches_tracked": torch.zeros(()),
    }
    opened = open_detector(saved(tmp_path, tensors | extra, {"nheads": 2, "dilation": True}))
    assert {name for part in opened.report.dropped for name in part.names} == extra.keys()


def test_a_missing_an_unknown_and_a_misshapen_tensor_are_named(tmp_path: Path) -> None:
    tensors, args = tensors_of(written(tmp_path)), {"nheads": 2, "dilation": True}
    lost = {name: t for name, t in tensors.items() if name != "transformer.decoder.layers.1.norm3.bias"}
    with pytest.raises(KeyMismatch, match=r"transformer\.decoder\.layers\.1\.norm3\.bias") as told:
        open_detector(saved(tmp_path, lost, args))
    assert told.value.fix == "use the complete file"
    with pytest.raises(UnknownLayout, match=r"no rule for my_head\.weight"):
        open_detector(saved(tmp_path, tensors | {"my_head.weight": torch.zeros(2)}, args))
    name = "transformer.decoder.norm.weight"
    with pytest.raises(ShapeMismatch, match=name):
        open_detector(saved(tmp_path, tensors | {name: torch.zeros(9)}, args))


def test_a_trunk_of_two_convolutions_is_refused(tmp_path: Path) -> None:
    tensors = {
        n: t for n, t in tensors_of(written(tmp_path)).items() if ".conv3." not in n and ".bn3." not in n
    }
    with pytest.raises(CheckpointError, match="ResNet-18 or 34"):
        open_detector(saved(tmp_path, tensors, {"nheads": 2}))


def test_an_option_that_does_not_apply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "yolos").mkdir()
    detr, yolos = written(tmp_path), written(tmp_path / "yolos", YOLOS_CONFIG, "yolos")
    with pytest.raises(CheckpointError, match="mid-image-size does not apply"):
        open_detector(detr, DetectorOptions(mid_image_size=(32, 48)))
    with pytest.raises(CheckpointError, match="image-size does not apply"):
        open_detector(detr, DetectorOptions(image_size=(32, 48)))
    with pytest.raises(CheckpointError, match="dilation does not apply"):
        open_detector(yolos, DetectorOptions(num_heads=2, dilation=True))
    for option in (DetectorOptions(pool="mean"), DetectorOptions(allow_partial=True)):
        with pytest.raises(CheckpointError, match="does not apply"):
            open_detector(detr, option)
    with pytest.raises(CheckpointError, match="width 8 is not divisible by 3 heads"):
        open_detector(detr, DetectorOptions(num_heads=3))


def test_yolos_without_its_arguments_asks_for_the_shapes_of_its_tables(tmp_path: Path) -> None:
    bare = saved(tmp_path, tensors_of(written(tmp_path, YOLOS_CONFIG, "yolos")))
    told = {"num_heads": 2}
    with pytest.raises(MissingFact, match="image-size"):
        open_detector(bare, DetectorOptions(**told))
    with pytest.raises(MissingFact, match="for 5 patches") as error:
        open_detector(bare, DetectorOptions(**told, image_size=(32, 48)))
    assert "mid_image_size" in error.value.fix
    found = load_detector(
        bare, device="cpu", options=DetectorOptions(**told, image_size=(32, 48), mid_image_size=(16, 80))
    )
    assert isinstance(found.card.config, YolosConfig)
    assert found.card.config.backbone.positions == BACKBONE.positions
    assert found.card.config.backbone.grid_size == BACKBONE.grid_size
    assert found.preprocess == capped(800, 1333, 16)


def test_neither_kind_of_file_is_taken_for_the_other(tmp_path: Path) -> None:
    for config, to in ((DETR_CONFIG, "detr"), (YOLOS_CONFIG, "yolos")):
        (tmp_path / to).mkdir()
        path = written(tmp_path / to, config, to)
        with pytest.raises(UnknownLayout, match="detector") as told:
            open_foreign(path, Options())
        assert "load_detector" in told.value.fix
    classifier = saved(tmp_path, {"blocks.0.norm1.weight": torch.zeros(2), "head.weight": torch.zeros(2, 2)})
    with pytest.raises(UnknownLayout, match="no supported detector"):
        load_detector(classifier)


@pytest.mark.parametrize(
    ("config", "to", "said"),
    [
        (DETR_CONFIG, "transformers-detr", "a dilated trunk other than ResNet-50"),
        (
            replace(PLAIN, trunk=replace(TRUNK, dilation=False, root=16, middle=(1, 2, 2, 4))),
            "transformers-detr",
            "a quarter",
        ),
        (DETR_CONFIG, "yolos", "another model than YOLOS"),
        (YOLOS_CONFIG, "transformers-detr", "another model than DETR"),
        (replace(PLAIN, order="pre"), "transformers-detr", "norms before the branches"),
        (replace(DETR_CONFIG, decoder_norm="between"), "detr", "between the decoder's layers"),
        (replace(DETR_CONFIG, decoder_heads=4), "detr", "other attention heads"),
        (replace(DETR_CONFIG, eps=1e-6), "detr", "another epsilon"),
        (YOLOS_CONFIG, "transformers-yolos", "resampled by count"),
        (
            replace(YOLOS_CONFIG, backbone=replace(BACKBONE, norm=replace(BACKBONE.norm, eps=1e-12))),
            "yolos",
            "epsilon",
        ),
        (
            replace(YOLOS_CONFIG, backbone=replace(BACKBONE, block=replace(BACKBONE.block, layer_scale=0.1))),
            "yolos",
            "YOLOS' code does not build",
        ),
    ],
    ids=str,
)
def test_a_format_that_cannot_hold_a_detector_says_so_and_leaves_nothing(
    config: DetrConfig | YolosConfig, to: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=said):
        written(tmp_path, config, to)
    assert not list(tmp_path.iterdir())


def test_the_variants_of_detr_come_back(tmp_path: Path) -> None:
    for index, change in enumerate(
        ({"order": "pre"}, {"positions": "learned"}, {"decoder_hidden": None}, {"dropout": 0.0})
    ):
        config = replace(DETR_CONFIG, **change)  # type: ignore[arg-type]
        (tmp_path / str(index)).mkdir()
        assert open_detector(written(tmp_path / str(index), config)).card.config == config
    for index, change in enumerate(
        ({"decoder_norm": "between"}, {"positions": "learned"}, {"decoder_heads": 4, "decoder_hidden": 6})
    ):
        config = replace(PLAIN, **change)  # type: ignore[arg-type]
        (tmp_path / f"t{index}").mkdir()
        opened = open_detector(written(tmp_path / f"t{index}", config, "transformers-detr"))
        assert opened.card.config == config and opened.card.classes == CLASSES


def test_both_spellings_of_the_trunk_are_written_and_read(tmp_path: Path) -> None:
    model = DETR(PLAIN)
    card = DetectorCard(config=PLAIN, preprocess=capped(800, 1333), classes=CLASSES)
    layout = detector_layout("transformers-detr")
    for trunk, first in (("timm", "conv1.weight"), ("transformers", "embedder.embedder.convolution.weight")):
        spelling = {"trunk": trunk, "tables": "model.position_embedding."}
        written = write_detector(card, model.state_dict(), layout, tmp_path / trunk, spelling)
        assert f"model.backbone.conv_encoder.model.{first}" in written.reopened.checkpoint.tensors
        back = read_detector_tensors(written.reopened)
        assert all(torch.equal(tensor, back[name]) for name, tensor in model.state_dict().items())


def test_an_unknown_format_is_told_the_nearest(tmp_path: Path) -> None:
    found = load_detector(written(tmp_path), device="cpu")
    with pytest.raises(CheckpointError, match="'transformers-detr'"):
        found.write(tmp_path / "out", to="transformer-detr")


def test_class_names_must_be_as_many_as_the_outputs(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gives 1 name, but the head has 2 outputs"):
        open_detector(written(tmp_path), DetectorOptions(classes=("one",)))


def test_both_forms_of_transformers_size_are_read() -> None:
    for values, wanted in (
        ({"size": 640, "max_size": 1000, "feature_extractor_type": "DetrFeatureExtractor"}, (640, 1000)),
        ({"size": {"shortest_edge": 640, "longest_edge": 1000}}, (640, 1000)),
        ({"size": 640}, (640, 1333)),
        ({"do_normalize": True}, (800, 1333)),
    ):
        for name, multiple in (("Detr", 1), ("Yolos", 16)):
            told = JsonConfig("file", {"image_processor_type": f"{name}ImageProcessor", **values}, "its file")
            found = read_preprocess(told, name, 3, (800, 1333))
            assert found is not None
            expected = Capped(shorter=wanted[0], longest=wanted[1], longer="exact", multiple=multiple)
            assert found.resize == expected
            assert found.resample.interpolation == "bilinear" and found.mean == (0.485, 0.456, 0.406)
