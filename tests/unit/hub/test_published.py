"""The well-known releases: every fact has a source, every name means one release, every count adds up."""

import tomllib
from dataclasses import is_dataclass, replace

import pytest

from patchword.errors import CheckpointError
from patchword.hub import published
from patchword.hub.published import (
    FACTS,
    Release,
    class_names,
    find_release,
    licences_in_use,
    parse,
    release_of_file,
    release_of_hub,
    releases,
)
from patchword.model.cost import cost
from patchword.model.sizes import SIZES, sized
from patchword.settings import leaves

FAMILIES = {
    "AugReg", "BEiT", "BEiT v2", "BiomedCLIP", "CLIP", "DETR", "DINO", "DINOv2", "DINOv3", "DeiT", "DeiT III", "EVA-02", "FlexiViT",
    "H-optimus", "I-JEPA", "MAE", "Phikon", "Prov-GigaPath", "RAD-DINO", "RETFound", "SigLIP", "SigLIP 2", "UNI", "ViT", "ViT (SAM-trained)", "Virchow", "YOLOS", "open_clip", "torchvision",
}  # fmt: skip
# Families whose networks are the named sizes, with nothing added.
PLAIN = {"AugReg", "DINO", "DeiT", "MAE", "ViT", "ViT (SAM-trained)", "torchvision"}


def _facts(release: Release) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in FACTS:
        value = getattr(release, name)
        found |= leaves(value, f"{name}.") if is_dataclass(value) else {name: value}
    return {path: value for path, value in found.items() if value not in (None, (), "")}


def test_every_family_is_there() -> None:
    assert {release.family for release in releases()} == FAMILIES


def test_every_fact_has_a_source() -> None:
    without = [(r.name, fact) for r in releases() for fact in _facts(r) if not r.source_of(fact)]
    assert not without
    assert all(score.source for release in releases() for score in release.scores)


def test_every_release_says_where_it_lies_and_whose_work_it_is() -> None:
    for release in releases():
        place = release.place
        assert place.hub or place.url or place.page, release.name
        if place.url:
            assert place.url.startswith("https://") and place.url.endswith((".pth", ".pt", ".npz", ".tar"))
        assert release.papers, release.name


def test_a_plain_network_has_as_many_parameters_as_its_named_size() -> None:
    checked = 0
    for release in releases():
        model = release.model
        if release.family in PLAIN and model.parameters and model.size and "distilled" not in release.name:
            classes = release.classes.count if release.classes else 0
            config = sized(model.size, image_size=model.image_size, num_classes=classes)
            if release.name.startswith("vit_models/imagenet21k/"):  # a layer with tanh before the head
                config = replace(config, head=replace(config.head, pre_logits=config.dim))
            assert cost(config).parameters == model.parameters, release.name
            assert config.attention.num_heads == model.num_heads and config.patch.size == model.patch_size
            checked += 1
    assert checked > 100


def test_sizes_are_named_sizes_and_numbers_are_sane() -> None:
    for release in releases():
        assert release.model.size in (None, *SIZES), release.name
        assert all(0 < score.value < 100 for score in release.scores), release.name
        for licence in (release.licence.code, release.licence.weights):
            assert licence is None or licence == licence.lower()


def test_every_head_has_exactly_its_number_of_names_and_no_name_twice() -> None:
    counts = {(r.classes.names, r.classes.count) for r in releases() if r.classes}
    assert len(counts) == 4 and all(names for names, _ in counts)
    for names, count in counts:
        found = class_names(names or "")
        assert len(found) == count
        assert names == "coco-91" or len(set(found)) == count


@pytest.mark.parametrize(
    ("names", "row", "name"),
    [
        ("imagenet-1k", 0, "tench"),
        ("imagenet-1k", 999, "toilet tissue"),
        ("imagenet-21k", 9205, "picture, image, icon, ikon"),
        ("imagenet-21k", 0, "organism, being"),
        ("imagenet-22k", 9205, "picture frame"),
        ("coco-91", 1, "person"),
        ("coco-91", 90, "toothbrush"),
    ],
)
def test_names_stand_at_their_rows(names: str, row: int, name: str) -> None:
    assert class_names(names)[row] == name


def test_an_unknown_list_of_names_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(
        CheckpointError, match=r"imagenet-2k.*\n.*coco-91, imagenet-1k, imagenet-21k, imagenet-22k"
    ):
        class_names("imagenet-2k")


def test_every_full_name_finds_its_release_whatever_its_case() -> None:
    for release in releases():
        assert find_release(release.name) is release
        assert find_release(release.name.upper()) is release


def test_a_bare_name_of_several_releases_is_refused_with_the_list() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_release("vit_base_patch16_224")
    assert "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k" in caught.value.message
    assert "google/vit-base-patch16-224" in caught.value.message
    with pytest.raises(CheckpointError, match=r"and [0-9]+ more"):
        find_release("ViT-B/16")


