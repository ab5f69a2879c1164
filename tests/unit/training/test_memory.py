"""What cannot fit is refused before anything is allocated; what fits is not."""

import dataclasses
import errno
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from patchword import machine
from patchword.cli.main import run
from patchword.errors import NotEnoughMemory, is_out_of_memory
from patchword.inference.engine import fitted, make_plan
from patchword.model.sizes import sized
from patchword.training.config import TrainSettings
from patchword.training.memory import needed, refuse_too_large
from patchword.training.overlay import PATHS, make_overlay
from patchword.training.recipes import recipe_named
from patchword.training.recipes.facts import DataFacts
from support.scans import write_scans

FACTS = DataFacts(num_images=500, num_classes=2, channels=3, size=(300, 300), mean=(0.5,), std=(0.2,))


def _settings(side: int) -> TrainSettings:
    given = {"image_size": (side, side), "patch_size": (4, 4)}
    settings, _ = recipe_named("scratch")(
        FACTS, make_overlay(None, [(PATHS[n], n, v) for n, v in given.items()])
    )
    return settings


def test_a_batch_that_cannot_fit_is_refused_with_one_that_can() -> None:
    settings = _settings(448)
    refuse_too_large(settings, 500, left=2**50)
    left = 3 * 2**30
    with pytest.raises(
        NotEnoughMemory, match=r"batches of 64 images of 448x448 pixels needs at least"
    ) as found:
        refuse_too_large(settings, 500, left=left)
    batch, side = map(int, re.search(r"--batch-size (\d+) or --image-size (\d+)", found.value.fix).groups())  # type: ignore[union-attr]
    fewer = dataclasses.replace(settings, run=dataclasses.replace(settings.run, batch_size=batch))
    smaller = _settings(side)
    for advised in (fewer, smaller):
        refuse_too_large(advised, 500, left=left)
        assert needed(advised, 500, cache=False).total < left / 1.5, "with room to spare"


def test_an_answer_takes_fewer_images_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    config, cpu = sized("ViT-S/16", image_size=(1024, 1024)), torch.device("cpu")
    monkeypatch.setattr(machine, "most_memory_left_bytes", lambda: 300 * 2**20)
    plan = make_plan(1000, cpu, 8)
    with pytest.raises(NotEnoughMemory, match="a batch of 8 images of 1024x1024"):
        fitted(plan, config, (1024, 1024), 8)
    small = fitted(plan, config, (1024, 1024), None)
    assert 1 <= small.workers * small.batch_size < 8
    monkeypatch.setattr(machine, "most_memory_left_bytes", lambda: 2**40)
    assert fitted(plan, config, (1024, 1024), 8) == plan


def test_absurd_sizes_end_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scans(tmp_path / "scans", {"d0": 4, "d1": 4})
    data, out = str(tmp_path / "scans"), str(tmp_path / "run")
    for asked in (["--image-size", "100000"], ["--image-size", "100000", "--model", "ViT-Ti/16"]):
        assert run(["train", data, "--out", out, *asked]) == 2
        said = capsys.readouterr().err
        assert "error: not enough memory" in said and "fix: " in said and "Traceback" not in said
    assert not Path(out).exists()


def test_every_kind_of_failed_allocation_is_recognised() -> None:
    failed = [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")]
    for allocate in (
        lambda: np.empty(2**56),
        lambda: np.empty(2**60),
        lambda: torch.empty(2**58),
        lambda: torch.empty(2**62),
    ):
        with pytest.raises((MemoryError, RuntimeError, ValueError)) as caught:
            allocate()
        failed.append(caught.value)
    assert all(map(is_out_of_memory, failed))
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(OSError(2, "absent"))


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit")
def test_the_limit_of_the_shell_is_respected() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from patchword import machine; print(machine.memory_limit_bytes(), machine.most_memory_left_bytes())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    limit, left = map(int, said.stdout.split())
    assert 2**29 < left < limit < 2**30
