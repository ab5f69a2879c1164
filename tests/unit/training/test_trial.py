"""A trial step finds the largest micro-batch that fits, and changes nothing else."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from patchword import api
from patchword.training.loop import Loop
from patchword.training.trial import largest_that_fits
from support.scans import write_scans

TINY = {
    "run.batch_size": 8,
    "run.threads": 1,
    "run.device": "cpu",
    "model.depth": 1,
    "model.dim": 32,
    "model.attention.num_heads": 1,
}


@pytest.mark.parametrize(
    ("size", "most", "tried"),
    [(64, 64, [64]), (64, 20, [64, 32, 16]), (50, 13, [50, 26, 14, 8]), (6, 2, [6, 4, 2])],
)
def test_the_size_is_halved_to_even_numbers_until_it_fits(size: int, most: int, tried: list[int]) -> None:
    seen: list[int] = []

    def trial(images: int) -> None:
        seen.append(images)
        if images > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert largest_that_fits(size, trial) == tried[-1] and seen == tried


@pytest.mark.parametrize("why", ["CUDA out of memory", "mat1 and mat2 shapes cannot be multiplied"])
def test_what_smaller_parts_do_not_mend_is_raised(why: str) -> None:
    seen: list[int] = []

    def trial(images: int) -> None:
        seen.append(images)
        raise RuntimeError(why)

    with pytest.raises(RuntimeError, match=why):
        largest_that_fits(8, trial)
    assert seen == ([8, 4, 2] if "memory" in why else [8])


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_trial_step_changes_no_bit_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    write_scans(tmp_path / "data", {"d0": 12, "d1": 12})
    settings: dict[str, Any] = {**TINY, "optim.method": method}

    def train(name: str) -> dict[str, bytes]:
        run = api.train(tmp_path / "data", out=tmp_path / name, epochs=1, settings=settings, progress=False)
        return {k: v.tobytes() for k, v in load_file(run.folder / "last.safetensors").items()}

    without, whole = train("without"), Loop.run

    def with_trial(self: Loop) -> None:
        fed = next(iter(self.feed.epoch(0)))
        self.try_step(fed)
        assert self.state.step == 0 and self.state.optimiser.state
        self.state.optimiser.zero_grad()
        whole(self)

    monkeypatch.setattr(Loop, "run", with_trial)
    assert train("with") == without
