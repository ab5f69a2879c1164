"""Images per second of a whole training job (decode, augment, mix, step) against timm in a plain loop, on the same threads.

    python benchmarks/training.py [cifar10 photographs] [--compile] [--rounds 7]

Needs PATCHWORD_DATA with cifar10/ and imagenet-sample.zip. "cifar10" is a ViT of dim 192, depth 9, patch 4 at 32 pixels, batch
128; "photographs" is ViT-Ti/16 at 224 pixels, batch 32. Both sides train the same model with AdamW and DeiT's augmentation: crop,
flip, RandAugment, erasing, mixup and CutMix. Ours is `training/loop.py` as `patchword train` assembles it; theirs is timm's model,
loader, mixup and optimiser. A round is an epoch of a few steps; ours is followed by theirs. Waiting for the first batch of a
round counts for both; the share of time waiting for data leaves it out, because an epoch is longer than a round.

Every round but the first finds our images decoded if `--cache memory` is given (the default of `train` when they fit); `--cache
none` decodes in each, as timm does.
"""

import argparse
import io
import multiprocessing
import os
import statistics
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import compile_source, ratio_interval, write_result
from patchword import machine
from patchword.data.dataset import Split
from patchword.data.feed import Feed
from patchword.data.open import open_data
from patchword.data.store import Cache, open_store, stored_as
from patchword.data.targets import Labels
from patchword.images.preprocess import Preprocess
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.sizes import sized
from patchword.training.augment.settings import AugmentSettings, GeometrySettings, MixSettings, RandAugment
from patchword.training.config import Precision, RunSettings, TrainSettings
from patchword.training.loop import Events, Loop
from patchword.training.optim_settings import OptimSettings
from patchword.training.precision import autocast
from patchword.training.progress import Silent
from patchword.training.ranks import Ranks
from patchword.training.schedule import ScheduleSettings
from patchword.training.setup import new_model, new_state
from patchword.training.task import Batch
from patchword.training.tasks.classify import Classifier, Classify

# Not counted: the first also compiles.
WARM_UP = 1
LR = 1e-3
# mmax9, because Pillow 13 refuses to posterise to no bits, which timm draws at magnitude 10.
RAND = "rand-m9-mstd0.5-inc1-mmax9"


@dataclass(frozen=True)
class Job:
    """steps: of a round. theirs: makes timm's model. stored: the side of our decoded images. precision: of both."""

    name: str
    model: ViTConfig
    batch: int
    steps: int
    stored: int
    theirs: Callable[[], torch.nn.Module]
    device: str = "cpu"
    precision: Precision = "float32"

    @property
    def side(self) -> int:
        return self.model.image.size[0]

    def settings(self, rounds: int, compiled: bool, threads: int, cache: Cache) -> TrainSettings:
        augment = AugmentSettings(
            geometry=GeometrySettings(crop_scale=(0.08, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5),
            policy=RandAugment(),
            mixing=MixSettings(mixup=0.8, cutmix=1.0),
            erase=0.25,
        )
        return TrainSettings(
            model=self.model,
            preprocess=Preprocess.simple(self.side),
            augment=augment,
            optim=OptimSettings(method="adamw", lr=LR, weight_decay=0.05),
            schedule=ScheduleSettings(epochs=rounds, warmup_epochs=0),
            run=RunSettings(
                batch_size=self.batch,
                device=self.device,
                precision=self.precision,
                threads=threads,
                stored_size=(self.stored, self.stored),
                evaluate_every=rounds,
                save_minutes=0,
                compile="always" if compiled else "never",
                cache=cache,
            ),
        )


def cifar10() -> tuple[Job, Split]:
    from timm.models.vision_transformer import VisionTransformer

    model = ViTConfig(
        image=ImageConfig(size=(32, 32)),
        patch=PatchConfig(size=(4, 4)),
        dim=192,
        depth=9,
        attention=AttentionConfig(num_heads=3),
        head=HeadConfig(num_classes=10),
    )

    def theirs() -> torch.nn.Module:
        return VisionTransformer(
            img_size=32, patch_size=4, embed_dim=192, depth=9, num_heads=3, num_classes=10
        )

    job = Job("cifar10", model, 128, 2, 32, theirs)
    return job, open_data(_data() / "cifar10" / "train.parquet").training.subset(
        np.arange(job.batch * job.steps)
    )


@dataclass(frozen=True)
class Files:
    """A reader of files in memory."""

    contents: tuple[bytes, ...]

    def __call__(self, row: int) -> bytes:
        return self.contents[row]


def photographs() -> tuple[Job, Split]:
    import timm

    job = Job(
        "photographs",
        sized("ViT-Ti/16"),
        32,
        2,
        336,
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=1000),
    )
    with zipfile.ZipFile(_data() / "imagenet-sample.zip") as archive:
        names = [n for n in archive.namelist() if n.lower().endswith((".jpeg", ".jpg"))]
        contents = tuple(archive.read(name) for name in names)
    count = job.batch * job.steps
    chosen = np.arange(count) % len(names)
    return job, Split(
        name="train",
        names=tuple(f"{i}/{names[k]}" for i, k in enumerate(chosen)),
        targets=Labels(chosen.astype(np.int64) % 1000),
        reader=Files(contents),
        rows=chosen,
    )


