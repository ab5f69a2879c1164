"""Adapted models: what was resampled answers as before, what is kept is untouched, what is new answers nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from patchword.errors import CheckpointError, SettingsError
from patchword.images.preprocess import Preprocess, sized_as
from patchword.inference.load import model_of
from patchword.model.config import HeadConfig, ImageConfig, ViTConfig
from patchword.model.vit import ViT
from patchword.weights.adapt import Adapted, Wanted, adapt
from patchword.weights.card import ModelCard
from support.vit_configs import POSITIONS, tiny

NAMES = ("rose", "tulip", "aster", "daisy", "lily")


def made(config: ViTConfig) -> tuple[ModelCard, dict[str, Tensor]]:
    vit = ViT(config, torch.Generator().manual_seed(3))
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    preprocess = Preprocess.simple(config.image.size, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    classes = NAMES[: config.head.num_classes]
    return ModelCard(config=config, preprocess=preprocess, classes=classes), dict(vit.state_dict())


def answer(card: ModelCard, tensors: "dict[str, Tensor]", images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model_of(card, dict(tensors), path=Path("x")).vit(images)
    return logits


def after(done: Adapted, images: Tensor) -> Tensor:
    return answer(done.card, dict(done.tensors), images)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", POSITIONS)
def test_another_size_stored_answers_as_another_size_at_run_time(name: str) -> None:
    card, tensors = made(POSITIONS[name])
    done = adapt(card, tensors, Wanted(image_size=(40, 30)))
    x = images(2, 3, 40, 30)
    assert torch.allclose(after(done, x), answer(card, tensors, x), atol=1e-5)
    assert done.card.config.image.size == done.card.preprocess.image_size == (40, 30)


@pytest.mark.parametrize(
    "wanted", [Wanted(classes=NAMES[:2]), Wanted(channels=4), Wanted(patch_size=(4, 4))], ids=str
)
def test_images_of_another_size_than_the_tables_stay_so_where_no_size_is_asked(wanted: Wanted) -> None:
    card, tensors = made(tiny())
    card = replace(card, preprocess=sized_as(card.preprocess, (40, 30)))
    done = adapt(card, tensors, wanted)
    assert done.card.preprocess.image_size == (40, 30)
    assert done.card.preprocess.resize == card.preprocess.resize
    assert done.card.config.image.size == card.config.image.size


def test_its_own_size_changes_nothing() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(image_size=card.config.image.size))
    assert not done.changes and done.kept == len(tensors)
    assert all(torch.equal(done.tensors[name], tensors[name]) for name in tensors)


def test_enlarged_patches_give_the_same_tokens() -> None:
    """A picture resized patch by patch, and the kernel with it: the product stays (FlexiViT's reason)."""
    from patchword.model.kinds import Resample
    from patchword.model.resample import _resize_matrix, resample_kernel

    rule = Resample(interpolation="bilinear", antialias=False)
    kernel, patch = images(5, 3, 8, 6), images(3, 8, 6)
    down, across = (_resize_matrix(old, new, rule) for old, new in ((8, 13), (6, 12)))
    larger = down @ patch.double() @ across.T
    before = (kernel * patch).sum((1, 2, 3))
    with_resampled = (resample_kernel(kernel.double(), (13, 12), rule) * larger).sum((1, 2, 3))
    assert torch.allclose(before.double(), with_resampled, atol=1e-5)


def test_another_patch_keeps_the_image_and_changes_the_grid() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(patch_size=(4, 6)))
    assert done.card.config.image.size == (16, 24) and done.card.config.grid_size == (4, 4)
    assert after(done, images(1, 3, 16, 24)).isfinite().all()
    assert {change.part for change in done.changes} == {"patch_embed.proj.weight", "positions.grid"}


