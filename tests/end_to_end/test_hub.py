"""`patchword predict hf://…` as a user runs it, with a local hub: cache, offline, tokens, errors."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from PIL import Image

from patchword.images.preprocess import Preprocess
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.weights.card import ModelCard
from patchword.weights.native import write_model
from support.hub import TOKEN, Hub, Repo, running_hub
from support.parity import committed

# The command, in a process that detects every connection and name lookup.
SEALED = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError(f"a socket was opened: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = refuse
socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
class Sealed(socket.socket):
    __init__ = refuse
socket.socket = Sealed
from patchword.cli.main import main; main()
"""


@dataclass(kw_only=True)
class Desk:
    """The environment of the command: a hub with org/flowers (v1 and main differ), and an image."""

    hub: Hub
    home: Path
    picture: Path
    first: str
    second: str
    also: dict[str, str] = field(default_factory=dict)

    def patchword(
        self, *args: object, code: str = "from patchword.cli.main import main; main()"
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
        places = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            env=clean | places | self.hub.environment(self.home) | self.also,
        )

    def labels(self, *args: object, code: str = "from patchword.cli.main import main; main()") -> list[str]:
        said = self.patchword("predict", *args, self.picture, "--json", code=code)
        assert said.returncode == 0, said.stderr
        return [p["class"] for p in json.loads(said.stdout)[0]["predictions"]]

    def content(self, revision: str) -> bytes:
        flowers = self.hub.repos["org/flowers"]
        return flowers.commits[flowers.revisions[revision]]["model.safetensors"]

    def refused(self, name: str, *args: object) -> str:
        """Run a command that fails before it computes anything; return its two lines."""
        said = self.patchword("predict", name, *args, self.picture)
        assert said.returncode == 2 and not said.stdout and said.stderr.count("\n") == 2, said.stderr
        assert "  fix: " in said.stderr
        return said.stderr


def model_bytes(folder: Path, classes: tuple[str, ...]) -> bytes:
    config = sized("ViT-Ti/16", image_size=32, num_classes=2)
    path = folder / "m.safetensors"
    vit = ViT(config, torch.Generator().manual_seed(0))
    write_model(
        path, vit.state_dict(), ModelCard(config=config, preprocess=Preprocess.simple(32), classes=classes)
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("contents")
    return model_bytes(folder, ("old a", "old b")), model_bytes(folder, ("new a", "new b"))


@pytest.fixture
def desk(contents: tuple[bytes, bytes], tmp_path: Path) -> Iterator[Desk]:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    with running_hub() as hub:
        flowers = hub.repos["org/flowers"] = Repo()
        first = flowers.commit({"model.safetensors": contents[0], "README.md": b"old"}, "v1")
        others = {
            "pytorch_model.bin": b"x",
            "tf_model.h5": b"x",
            "onnx/model.onnx": b"x",
            "config.json": b"{}",
        }
        second = flowers.commit({"model.safetensors": contents[1], **others}, "main")
        hub.repos["org/private"] = Repo(needs="token", **vars_of(flowers))
        hub.repos["org/gated"] = Repo(needs="terms", **vars_of(flowers))
        yield Desk(hub=hub, home=tmp_path / "hf", picture=picture, first=first, second=second)


def vars_of(repo: Repo) -> dict[str, dict]:
    return {"revisions": repo.revisions, "commits": repo.commits}


@pytest.mark.slow
def test_a_model_is_fetched_once_and_then_found_without_a_socket(desk: Desk) -> None:
    assert set(desk.labels("hf://org/flowers")) == {"new a", "new b"}
    hub = desk.hub
    assert hub.sent("model.safetensors") == 1 and hub.sent("config.json") == 1
    unwanted = ("pytorch_model.bin", "tf_model.h5", "model.onnx", "agent-harnesses")
    assert not [line for line in hub.asked if line.endswith(unwanted)]
    assert all(agent.startswith("patchword/") and "torch" not in agent for agent in hub.agents)
    asked = len(hub.asked)
    assert set(desk.labels("hf://org/flowers", "--offline", code=SEALED)) == {"new a", "new b"}
    assert len(hub.asked) == asked


def test_the_offline_variable_opens_no_socket(desk: Desk) -> None:
    where = "from patchword.hub.download import fetch; print(fetch('hf://org/flowers@v1').source)"
    assert desk.patchword(code=where).stdout.strip() == f"hf://org/flowers@{desk.first}"
    desk.also = {"HF_HUB_OFFLINE": "1"}
    sealed = SEALED.replace("from patchword.cli.main import main; main()", where)
    said = desk.patchword(code=sealed)
    assert said.stdout.strip() == f"hf://org/flowers@{desk.first}", said.stderr
    desk.also = {}
    assert "a socket was opened" in desk.patchword(code=sealed).stderr  # the check detects a socket


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("hf://org/gated", ("gated", "accept its terms", "/org/gated", "hf auth login", "HF_TOKEN", "401")),
        ("hf://org/private", ("or a private one", "check the spelling", "hf auth login", "HF_TOKEN", "401")),
        ("hf://org/flowers@v7", ("no revision 'v7'", "v1", "main")),
        ("hf://org/flowers/model.npz", ("no file 'model.npz'", "model.safetensors")),
        ("hf://flowers", ("organisation", "hf://org/name@revision")),
    ],
)
def test_a_missing_token_gives_a_message_with_the_fix(
    desk: Desk, name: str, telling: tuple[str, ...]
) -> None:
    said = desk.refused(name)
    assert all(word in said for word in telling), said


