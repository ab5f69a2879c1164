"""Training and prediction on a CUDA device: `pytest -m gpu`."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import patchword as pw
from patchword import api
from patchword.errors import Interrupted
from patchword.training.meter import Meter
from support.rich import RICH_SETTINGS
from support.scans import write_scans

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Without what RICH_SETTINGS says of the CPU; with everything that is drawn for each image.
SETTINGS: dict[str, Any] = RICH_SETTINGS | {
    "run.device": "cuda",
    "model.block.dropout": 0.0,
    "augment.policy": {"kind": "randaugment"},
    "augment.mixing.mixup": 0.8,
    "augment.mixing.cutmix": 1.0,
    "augment.erase": 0.5,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("data")
    write_scans(top / "train", {"d0": 100, "d1": 100})
    write_scans(top / "val", {"d0": 40, "d1": 40}, first=120)
    return top


def _losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["train_loss"] for record in records if record["kind"] == "epoch"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_every_precision_learns_to_tell_two_digits(
    data: Path, tmp_path: Path, precision: str, method: str
) -> None:
    settings = SETTINGS | {"run.precision": precision, "optim.method": method}
    run = api.train(data, out=tmp_path / "run", epochs=15, settings=settings)
    assert run.evaluation.top1 > 0.9
    images = sorted(str(path) for path in (data / "val").rglob("*.png"))
    found = {}
    for device in ("cuda", "cpu"):
        model = pw.load(run.folder / "last.safetensors", device=device)
        found[device] = [answer.label for answer in model.predict(images)]
    assert np.mean([a == b for a, b in zip(found["cuda"], found["cpu"], strict=True)]) > 0.97


def test_a_gpu_learns_what_a_cpu_learns(data: Path, tmp_path: Path) -> None:
    """The same random numbers: the losses differ by rounding only."""
    losses = [
        _losses(
            api.train(
                data, out=tmp_path / device, epochs=3, settings=SETTINGS | {"run.device": device}
            ).folder
        )
        for device in ("cuda", "cpu")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.01)


def test_a_stopped_run_goes_on_to_the_same_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels of a GPU add in any order, so the bits may differ."""
    whole = api.train(data, out=tmp_path / "whole", epochs=3, settings=SETTINGS).folder
    added, add = 0, Meter.add

    def stop_after(self: Meter, *values: Any) -> None:
        nonlocal added
        add(self, *values)
        added += 1
        if added == 30:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Meter, "add", stop_after)
        api.train(data, out=tmp_path / "run", epochs=3, settings=SETTINGS)
    api.resume(tmp_path / "run")
    ours, theirs = (load_file(run / "last.safetensors") for run in (tmp_path / "run", whole))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)


def test_micro_batches_give_the_losses_of_the_batch(data: Path, tmp_path: Path) -> None:
    losses = [
        _losses(
            api.train(
                data,
                out=tmp_path / f"{part}",
                epochs=2,
                settings=SETTINGS | {"run.batch_size": 20, "run.micro_batch": part},
            ).folder
        )
        for part in (0, 6)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_batch_that_does_not_fit_is_split_before_the_first_step(data: Path, tmp_path: Path) -> None:
    """With less memory than the complete batch needs, the same losses and a smaller peak."""
    large = SETTINGS | {"run.batch_size": 64, "model.dim": 192, "model.depth": 6, "run.compile": "never"}

    def trained(name: str, **more: Any) -> Path:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return api.train(data, out=tmp_path / name, epochs=2, settings={**large, **more}).folder

    def peak(run: Path) -> float:
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return max(r["peak_gpu_memory_mib"] for r in records if r["kind"] == "epoch")

    whole = trained("whole")
    assert "micro_batch = 0" in (whole / "config.toml").read_text()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.7 * peak(whole) * 2**20 / total)
    try:
        split = trained("split")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    config = (split / "config.toml").read_text()
    assert "micro_batch = 0" not in config and "measured by a trial step" in config
    assert peak(split) < 0.7 * peak(whole)
    np.testing.assert_allclose(_losses(split), _losses(whole), rtol=1e-2)
