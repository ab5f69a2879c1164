"""Names of the hub, which files are taken, and what is said when the way to it is broken."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from patchword.errors import CheckpointError, OutputError, UnsafeFile
from patchword.hub.download import fetch
from patchword.hub.files import choose
from patchword.hub.find import find_weights
from patchword.hub.names import HubName, is_hub, parse
from support.hub import Hub

WANTED = HubName(org="org", name="net")


@pytest.mark.parametrize(
    ("text", "revision", "file"),
    [
        ("hf://org/net", "", ""),
        ("hf://org/net@v1.0", "v1.0", ""),
        ("hf://org/net/sub/a.pth", "", "sub/a.pth"),
        ("hf://org/net@v1/sub/a.pth", "v1", "sub/a.pth"),
        ("hf://org/net/sub/a.pth@v1", "v1", "sub/a.pth"),
        ("hf://org/net@refs/pr/12/a.npz", "refs/pr/12", "a.npz"),
        ("hf://org/net@feature%2Fx", "feature/x", ""),
    ],
)
def test_a_name_says_model_revision_and_file(text: str, revision: str, file: str) -> None:
    name = parse(text)
    assert (name.repo, name.revision, name.file) == ("org/net", revision, file)
    assert parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "hf://net", "hf:///net", "hf://org/", "hf://org/net@", "hf://org/net@v1@v2", "hf://org/../x",
        "hf://org/net/../../x", "hf://org/net@../x", "hf://org/a b", "hf://datasets/org/net", "hf://org/net//x",
        "hf://org/a--b", "hf://org/net@v1/%2e./x@y", "hf://örg/net",
    ],
)  # fmt: skip
def test_a_malformed_name_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse(text)
    assert text in caught.value.message and "hf://org/name@revision" in caught.value.fix


def test_a_path_is_no_name_of_the_hub() -> None:
    assert is_hub("hf://org/net") and not is_hub("runs/hf") and not is_hub("hf:/org/net")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("org/net", "hf://org/net"),
        ("https://hub.example/org/net-b16/", "hf://org/net-b16"),
        ("https://hub.example/org/net/tree/v1", "hf://org/net@v1"),
    ],
)
def test_a_name_without_its_hf_is_answered_with_the_one_to_write(given: str, written: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(given)
    assert caught.value.fix.endswith(written)


def test_a_file_that_is_missing_is_not_looked_for_on_the_hub() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights("models/net.safetensors")
    assert "hf://" not in caught.value.fix


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (
            ["flax_model.msgpack", "tf_model.h5", "pytorch_model.bin", "model.safetensors"],
            "model.safetensors",
        ),
        (["pytorch_model.bin", "onnx/model.onnx", "training_args.bin", "optimizer.pt"], "pytorch_model.bin"),
        (["model.safetensors.index.json", "model-1.safetensors", "x.bin"], "model.safetensors.index.json"),
        (["open_clip_pytorch_model.bin", "open_clip_model.safetensors"], "open_clip_model.safetensors"),
        (["last.safetensors", "best.safetensors", "config.toml"], "last.safetensors"),
        (["mae_base.pth", "README.md", "training_args.bin"], "mae_base.pth"),
        (["a.pth", "a.safetensors"], "a.safetensors"),
        (["B_16.npz"], "B_16.npz"),
    ],
)
def test_one_weights_file_is_taken(files: list[str], weights: str) -> None:
    assert choose(files, WANTED).weights == weights


def test_configs_come_from_the_folder_of_the_weights() -> None:
    files = ["config.json", "tokenizer.json", "model.safetensors", "sub/config.json", "sub/a.pth"]
    assert choose(files, WANTED).configs == ("config.json",)
    assert choose(files, parse("hf://org/net/sub/a.pth")).configs == ("sub/config.json",)


@pytest.mark.parametrize(
    ("files", "telling", "fix"),
    [
        (["a.pth", "b.pth", "README.md"], "2 weights files: a.pth, b.pth", "hf://org/net/a.pth"),
        (["x/a.pth", "README.md"], "in folders: x/a.pth", "hf://org/net/x/a.pth"),
        (["flax_model.msgpack"], "no weights file that patchword reads", "choose a model"),
        ([], "files: none", "choose a model"),
    ],
)
def test_what_cannot_be_chosen_is_listed(files: list[str], telling: str, fix: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        choose(files, WANTED)
    assert telling in caught.value.message and fix in caught.value.fix


def keep(hub: Hub, files: dict[str, bytes], *names: str) -> str:
    return hub.repos["org/net"].commit(files, *(names or ("main",)))


def sharded(*shards: str) -> dict[str, bytes]:
    index = {"weight_map": {f"t{i}": shard for i, shard in enumerate(shards)}}
    return {"model.safetensors.index.json": json.dumps(index).encode(), "config.json": b"{}"}


def test_a_sharded_model_comes_whole_and_is_found_offline(hub: Hub) -> None:
    keep(hub, sharded("a.safetensors", "b.safetensors") | {"a.safetensors": b"1", "b.safetensors": b"2"})
    found = fetch("hf://org/net")
    assert found.path.name == "model.safetensors.index.json"
    assert {p.name for p in found.path.parent.iterdir()} == {
        "a.safetensors", "b.safetensors", "config.json", found.path.name,
    }  # fmt: skip
    assert fetch("hf://org/net", offline=True) == found
    (found.path.parent / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete.*'b\.safetensors'"):
        fetch("hf://org/net", offline=True)


@pytest.mark.parametrize("shard", ["../../../evil.safetensors", "/etc/passwd", "..\\evil"])
def test_an_index_that_points_outside_its_folder_is_refused(hub: Hub, shard: str) -> None:
    keep(hub, sharded(shard))
    with pytest.raises(UnsafeFile, match="outside its folder"):
        fetch("hf://org/net")


def test_a_pinned_commit_needs_no_hub_once_it_is_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keep(hub, {"a.npz": b"1"})
    found = fetch(f"hf://org/net@{first}")
    assert found.source == f"hf://org/net@{first}" and found.revision == first
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch(f"hf://org/net@{first}") == found
    with pytest.raises(CheckpointError, match="only as another revision"):
        fetch("hf://org/net", offline=True)


def test_a_branch_that_moved_on_is_fetched_anew_and_offline_means_the_last_one_seen(hub: Hub) -> None:
    keep(hub, {"a.npz": b"1"})
    old = fetch("hf://org/net/a.npz")
    keep(hub, {"a.npz": b"2"})
    assert fetch("hf://org/net/a.npz", offline=True) == old
    new = fetch("hf://org/net/a.npz")
    assert new.path.read_bytes() == b"2" and old.path.read_bytes() == b"1"
    assert fetch("hf://org/net/a.npz", offline=True) == new
    assert new.source == f"hf://org/net@{new.revision}/a.npz"


def test_a_copied_cache_folder_is_found(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(hub, {"a.npz": b"1"})
    fetch("hf://org/net")
    shutil.copytree(tmp_path / "cache" / "models--org--net", tmp_path / "stick" / "models--org--net")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "stick"))
    assert fetch("hf://org/net", offline=True).path.read_bytes() == b"1"


def test_a_hub_that_goes_away_in_the_middle_is_told_and_the_next_call_works(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(hub, {"a.npz": bytes(20_000)})
    hub.breaks, hub.silent_after_break = 1, True
    with pytest.raises(CheckpointError, match=r"download of a\.npz was interrupted") as caught:
        fetch("hf://org/net")
    assert "run the command again" in caught.value.fix
    with pytest.raises(CheckpointError, match="net is not in the cache"):
        fetch("hf://org/net", offline=True)
    hub.silent_after_break = False
    assert fetch("hf://org/net").path.stat().st_size == 20_000


@pytest.mark.parametrize(
    ("status", "telling"), [(503, "server error"), (429, "too many requests"), (418, "refuses")]
)
def test_an_unwilling_hub_is_quoted(hub: Hub, status: int, telling: str) -> None:
    hub.status = status
    with pytest.raises(CheckpointError, match=f"{telling}.*{status}"):
        fetch("hf://org/net")


def test_a_log_in_page_in_between_is_told(hub: Hub) -> None:
    hub.page = b"<html>please log in</html>"
    with pytest.raises(CheckpointError, match="does not respond like a hub") as caught:
        fetch("hf://org/net")
    assert "HF_ENDPOINT" in caught.value.fix


def test_too_little_room_is_told_before_anything_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(hub, {"a.npz": bytes(20_000)})
    full = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(OutputError, match=r"a\.npz cannot be written to the cache") as caught:
        fetch("hf://org/net")
    assert "HF_HOME" in caught.value.fix and not hub.sent("a.npz")


def test_a_cache_that_cannot_be_written_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(hub, {"a.npz": b"1"})
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written to the cache"):
        fetch("hf://org/net")
