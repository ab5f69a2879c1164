"""What a process has imported after an answer: start-up time as a property."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "matplotlib", "sklearn", "pyarrow", "rich", "jinja2", "torchvision")


def _imported_after(code: str) -> set[str]:
    show = "; import sys; print('\\n'.join(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import patchword",
        "from patchword.cli.main import run; run(['--help'])",
        "import patchword.settings, patchword.errors",
    ],
)
def test_the_door_opens_without_heavy_packages(code: str) -> None:
    assert not _imported_after(code) & set(HEAVY)


@pytest.mark.parametrize(
    "room",
    ["images.decode", "images.preprocess", "metrics", "model.config", "model.sizes", "training.choose"],
)
def test_rooms_that_must_not_need_torch_do_not(room: str) -> None:
    assert "torch" not in _imported_after(f"import patchword.{room}")


def test_a_training_that_is_refused_did_not_wait_for_torch() -> None:
    code = "from patchword.cli.main import run; assert run(['train', 'no-such-folder']) == 2"
    assert "torch" not in _imported_after(code)
