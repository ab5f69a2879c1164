"""The score of the weights that pre-training starts from, on labelled images that are watched: no gain over it is said."""

from collections.abc import Mapping
from typing import Any

from patchword.training.loop import Loop
from patchword.training.tasks.mae import Pretrain
from patchword.training.tasks.watch import KNN

# Key in data.json.
START_KNN = "start_knn"


def applies(loop: Loop) -> bool:
    """Whether labelled images are watched and training has not begun."""
    return loop.state.step == 0 and isinstance(loop.task, Pretrain) and loop.task.watch is not None


def begin(loop: Loop) -> dict[str, Any]:
    """Score the starting weights and keep them as the best so far; returns facts for data.json."""
    assert isinstance(loop.task, Pretrain) and loop.task.watch is not None
    state, watch = loop.state, loop.task.watch
    score = watch.score(state.average.model.get_submodule("vit"))
    loop.events.progress.message(f"before training: k-NN {100 * score:.1f} % on {watch.text}")
    state.best = score
    loop.keep.best_before(state, {KNN: score}, "the weights before training")
    return {START_KNN: score}


def verdict(loop: Loop, facts: Mapping[str, Any]) -> str:
    """What to say at the end if no epoch was better than the start; "" otherwise."""
    start = facts.get(START_KNN)
    if start is None or loop.state.best is None or loop.state.best > start:
        return ""
    return (
        f"no gain over the start: no epoch was better than the weights before training (k-NN {100 * start:.1f} %), "
        "so best.safetensors is those; more images or epochs, or a lower --lr, may help"
    )
