"""`patchword diagnose` on files as students write them."""

import json
from pathlib import Path

import pytest

from patchword.cli.main import run

Output = pytest.CaptureFixture[str]

# The smallest file with a ViT: one block, so that a command takes a second.
MODEL = """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self, width=32, heads=2):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        w = (q @ k.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(-1)
        return self.out((w @ v).transpose(1, 2).reshape(b, n, d))

class Block(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

class ViT(nn.Module):
    def __init__(self, size=SIZE, channels=CHANNELS, width=32):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, PATCH, PATCH)
        n = (size // PATCH) ** 2
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, n + 1, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        RETURN
"""


def write(
    path: Path,
    *,
    size: int = 32,
    channels: int = 3,
    patch: int = 8,
    returned: str = "return self.head(self.norm(x)[:, 0])",
    more: str = "",
) -> str:
    text = MODEL.replace("SIZE", str(size)).replace("CHANNELS", str(channels)).replace("PATCH", str(patch))
    path.write_text(text.replace("RETURN", returned) + more, encoding="utf-8")
    return str(path)


def answer(arguments: list[str], capsys: Output) -> dict:
    assert run(["diagnose", *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("running ")
    return json.loads(printed.out)


def refused(arguments: list[str], capsys: Output) -> str:
    assert run(["diagnose", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    error, fix = printed.err.splitlines()[-2:]
    assert error.startswith("error: ") and fix.startswith("  fix: ")
    return f"{error}\n{fix}"


def test_it_prints_each_finding_with_its_place_and_fix(tmp_path: Path, capsys: Output) -> None:
    more = "\n    print('made')\nprint('imported')\n"
    path = write(
        tmp_path / "my_vit.py", returned="return self.head(self.norm(x)[:, 0]).softmax(-1)", more=more
    )
    assert run(["diagnose", path]) == 0
    printed = capsys.readouterr()
    assert f"running {path} once" in printed.err.splitlines()[0] and "imported" in printed.err
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "my_vit.py:ViT: 3 channels of 32 x 32 pixels, 5 outputs, float64"
    assert "parameters, as the formula for a plain ViT with width 32, 2 blocks" in lines[1]
    start = lines.index("mistake: the output is already a softmax")
    rows = [line.split(":")[0].strip() for line in lines[start + 1 : start + 8] if line[2:3].isalpha()]
    assert rows == ["where", "probe", "did", "got", "expected", "fix", "learn"]
    assert "1 mistake, 0 departures, 0 notes" in lines


@pytest.mark.slow
@pytest.mark.parametrize(("size", "channels", "patch"), [(28, 1, 7), (224, 3, 56), (32, 4, 16)])
def test_it_finds_size_and_channels(
    size: int, channels: int, patch: int, tmp_path: Path, capsys: Output
) -> None:
    path = write(tmp_path / "vit.py", size=size, channels=channels, patch=patch)
    found = answer([path], capsys)
    assert (found["image_size"], found["channels"]) == ([size, size], channels)
    assert found["findings"] == [] and found["skipped"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "returned",
    [
        "return x, self.head(self.norm(x)[:, 0])",
        "return {'tokens': x, 'logits': self.head(self.norm(x)[:, 0])}",
        "return {'out': [self.head(self.norm(x)[:, 0]), None]}",
    ],
)
def test_it_finds_logits_in_tuples_and_dicts(returned: str, tmp_path: Path, capsys: Output) -> None:
    found = answer([write(tmp_path / "vit.py", returned=returned)], capsys)
    assert found["outputs"] == 5 and found["counts"] == {"mistake": 0, "departure": 0, "note": 0}


@pytest.mark.slow
def test_options_say_what_images_are_tried(tmp_path: Path, capsys: Output) -> None:
    path = write(tmp_path / "vit.py", size=40, patch=10, channels=2)
    found = answer([path, "--image-size", "40", "--channels", "2"], capsys)
    assert (found["image_size"], found["channels"]) == ([40, 40], 2)
    error = refused([path, "--image-size", "32"], capsys)
    assert "no image runs through the model (32 x 32 pixels, 2 channels: " in error and "--channels" in error


@pytest.mark.slow
def test_a_model_that_exists_is_taken_as_it_is(tmp_path: Path, capsys: Output) -> None:
    more = "\nimport matplotlib.pyplot as plt\nplt.plot([1]); plt.show()\nnet = ViT(size=16)\n"
    found = answer([write(tmp_path / "vit.py", more=more)], capsys)
    assert found["model"] == "vit.py:net" and found["image_size"] == [16, 16]
    more = "\ndef make():\n    return ViT(16)\n"
    found = answer([f"{write(tmp_path / 'other.py', more=more)}:make"], capsys)
    assert found["model"] == "other.py:make" and found["findings"] == []


def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, capsys: Output) -> None:
    def written(text: str) -> str:
        (tmp_path / "vit.py").write_text(text, encoding="utf-8")
        return str(tmp_path / "vit.py")

    assert "needs nothere, which is not installed" in refused([written("import nothere")], capsys)
    assert "line 2: " in refused([written("x = 1\ndef f(:\n")], capsys)
    error = refused([written("x = 1\n1 / 0\n")], capsys)
    assert "line 2 fails: ZeroDivisionError: division by zero" in error and "__main__" in error
    assert "ends the program (exit code 3)" in refused([written("raise SystemExit(3)")], capsys)
    assert "defines no torch module" in refused([written("x = 1")], capsys)
    assert "did you mean 'vit.py'?" in refused([str(tmp_path / "vitt.py")], capsys)
    (tmp_path / "vit.ipynb").write_text("{}", encoding="utf-8")
    assert "is a notebook" in refused([str(tmp_path / "vit.ipynb")], capsys)
    assert "is a folder" in refused([str(tmp_path)], capsys)


def test_a_class_that_needs_arguments_says_which(tmp_path: Path, capsys: Output) -> None:
    text = "from torch import nn\nclass ViT(nn.Module):\n    def __init__(self, dim, depth, heads=3):\n        super().__init__()\n"
    (tmp_path / "vit.py").write_text(text, encoding="utf-8")
    for target in ("vit.py", "vit.py:ViT"):
        error = refused([str(tmp_path / target)], capsys)
        assert "needs the arguments dim, depth" in error and "model = ViT(dim=…)" in error


def test_two_models_must_be_told_apart(tmp_path: Path, capsys: Output) -> None:
    path = write(tmp_path / "vit.py", more="\nclass Small(ViT):\n    pass\n")
    error = refused([path], capsys)
    assert "defines 2 models that take images: ViT, Small" in error and f"name one: {path}:Small" in error
    error = refused([f"{path}:Smal"], capsys)
    assert "does not define 'Smal' (did you mean 'Small'?)" in error


def test_a_model_without_logits_says_what_it_returns(tmp_path: Path, capsys: Output) -> None:
    path = write(tmp_path / "vit.py", returned="return x")
    assert "returns tensors [5, 17, 32]" in refused([path], capsys)
    path = write(tmp_path / "vit.py", returned="return x.argmax()")
    assert "returns tensors []" in refused([path], capsys)


def test_a_model_whose_constructor_fails_says_how(tmp_path: Path, capsys: Output) -> None:
    text = "from torch import nn\nclass ViT(nn.Module):\n    def __init__(self):\n        self.a = nn.Linear(1, 1)\n"
    (tmp_path / "vit.py").write_text(text, encoding="utf-8")
    for target in ("vit.py", "vit.py:ViT"):
        assert "cannot be built: AttributeError" in refused([str(tmp_path / target)], capsys)