def _data() -> Path:
    place = os.environ.get("PATCHWORD_DATA")
    if not place:
        raise SystemExit("set PATCHWORD_DATA to the folder with cifar10/ and imagenet-sample.zip")
    return Path(place)


class TrainingOnly(Classify):
    """Nothing is evaluated, so that the time is that of training."""

    def evaluation(self, ranks: Ranks) -> Iterable[Batch]:
        return ()


class TimedFeed(Feed):
    """first_s: how long the loop waited for the first batch of the epoch."""

    first_s = 0.0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        began = time.perf_counter()
        for number, fed in enumerate(super().epoch(epoch, start)):
            if number == 0:
                self.first_s = time.perf_counter() - began
            yield fed


class KeepNothing:
    """Takes the part of the checkpointer."""

    def epoch(self, *_: Any) -> None: ...

    def within_epoch(self, *_: Any) -> None: ...


@dataclass
class AfterEachEpoch(Silent):
    """Runs the other side's round after each of ours, and keeps what the loop recorded."""

    other: Callable[[], float]
    images: int
    feed: Any = None
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    # Processor seconds of the same rounds, with all threads and worker processes.
    ours_cpu: list[float] = field(default_factory=list)
    theirs_cpu: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    began_cpu: float = field(default_factory=time.process_time)

    def epoch(self, record: Mapping[str, Any]) -> None:
        seconds = self.images / record["images_per_s"]
        self.ours.append(seconds)
        first = self.feed.first_s
        self.waiting.append(max(record["data_wait"] * seconds - first, 0.0) / (seconds - first))
        self.stages.append({k: v for k, v in record.items() if k.endswith("_s") and k != "images_per_s"})
        self.ours_cpu.append(time.process_time() - self.began_cpu)
        before = cpu_seconds()
        self.theirs.append(self.other())
        self.theirs_cpu.append(cpu_seconds() - before)
        print(
            f"round {len(self.ours) - WARM_UP}: {seconds:.1f} s, timm {self.theirs[-1]:.1f} s, "
            f"processor time {self.ours_cpu[-1]:.1f} and {self.theirs_cpu[-1]:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        self.began_cpu = time.process_time()


def run_ours(job: Job, split: Split, settings: TrainSettings, other: Callable[[], float]) -> AfterEachEpoch:
    """Train with the library's loop; `other` runs after each epoch."""
    workers = machine.granted_cores()
    state, _ = new_state(new_model(settings).to(job.device), settings)
    classes = tuple(map(str, range(settings.model.head.num_classes)))
    module = state.module
    assert isinstance(module, Classifier)
    task = TrainingOnly(settings, module, split, split.subset([0]), classes, workers)
    store = open_store(split, stored_as(settings.preprocess, settings.run.stored_size), settings.run.cache)
    feed = TimedFeed(
        split, store, task.collate, batch_size=job.batch, seed=0, workers=workers, pin=job.device == "cuda"
    )
    watch = AfterEachEpoch(other=other, images=job.batch * job.steps, feed=feed)
    nothing: Any = KeepNothing()
    loop = Loop(settings, task, feed, state, nothing, Events(record=_ignore, warn=_ignore, progress=watch))
    loop.run()
    return watch


def cpu_seconds() -> float:
    """Of this process and of the loader's workers, which live as long as it."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ignore(_: Any) -> None: ...


class TheirData(torch.utils.data.Dataset[Any]):
    """The same bytes, as an image for timm's transform."""

    def __init__(self, split: Split) -> None:
        self.sources = [split.source(i) for i in range(len(split))]
        self.labels = split.labels.tolist()
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Any:
        source = self.sources[index]
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        return self.transform(Image.open(opened).convert("RGB")), self.labels[index]


class Theirs:
    """timm's parts in the loop that its users write. Calling it trains one round and returns its seconds."""

    def __init__(self, job: Job, split: Split, compiled: bool, workers: int) -> None:
        from timm.data import Mixup, create_loader
        from timm.loss import SoftTargetCrossEntropy
        from timm.optim import create_optimizer_v2

        classes = job.model.head.num_classes
        self.device, self.precision = torch.device(job.device), job.precision
        self.model = job.theirs().train().to(self.device)
        self.optimiser = create_optimizer_v2(self.model, opt="adamw", lr=LR, weight_decay=0.05)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.loss = SoftTargetCrossEntropy()
        self.mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=classes)
        self.loader = create_loader(
            TheirData(split),
            (3, job.side, job.side),
            job.batch,
            is_training=True,
            auto_augment=RAND,
            color_jitter=0.0,
            re_prob=0.25,
            num_workers=workers,
            persistent_workers=True,
            device=self.device,
        )
        self.mixup.mixup_enabled = True

    def __call__(self) -> float:
        began = time.perf_counter()
        for images, labels in self.loader:
            mixed, targets = self.mixup(images, labels)
            with autocast(self.device, self.precision):
                loss = self.loss(self.forward(mixed), targets)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        loss.item()
        return time.perf_counter() - began


