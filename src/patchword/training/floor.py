"""A floor before the first step: a linear probe on the frozen features, which training must not end below.

The head starts from the probe, so that the first steps do not distort the features for a random head.
Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features" (arXiv 2202.10054), section 3.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from patchword.data.dataset import Dataset, Split
from patchword.model.vit import ViT
from patchword.probes.cache import FeatureCache
from patchword.probes.fit import Floor, floor, set_head
from patchword.training.loop import Loop
from patchword.training.tune import Head

# Keys in data.json: the probe, and how many rows of the head are those of classes that the weights know.
FLOOR, KEPT_ROWS = "floor", "kept_rows"


def applies(loop: Loop) -> bool:
    """Whether training starts from weights, has not begun, and predicts one class for each image."""
    settings = loop.settings
    return bool(settings.run.weights) and loop.state.step == 0 and settings.task.kind == "classify"


def begin_with_probe(
    loop: Loop, dataset: Dataset, evaluation: Split, workers: int, *, keeps_head: bool = False
) -> dict[str, Any]:
    """Fit the probe, keep it as the best model so far, and start the head from it; returns facts for data.json.

    keeps_head: start from the head of the weights instead. With `tune` "head", the probe is the result: training is over.
    """
    settings, state, progress = loop.settings, loop.state, loop.events.progress
    progress.message(f"floor: computing features of {len(dataset.training) + len(evaluation)} images")
    scored = replace(dataset, splits={"train": dataset.training, "val": evaluation})
    found = floor(
        _vit(state.module),
        settings.preprocess,
        scored,
        workers=workers,
        device=loop.device,
        cache=FeatureCache(),
        progress=progress.reading,
    )
    for note in found.notes:
        loop.events.warn(note)
    progress.message(text(found))
    heads = {
        name: tensor.clone() for name, tensor in _vit(state.module).state_dict().items() if "head" in name
    }
    for module in (state.module, state.average.model):
        set_head(_vit(module), found.weight, found.bias)
    scores = {"val_loss": found.loss, "val_top1": found.top1}
    state.best = found.top1
    state.seconds += found.seconds
    loop.keep.best_before(state, scores, "linear probe on frozen features")
    if isinstance(settings.tune, Head):
        _finish(loop, found, scores)
    elif keeps_head:
        # Rows of classes that the weights know are worth more than the probe's.
        for module in (state.module, state.average.model):
            _vit(module).load_state_dict(heads, strict=False)
    return _facts(found)


def text(found: Floor) -> str:
    low, high = (100 * share for share in found.interval)
    came = f", {found.cached} of {found.images} images from the cache" if found.cached else ""
    fit = "" if found.converged else "; its fit did not converge"
    return (
        f"floor: a linear probe on frozen features scores {100 * found.top1:.1f} % "
        f"({low:.1f} to {high:.1f}), {found.seconds:.1f} s{came}{fit}"
    )


def verdict(loop: Loop, facts: Mapping[str, Any]) -> str:
    """What to say at the end if no epoch was better than the probe; "" otherwise."""
    known = facts.get(FLOOR)
    if not known or loop.state.best is None or isinstance(loop.settings.tune, Head):
        return ""
    if loop.state.best > known["top1"]:
        return ""
    return (
        f"no epoch was better than the linear probe on frozen features ({100 * known['top1']:.1f} %), so "
        "best.safetensors is the probe; a lower --lr, or --tune head, last:2 or lora may be better"
    )


def _finish(loop: Loop, found: Floor, scores: Mapping[str, float]) -> None:
    state, epochs = loop.state, loop.settings.schedule.epochs
    state.epoch = epochs
    record = {
        "kind": "epoch",
        "epoch": epochs,
        "epochs": epochs,
        "step": 0,
        "lr": 0.0,
        "train_loss": found.training_loss,
        "images_per_s": found.images / max(found.seconds, 1e-9),
        "data_wait": 0.0,
        "seconds": round(state.seconds, 3),
        **scores,
        **loop.meter.peak_memory(),
    }
    loop.events.record(record)
    loop.keep.epoch(state, True, scores)
    loop.events.progress.epoch(record)


def _facts(found: Floor) -> dict[str, Any]:
    plain = {k: v for k, v in asdict(found).items() if k not in ("weight", "bias", "notes")}
    return {FLOOR: {**plain, "interval": list(found.interval)}}


def _vit(module: nn.Module) -> ViT:
    vit = module.get_submodule("vit")
    assert isinstance(vit, ViT)
    return vit