@pytest.mark.parametrize("patch", ["plain", "norms around it"])
def test_inflated_channels_answer_a_repeated_picture_as_before(patch: str) -> None:
    config = tiny()
    if patch != "plain":
        config = replace(config, patch=replace(config.patch, norm_pixels=True, norm_output=True))
    card, tensors = made(config)
    done = adapt(card, tensors, Wanted(channels=6))
    x = images(2, 3, 16, 24)
    assert torch.allclose(after(done, torch.cat((x, x), 1)), answer(card, tensors, x), atol=1e-5)
    assert done.card.preprocess.in_channels == 6 and done.card.preprocess.mean == (0.4, 0.5, 0.6) * 2


def test_one_grey_channel_answers_as_three_equal_ones() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(channels=1))
    grey = images(2, 1, 16, 24)
    assert torch.allclose(after(done, grey), answer(card, tensors, grey.expand(-1, 3, -1, -1)), atol=1e-5)


def test_averaged_channels_do_not_care_for_their_order() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(channels=4, how="average"))
    x = images(2, 4, 16, 24)
    assert torch.allclose(after(done, x), after(done, x.flip(1)), atol=1e-5)
    grey = x[:, :1]
    as_before = answer(card, tensors, grey.expand(-1, 3, -1, -1))
    assert torch.allclose(after(done, grey.expand(-1, 4, -1, -1)), as_before, atol=1e-5)


def test_mapped_channels_answer_the_picture_in_their_order() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(channels=3, how="map", source=(2, 1, 0)))
    x = images(2, 3, 16, 24)
    assert torch.allclose(after(done, x.flip(1)), answer(card, tensors, x), atol=1e-5)
    assert done.card.preprocess.mean == (0.6, 0.5, 0.4)


def test_classes_in_common_keep_their_rows_and_answer() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(classes=("lily", "rose")))
    x = images(2, 3, 16, 24)
    assert torch.allclose(after(done, x), answer(card, tensors, x)[:, [4, 0]], atol=1e-6)
    assert done.card.untrained == ()


def test_a_new_class_is_announced_and_nothing_answers_through_it() -> None:
    card, tensors = made(tiny())
    done = adapt(card, tensors, Wanted(classes=("rose", "tulips")))
    assert done.card.untrained == ("head",) and "did you mean 'tulip'" in done.notes[0]
    model = model_of(done.card, dict(done.tensors), path=Path("x"))
    with pytest.raises(CheckpointError, match="its head is untrained"):
        model(images(1, 3, 16, 24))
    assert torch.equal(done.tensors["head.weight"][0], tensors["head.weight"][0])


def test_a_backbone_gets_a_new_head() -> None:
    card, tensors = made(tiny(head=HeadConfig(num_classes=0)))
    done = adapt(card, tensors, Wanted(classes=("a", "b", "c")))
    assert done.tensors["head.weight"].shape == (3, 24) and done.card.untrained == ("head",)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(channels=2, how="map", source=(0, 3)), "does not select 2 of 3 channels"),
        (Wanted(channels=2, how="map", source=(0,)), "does not select 2 of 3 channels"),
        (Wanted(channels=4, source=(0, 1, 2, 2)), "only used with how = map"),
        (Wanted(classes=("a", "a")), "'a' is listed twice"),
        (Wanted(classes=()), "no classes are given"),
        (Wanted(patch_size=(0, 4)), "patch_size is"),
    ],
)
def test_wishes_that_contradict_are_refused(wanted: Wanted, words: str) -> None:
    card, tensors = made(tiny())
    with pytest.raises(SettingsError) as refused:
        adapt(card, tensors, wanted)
    assert words in refused.value.message and refused.value.fix


def test_scores_of_the_old_model_do_not_travel() -> None:
    card, tensors = made(tiny(image=ImageConfig(size=(16, 24))))
    card = replace(card, provenance=replace(card.provenance, metrics={"top1": 0.9}, licence="mit"))
    done = adapt(card, tensors, Wanted(image_size=(32, 48)))
    assert not done.card.provenance.metrics and done.card.provenance.licence == "mit"
    assert "positions.grid" in str(done.card.provenance.facts["adapted"])