def compare(
    job: Job, split: Split, *, compiled: bool, cache: Cache, rounds: int, threads: int
) -> dict[str, Any]:
    settings = job.settings(rounds + WARM_UP, compiled, threads, cache)
    watch = run_ours(job, split, settings, Theirs(job, split, compiled, threads))
    ours, theirs = watch.ours[WARM_UP:], watch.theirs[WARM_UP:]
    ratio, low, high = ratio_interval(ours, theirs)
    images = job.batch * job.steps
    cpu = ratio_interval(watch.ours_cpu[WARM_UP:], watch.theirs_cpu[WARM_UP:])
    return {
        "job": job.name,
        "compiled": compiled,
        "cache": cache,
        "ours_images_per_s": images / statistics.median(ours),
        "theirs_images_per_s": images / statistics.median(theirs),
        "ratio": [ratio, low, high],
        "cpu_ratio": cpu,
        "ours_cpu_s": watch.ours_cpu[WARM_UP:],
        "theirs_cpu_s": watch.theirs_cpu[WARM_UP:],
        "waiting": statistics.median(watch.waiting[WARM_UP:]),
        "stages": watch.stages[WARM_UP:],
        "ours_s": ours,
        "theirs_s": theirs,
    }


JOBS: dict[str, Callable[[], tuple[Job, Split]]] = {"cifar10": cifar10, "photographs": photographs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", default=list(JOBS), choices=[*JOBS, []])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="compile both models")
    parser.add_argument("--cache", nargs="+", choices=["memory", "none"], default=["none", "memory"])
    parser.add_argument("--threads", type=int, default=machine.granted_cores())
    parser.add_argument("--dry", action="store_true", help="write no result")
    chosen = parser.parse_args()
    compile_source()
    machine.tune_allocator()
    torch.set_num_threads(chosen.threads)
    head = [
        f"`benchmarks/training.py`, {chosen.threads} threads, {chosen.rounds} rounds: images per second of the whole job, how many",
        "times as long timm takes (median of rounds, 95 % interval), the same for processor time, which other work on the machine",
        "disturbs less, and our share of time waiting for data.",
        "",
        "| job | both compiled | our decoded images | ours | timm | timm takes | timm's processor time | waiting |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows, payload = [], []
    for name in chosen.jobs:
        job, split = JOBS[name]()
        for cache in chosen.cache:
            found = compare(
                job, split, compiled=chosen.compile, cache=cache, rounds=chosen.rounds, threads=chosen.threads
            )
            (ratio, low, high), (cpu, cpu_low, cpu_high) = found["ratio"], found["cpu_ratio"]
            rows.append(
                f"| {name} | {'yes' if chosen.compile else 'no'} | {cache} | {found['ours_images_per_s']:.1f} | "
                f"{found['theirs_images_per_s']:.1f} | {ratio:.2f} [{low:.2f}, {high:.2f}] | "
                f"{cpu:.2f} [{cpu_low:.2f}, {cpu_high:.2f}] | {100 * found['waiting']:.1f} % |"
            )
            print(rows[-1], found["stages"][-1], flush=True)
            payload.append(found)
    table = "\n".join([*head, *rows])
    if not chosen.dry:
        suffix = "-compiled" if chosen.compile else ""
        print(write_result(f"training{suffix}", {"runs": payload}, table))


if __name__ == "__main__":
    main()
