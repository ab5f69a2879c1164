"""A short training as one of several processes, started with spawn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed

from patchword.data.feed import Feed
from patchword.data.open import open_data
from patchword.data.store import open_store, stored_as
from patchword.training.augment.settings import AugmentSettings, GeometrySettings, MixSettings, RandAugment
from patchword.training.choose import choose
from patchword.training.loop import Events, Loop
from patchword.training.overlay import Overlay
from patchword.training.progress import Silent
from patchword.training.ranks import Ranks
from patchword.training.recipes.facts import DataFacts
from patchword.training.setup import new_model, new_state
from patchword.training.tasks.make import make_task
from support.rich import RICH_SETTINGS

# Two epochs of ten steps; twelve images are cut into 6 + 6 and 4 + 4 + 4.
BATCH, STEPS, EPOCHS = 12, 10, 2


class _KeepNothing:
    def epoch(self, *_: Any) -> None: ...


def train(rank: int, world: int, data: str, place: str) -> None:
    """Write the records of this process to place/WORLD-RANK.json."""
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{place}/meet-{world}", rank=rank, world_size=world
        )
    records: list[dict[str, Any]] = []
    try:
        _loop(Ranks(rank=rank, world=world), data, records).run()
    finally:
        if world > 1:
            distributed.destroy_process_group()
    Path(place, f"{world}-{rank}.json").write_text(json.dumps(records), encoding="utf-8")


def _loop(ranks: Ranks, data: str, records: list[dict[str, Any]]) -> Loop:
    dataset = open_data(data)
    split = dataset.training
    facts = DataFacts(
        num_images=len(split), num_classes=2, channels=1, size=(24, 24), mean=(0.3,), std=(0.4,)
    )
    said = RICH_SETTINGS | {
        # Dropout is drawn for each process; everything else for each image.
        "model.block.dropout": 0.0,
        "run.batch_size": BATCH,
        "run.save_minutes": 0.0,
        "schedule.epochs": EPOCHS,
        "optim.clip_grad": 1.0,
    }
    overlay = Overlay({path: (value, "option -o") for path, value in said.items()})
    settings = choose(dataset, facts, overlay).settings
    augment = AugmentSettings(
        geometry=GeometrySettings(crop_scale=(0.5, 1.0), flip=0.5, degrees=10.0),
        policy=RandAugment(),
        mixing=MixSettings(mixup=0.8, cutmix=1.0),
        view=settings.augment.view,
        erase=0.5,
    )
    settings = dataclasses.replace(settings, augment=augment)
    state, _ = new_state(new_model(settings), settings)
    task = make_task(settings, state.module, dataset, dataset.evaluation, 1)
    store = open_store(split, stored_as(settings.preprocess, settings.run.stored_size), "memory")
    feed = Feed(split, store, task.collate, batch_size=BATCH, seed=0, workers=1, part=ranks.part)
    assert feed.steps_per_epoch == STEPS, feed.steps_per_epoch
    events = Events(record=records.append, warn=print, progress=Silent())
    nothing: Any = _KeepNothing()
    return Loop(settings, task, feed, state, nothing, events, ranks)
