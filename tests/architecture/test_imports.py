"""What a process imports: this keeps start-up fast."""

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
def test_import_and_help_load_no_heavy_packages(code: str) -> None:
    assert not _imported_after(code) & set(HEAVY)


@pytest.mark.parametrize(
    "module",
    ["images.decode", "images.preprocess", "metrics", "model.config", "model.sizes", "training.choose"],
)
def test_modules_without_torch_do_not_import_it(module: str) -> None:
    assert "torch" not in _imported_after(f"import patchword.{module}")


def test_a_refused_training_does_not_import_torch() -> None:
    code = "from patchword.cli.main import run; assert run(['train', 'no-such-folder']) == 2"
    assert "torch" not in _imported_after(code)