@pytest.mark.parametrize(
    ("token", "name", "telling"),
    [
        ("hf_another", "hf://org/gated", ("has no access yet", "accept its terms", "403")),
        ("hf_another", "hf://org/missing", ("no such model", "your token cannot read", "404")),
        ("bad", "hf://org/flowers", ("does not accept your token", "hf auth login", "401")),
    ],
)
def test_a_wrong_token_is_reported(desk: Desk, token: str, name: str, telling: tuple[str, ...]) -> None:
    desk.also = {"HF_TOKEN": token}
    said = desk.refused(name)
    assert all(word in said for word in telling), said


def test_the_right_token_opens_private_and_gated_models(desk: Desk) -> None:
    desk.also = {"HF_TOKEN": TOKEN}
    code = "from patchword.hub.download import fetch\nfor n in ('private', 'gated'): print(fetch(f'hf://org/{n}').path)"
    paths = desk.patchword(code=code).stdout.split()
    assert len(paths) == 2 and all(Path(p).name == "model.safetensors" and Path(p).is_file() for p in paths)


def test_offline_without_a_copy_reports_how_to_get_one(desk: Desk) -> None:
    said = desk.refused("hf://org/flowers", "--offline")
    assert "models--org--flowers" in said and str(desk.home) in said and "without --offline" in said
    assert not desk.hub.asked


def test_without_a_network_the_message_points_to_the_cached_copy(desk: Desk) -> None:
    fetch = "from patchword.hub.download import fetch; fetch('hf://org/flowers')"
    assert desk.patchword(code=fetch).returncode == 0
    desk.hub.url = "http://127.0.0.1:9"  # nobody listens there
    assert "pass --offline" in desk.refused("hf://org/flowers")
    assert "HF_ENDPOINT" in desk.refused("hf://org/private")


def test_a_broken_download_is_resumed(desk: Desk) -> None:
    desk.hub.breaks = 1
    code = "from patchword.hub.download import fetch; print(fetch('hf://org/flowers@v1').path)"
    said = desk.patchword(code=code)
    if said.returncode:  # huggingface_hub before 1.20 does not take it up itself
        assert "was interrupted" in said.stderr and "run the command again" in said.stderr
        said = desk.patchword(code=code)
    assert not said.stderr and Path(said.stdout.strip()).read_bytes() == desk.content("v1")
    assert desk.hub.sent("model.safetensors") == 2


def test_a_folder_of_another_program_is_read_from_the_hub(desk: Desk) -> None:
    """transformers' own files: the config next to the weights holds facts that no tensor shows."""
    case = committed() / "transformers_small_vit"
    names = ("config.json", "model.safetensors")
    repo = desk.hub.repos["org/theirs"] = Repo()
    commit = repo.commit({name: (case / name).read_bytes() for name in names}, "main")
    said = desk.patchword("inspect", "hf://org/theirs", "--json")
    assert said.returncode == 0, said.stderr
    plain = json.loads(said.stdout)
    assert plain["layout"] == "transformers ViT" and plain["filled"] == 1
    assert plain["provenance"]["source"].startswith(f"hf://org/theirs@{commit}")
    desk.hub.is_silent = True
    again = desk.patchword("predict", "hf://org/theirs", "--offline", desk.picture, code=SEALED)
    assert again.returncode == 0 and "read as transformers ViT" in again.stderr, again.stderr
