"""What the loop decides: clipping, which epoch is best, when it warns, what it advises after a break."""

import math
import re

import pytest

from patchword.errors import TrainingBroken
from patchword.training.progress import Silent
from support.fake_task import FakeScores, FakeTask, run_loop


def test_gradients_are_clipped_to_the_norm_that_is_set() -> None:
    for clip, expected in ((0.25, 0.25), (0.0, None)):
        state, _ = run_loop(FakeTask([FakeScores(0.5)], factor=1e4), optim={"clip_grad": clip})
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in state.model.parameters()))  # type: ignore[union-attr]
        assert norm == pytest.approx(expected, rel=1e-3) if expected else norm > 100


def test_the_averaged_weights_are_scored_not_those_of_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    task = FakeTask([FakeScores(0.5)])
    monkeypatch.setattr(task, "evaluate", lambda model: scored.append(model) or FakeScores(0.5))
    state, _ = run_loop(task)
    assert scored and all(model is state.average.model for model in scored)


def test_of_equal_scores_the_first_is_the_best() -> None:
    _, seen = run_loop(FakeTask([FakeScores(s) for s in (0.5, 0.5, 0.4, 0.6, 0.6)]))
    assert seen.best == [True, False, False, True, False]


def test_one_class_for_everything_is_reported_after_a_third_of_the_run_and_at_its_end() -> None:
    _, seen = run_loop(FakeTask([FakeScores(0.5, constant=True)] * 9))
    assert seen.warned == [3, 9]
    _, seen = run_loop(FakeTask([FakeScores(0.5, constant=c) for c in (1, 1, 0, 0, 1, 0, 1, 0, 0)]))
    assert seen.warned == [5, 7], "a new collapse is reported again"


@pytest.mark.parametrize("rate", [1e3, 2e-3, 1e-4])
def test_after_a_break_the_advised_rate_is_below_both_the_one_that_failed_and_the_recipes(
    rate: float,
) -> None:
    for factor, score in ((math.inf, 0.5), (1.0, math.nan)):
        with pytest.raises(TrainingBroken, match="training diverged") as caught:
            run_loop(FakeTask([FakeScores(score)], factor=factor), optim={"lr": rate})
        advised = float(re.search(r"--lr (\S+)", caught.value.fix)[1])  # type: ignore[index]
        assert 0 < advised <= min(rate / 3, 4e-3)


def test_the_expected_time_is_reported_once_from_the_first_steps_of_a_long_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(Silent, "message", lambda self, text: messages.append(text))
    run_loop(FakeTask([FakeScores(0.5)] * 3))
    assert messages == [], "a run of a second needs no forecast"
    monkeypatch.setattr("patchword.training.loop.SHORT_S", 0.0)
    run_loop(FakeTask([FakeScores(0.5)] * 3))
    assert (
        len(messages) == 1 and "expected training time: 0:0" in messages[0] and "for 3 epochs" in messages[0]
    )
