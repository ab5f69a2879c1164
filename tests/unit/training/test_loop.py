"""What the loop decides: clipping, which epoch is best, when it warns, what it does with numbers that are not finite."""

import math
import re

import pytest

from patchword.errors import TrainingBroken
from patchword.training.progress import Silent
from support.fake_task import FakeTask, run_loop, score


def test_gradients_are_clipped_to_the_norm_that_is_set() -> None:
    for clip, expected in ((0.25, 0.25), (0.0, None)):
        state, _ = run_loop(FakeTask([score(0.5)], factors=[1e4]), optim={"clip_grad": clip})
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in state.module.parameters()))  # type: ignore[union-attr]
        assert norm == pytest.approx(expected, rel=1e-3) if expected else norm > 100


def test_the_averaged_weights_are_scored_not_those_of_the_last_step() -> None:
    task = FakeTask([score(0.5)])
    state, _ = run_loop(task)
    assert task.scored and all(model is state.average.model for model in task.scored)


def test_of_equal_scores_the_first_is_the_best() -> None:
    _, seen = run_loop(FakeTask([score(s) for s in (0.5, 0.5, 0.4, 0.6, 0.6)]))
    assert seen.best == [True, False, False, True, False]


def test_a_task_may_say_that_less_is_better() -> None:
    state, seen = run_loop(FakeTask([score(s, higher_is_better=False) for s in (0.5, 0.6, 0.4)]))
    assert seen.best == [True, False, True] and state.best == 0.4


def test_one_class_for_everything_is_reported_after_a_third_of_the_run_and_at_its_end() -> None:
    _, seen = run_loop(FakeTask([score(0.5, constant=True)] * 9))
    assert seen.warned_after == [3, 9]
    _, seen = run_loop(FakeTask([score(0.5, constant=bool(c)) for c in (1, 1, 0, 0, 1, 0, 1, 0, 0)]))
    assert seen.warned_after == [5, 7], "a new collapse is reported again"


@pytest.mark.parametrize("rate", [1e3, 2e-3, 1e-4])
def test_after_a_break_the_advised_rate_is_below_both_the_one_that_failed_and_the_recipes(
    rate: float,
) -> None:
    for factor, value in ((math.inf, 0.5), (1.0, math.nan)):
        with pytest.raises(TrainingBroken, match="training diverged") as caught:
            run_loop(FakeTask([score(value)] * 3, factors=[factor]), optim={"lr": rate})
        advised = float(re.search(r"--lr (\S+)", caught.value.fix)[1])  # type: ignore[index]
        assert 0 < advised <= min(rate / 3, 4e-3)


def test_a_step_that_is_not_finite_changes_nothing_and_is_skipped_by_name() -> None:
    ones, bad = [1.0] * 4, [1.0, math.nan, math.inf, 1.0]
    state, seen = run_loop(FakeTask([score(0.5)] * 2, factors=bad), steps_per_epoch=2)
    assert state.broken == [2, 3] and state.step == 4
    assert "step 2" in seen.warned[0] and "a1, b1" in seen.warned[0] and "skipped" in seen.warned[0]
    assert all(p.isfinite().all() for p in state.module.parameters())
    losses = [r["train_loss"] for r in seen.records if r["kind"] == "epoch"]
    assert all(math.isfinite(loss) for loss in losses), "averaged over the steps that were finite"
    assert [r["step"] for r in seen.records if r["kind"] == "skipped"] == [2, 3]
    other, _ = run_loop(FakeTask([score(0.5)] * 2, factors=ones), steps_per_epoch=2)
    assert other.broken == []


def test_the_third_step_that_is_not_finite_ends_the_run() -> None:
    task = FakeTask([score(0.5)] * 2, factors=[1.0, math.nan, 1.0, math.nan, math.nan, 1.0])
    with pytest.raises(TrainingBroken, match=r"epoch 2, step 5.*a4, b4") as caught:
        run_loop(task, steps_per_epoch=3)
    assert caught.value.exit_code == 4


def test_the_expected_time_is_reported_once_from_the_first_steps_of_a_long_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(Silent, "message", lambda self, text: messages.append(text))
    run_loop(FakeTask([score(0.5)] * 3))
    assert messages == [], "a run of a second needs no forecast"
    monkeypatch.setattr("patchword.training.meter.SHORT_S", 0.0)
    run_loop(FakeTask([score(0.5)] * 3))
    assert (
        len(messages) == 1 and "expected training time: 0:0" in messages[0] and "for 3 epochs" in messages[0]
    )


def test_without_a_better_score_a_run_ends_after_its_patience() -> None:
    state, seen = run_loop(FakeTask([score(s) for s in (0.5, 0.6, 0.4, 0.6, 0.9)]), run={"patience": 2})
    assert state.epoch == 4 and state.ended and "no better score in 2 evaluations" in seen.warned[-1]


def test_a_run_that_gives_one_answer_for_everything_is_stopped_with_the_likely_cause() -> None:
    task = FakeTask([score(0.5, constant=True)] * 9)
    with pytest.raises(TrainingBroken, match="one class after epoch 3") as caught:
        run_loop(task, steps_per_epoch=100)
    assert "--lr" in caught.value.fix


def test_a_time_limit_ends_within_an_epoch_and_the_rest_can_follow() -> None:
    state, seen = run_loop(FakeTask([score(0.5)] * 3), steps_per_epoch=5, run={"max_minutes": 1e-9})
    assert (state.epoch, state.step) == (0, 1) and not state.ended
    assert "goes on from here" in seen.warned[-1] and seen.records[-1]["val_fake"] == 0.5