def test_a_bare_name_of_one_release_finds_it() -> None:
    assert find_release("dinov2_vits14").name == "facebookresearch/dinov2_vits14"
    assert find_release("detr_resnet50").name == "facebookresearch/detr-r50"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"near: .*dinov2"):
        find_release("facebook/dinov2-bas")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("deit_tiny_patch16_224-a1311bcf.pth", "facebookresearch/deit_tiny_patch16_224"),
        ("mae_pretrain_vit_base.pth", "facebookresearch/mae_pretrain_vit_base"),
        ("dinov2_vits14_pretrain.pth", "facebookresearch/dinov2_vits14"),
        ("ViT-B-32.pt", "openai/ViT-B-32"),
        ("vit_b_16-c867db91.pth", "torchvision/vit_b_16.IMAGENET1K_V1"),
        ("siglip2_b16_naflex.npz", "big_vision/siglip2/siglip2_b16_naflex"),
    ],
)
def test_a_file_is_known_by_the_name_it_was_published_under(file: str, name: str) -> None:
    release = release_of_file(file)
    assert release is not None and release.name == name


def test_a_file_name_that_several_releases_share_or_none_has_tells_nothing() -> None:
    assert release_of_file("ViT-B_16.npz") is None and release_of_file("model.pth") is None


def test_asking_for_one_file_parses_one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    parse_all = published.parse
    monkeypatch.setattr(published, "parse", lambda text, where: asked.append(where) or parse_all(text, where))
    published._family.cache_clear()
    assert release_of_file("detr-r50-e632da11.pth") is not None and release_of_file("nothing.pth") is None
    assert asked == ["detr.toml"]


def test_a_folder_of_the_hub_is_known_and_one_with_many_files_needs_the_file() -> None:
    release = release_of_hub("google/vit-base-patch16-224")
    assert release is not None and release.format == "transformers"
    assert release_of_hub("Yuxin-CV/EVA-02") is None
    eva = release_of_hub("Yuxin-CV/EVA-02", "eva02/pt/eva02_Ti_pt_in21k_p14.pt")
    assert eva is not None and eva.name == "Yuxin-CV/eva02_Ti_pt_in21k_p14"


def test_preprocessing_differs_where_the_publishers_differ() -> None:
    google, deit = find_release("google/vit-base-patch16-224"), find_release("facebook/deit-base-patch16-224")
    ours, theirs = google.preprocess(), deit.preprocess()
    assert ours is not None and theirs is not None
    assert ours.mean == (0.5,) and theirs.mean == (0.485, 0.456, 0.406)
    assert ours.plan((300, 400)).resized == (224, 224) and theirs.plan((300, 400)).resized == (256, 256)


def test_licences_are_listed_for_the_filter() -> None:
    assert {"apache-2.0", "cc-by-nc-4.0", "dinov3-license", "mit"} <= set(licences_in_use())
    gated = {release.family for release in releases() if release.licence.gated}
    assert gated == {"DINOv3", "H-optimus", "Prov-GigaPath", "UNI", "Virchow"}


HEAD = '[sources]\nhere = "a page"\n[common]\nfamily = "F"\nformat = "timm"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[release]]\nname = 1", "lacks|name is 1"),
        (HEAD + '[[release]]\nname = "a"\nhubb = "x"', "unknown setting 'hubb'"),
        (
            HEAD + '[[release]]\nname = "a"\nlicence = { weight = "mit" }',
            "licence.weight.*did you mean 'weights'",
        ),
        (HEAD + '[[release]]\nname = "a"\nsources = { licence = "there" }', "no source is called 'there'"),
        (HEAD + '[[release]]\nname = "a"\nsources = { licnce = "here" }', "'licnce', which is not a fact"),
        (HEAD + '[[release]]\nname = "a"\ngroup = "g"', "no group is called 'g'"),
        (HEAD + '[[release]]\nname = "a"\nformat = "tim"', "did you mean 'timm'"),
        (HEAD + '[[relase]]\nname = "a"', "unknown table 'relase'"),
        ("[", "x.toml"),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_release(text: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        parse(text, "x.toml")


def test_tables_are_laid_over_each_other_and_a_new_kind_replaces_the_old() -> None:
    preprocessing = 'preprocessing = { image_size = [8, 8], resize = { kind = "shorter", size = 9 } }\n'
    text = (
        HEAD
        + preprocessing
        + '[[release]]\nname = "a"\npreprocessing = { resize = { kind = "squash", size = [8, 8] } }'
    )
    (release,) = parse(text, "x.toml")
    made = release.preprocess()
    assert made is not None and made.resize.kind == "squash" and made.image_size == (8, 8)


def test_no_source_stands_in_a_file_unused() -> None:
    for text in published._texts().values():
        data = tomllib.loads(text)
        tables = [data.get("common", {}), *data.get("group", {}).values(), *data["release"]]
        used = {key for table in tables for key in table.get("sources", {}).values()}
        used |= {score["source"] for table in tables for score in table.get("scores", [])}
        assert set(data["sources"]) == used
