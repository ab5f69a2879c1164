"""Several processes train as one."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchword.training.ranks import Ranks
from support import rank_training
from support.scans import write_scans


def test_one_process_changes_nothing() -> None:
    values = torch.arange(3.0)
    Ranks().sum([values])
    assert values.tolist() == [0, 1, 2]
    assert Ranks().gather("x") == ["x"]


def _records(place: Path, world: int, rank: int) -> list[dict[str, Any]]:
    return json.loads((place / f"{world}-{rank}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_two_and_three_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    """With augmentation, mixing, erasing, drop path, clipping and averaged weights."""
    for split, first in (("train", 0), ("val", 80)):
        count = 60 if split == "train" else 10
        write_scans(tmp_path / "data" / split, {"d0": count, "d1": count}, first)
    spawn = multiprocessing.get_context("spawn")
    for world in (1, 2, 3):
        started = [
            spawn.Process(
                target=rank_training.train, args=(rank, world, str(tmp_path / "data"), str(tmp_path))
            )
            for rank in range(world)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(200)
        assert [process.exitcode for process in started] == [0] * world
    alone = _records(tmp_path, 1, 0)
    steps = [record for record in alone if record["kind"] == "step"]
    assert len(steps) == 20
    for world in (2, 3):
        for rank in range(world):
            together = _records(tmp_path, world, rank)
            for key in ("loss", "lr", "train_loss", "val_loss", "val_top1"):
                expected, found = ([r[key] for r in run if key in r] for run in (alone, together))
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{key}, {world} processes")
