"""Names of published releases, and files at an address of their own."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from patchword.errors import CheckpointError
from patchword.hub.fetch import fetch_named, fetch_release
from patchword.hub.find import find_weights
from patchword.hub.published import Release, ReleaseLocation, releases
from patchword.hub.urls import fetch_url
from support.hub import Hub, Repo

CONTENT = bytes(range(256)) * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def on_the_hub() -> Release:
    return next(r for r in releases() if r.place.hub and not r.place.file and r.name == r.place.hub)


def test_a_published_name_is_fetched_from_its_place_on_the_hub(hub: Hub) -> None:
    release = on_the_hub()
    repo = hub.repos[release.name] = Repo()
    commit = repo.commit({"model.safetensors": b"1", "config.json": b"{}"}, "main")
    found = find_weights(release.name)
    assert found.path.name == "model.safetensors"
    assert found.source == f"hf://{release.name}@{commit}" == found.why
    assert find_weights(release.name, offline=True) == found


def test_what_lies_at_the_path_goes_before_a_published_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(on_the_hub().name)
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert find_weights(on_the_hub().name).path == path and not hub.asked


def test_a_bare_name_of_several_releases_is_refused_with_all_of_them(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="releases") as caught:
        find_weights("ViT-B/16")
    assert "full names" in caught.value.fix and not hub.asked


def test_other_names_are_left_to_paths() -> None:
    assert fetch_named("runs/nothing-of-the-kind") is None


def test_a_release_at_an_address_is_fetched_once_and_checked(hub: Hub) -> None:
    hub.files["/some/net.pth"] = CONTENT
    place = ReleaseLocation(url=f"{hub.url}/some/net.pth", sha256=DIGEST)
    release = replace(on_the_hub(), place=place)
    found = fetch_release(release)
    assert found.path.read_bytes() == CONTENT and found.revision == DIGEST and found.source == place.url
    assert fetch_release(release, offline=True) == found and hub.sent("net.pth") == 1


@pytest.mark.parametrize("promise", ["sha256", "name"])
def test_another_content_than_the_published_one_is_refused(hub: Hub, promise: str) -> None:
    name, sha256 = ("net.pth", "0" * 64) if promise == "sha256" else ("net-00000000.pth", "")
    hub.files[f"/{name}"] = CONTENT
    with pytest.raises(CheckpointError, match=DIGEST):
        fetch_url(f"{hub.url}/{name}", sha256=sha256)
    with pytest.raises(CheckpointError, match="not in the cache"):
        fetch_url(f"{hub.url}/{name}", offline=True)


def test_a_promise_in_the_name_that_holds_is_no_matter(hub: Hub) -> None:
    hub.files[f"/net-{DIGEST[:8]}.pth"] = CONTENT
    assert fetch_url(f"{hub.url}/net-{DIGEST[:8]}.pth").read_bytes() == CONTENT


def test_a_file_that_is_cut_off_leaves_nothing_and_the_next_call_works(hub: Hub, tmp_path: Path) -> None:
    hub.files["/net.pth"] = CONTENT
    hub.breaks = 1
    with pytest.raises(CheckpointError, match="cannot be downloaded") as caught:
        fetch_url(f"{hub.url}/net.pth")
    assert "run it again" in caught.value.fix
    assert not [p for p in (tmp_path / "assets").rglob("*") if p.is_file()]
    assert fetch_url(f"{hub.url}/net.pth").read_bytes() == CONTENT


def test_an_address_without_a_file_or_a_server_is_told(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="responds with 404"):
        fetch_url(f"{hub.url}/net.pth")
    with pytest.raises(CheckpointError, match=r"cannot be downloaded.*refused"):
        fetch_url("http://127.0.0.1:9/net.pth")


def test_offline_the_place_for_the_file_is_named_and_a_file_put_there_is_taken(hub: Hub) -> None:
    url = f"{hub.url}/net.pth"
    with pytest.raises(CheckpointError) as caught:
        fetch_url(url, offline=True)
    place = Path(caught.value.fix.split()[-1])
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert fetch_url(url, offline=True) == place and not hub.asked


def test_a_mistyped_published_name_is_told_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="similar published names: 'facebook/dinov2-base'"):
        find_weights("facebook/dinov2-bse")


@pytest.mark.parametrize("name", ["facebook/detr-resnet-50", "yolos-tiny", "facebookresearch/detr-r50"])
def test_a_published_detector_is_refused_before_it_is_fetched(hub: Hub, name: str) -> None:
    with pytest.raises(CheckpointError, match="detector, which predicts boxes"):
        find_weights(name)
    assert not hub.asked


def test_a_published_model_without_boxes_is_no_detector(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="a model without boxes"):
        find_weights("facebook/dinov2-base", detector=True)
    assert not hub.asked
