"""What breaks around a training: a full disk."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from patchword import api
from patchword.errors import OutputError
from support.disk import full_disk
from support.scans import write_scans

TINY = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
}


def test_a_full_disk_during_a_save_loses_nothing_and_the_run_goes_on(tmp_path: Path) -> None:
    """The state after an epoch is larger than the one before the first step, because it holds the optimiser's."""
    write_scans(tmp_path / "data", {"d0": 12, "d1": 12})
    whole = api.train(tmp_path / "data", out=tmp_path / "whole", epochs=2, settings=TINY).folder
    first, last = (path.stat().st_size for path in sorted((whole / "state").glob("*.pt")))
    weights = (whole / "last.safetensors").stat().st_size
    limit = last - 1000
    assert max(weights, (whole / "report.html").stat().st_size) < limit, (weights, first, last)
    run = tmp_path / "run"
    with full_disk(limit), pytest.raises(OutputError, match="the state before it is kept") as raised:
        api.train(tmp_path / "data", out=run, epochs=2, settings=TINY)
    assert f"free some space, then resume with `pw.train(resume='{run}')`" == raised.value.fix
    assert [path.name for path in (run / "state").glob("*.pt")] == ["00000000.pt"]
    assert not list(run.rglob("*.new"))
    api.resume(run)
    ours, theirs = (load_file(folder / "last.safetensors") for folder in (run, whole))
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
