"""TensorBoard as an extra."""

import sys
from pathlib import Path

import pytest

from patchword.errors import SettingsError
from patchword.training.tensorboard import TensorBoard


def test_a_missing_package_costs_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SettingsError, match="not installed") as refused:
        TensorBoard(tmp_path)
    assert 'pip install "patchword[tensorboard]"' in refused.value.fix


def test_the_numbers_of_a_record_are_curves_by_step(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(tmp_path)
    for step in (1, 2):
        board.write({"kind": "step", "epoch": 1, "step": step, "loss": 3.0 / step, "note": "text"})
    board.write({"kind": "epoch", "epoch": 1, "step": 2, "val_top1": 0.5})
    board.write({"kind": "broken"})
    board.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["epoch/val_top1", "step/loss"]
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [(1, 3.0), (2, 1.5)]
