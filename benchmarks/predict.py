"""Time photographs from file to prediction with patchword, timm and transformers, each used as documented.

    python benchmarks/predict.py --data imagenet-sample.zip

Each system runs in its own process (so that none benefits from another's settings) and
processes the same photographs on its turn. Total threads: the number of cores, or
OMP_NUM_THREADS. Peers first try several batch sizes and numbers of loader processes and use
the fastest; their loader processes stay alive between rounds, in their favour. "bare" is our
model on prepared tensors with all threads, at the fastest of the batch sizes tried.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import interleave, ratio_interval, write_result
from peers import photographs, save_models, send

SYSTEMS = ("patchword", "timm", "transformers", "bare")
BATCHES, WORKERS = (8, 16), (0, 1, 2)
Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--size", nargs="+", choices=("Ti", "S"), default=["Ti", "S"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(*chosen.serve)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    for size in chosen.size:
        with tempfile.TemporaryDirectory() as place:
            compare(size, Path(place), photographs(chosen.data, Path(place))[: chosen.images], chosen.rounds)


def compare(size: str, place: Path, files: list[str], rounds: int) -> None:
    models = save_models(place, size)
    listed = place / "files.json"
    listed.write_text(json.dumps(files), encoding="utf-8")
    children = {name: Child(name, models.get(name, models["patchword"]), listed) for name in SYSTEMS}
    seconds = interleave({name: child.run for name, child in children.items()}, rounds, warm_up=1)
    choices = {name: child.close() for name, child in children.items()}
    _report(size, len(files), seconds, choices)


class Child:
    """A system in its own process, waiting for its turn."""

    def __init__(self, name: str, model: Path, files: Path) -> None:
        command = [sys.executable, __file__, "--serve", name, json.dumps([str(model), str(files)])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.choice = self._receive()["choice"]  # ready: loaded, tuned

    def run(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} exited")
        received: dict[str, Any] = json.loads(line)
        return received

    def close(self) -> str:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        return str(self.choice)


def serve(name: str, arguments: str) -> None:
    """Prepare one system, then process the photographs once for every line on standard input."""
    model, listed = json.loads(arguments)
    files = json.loads(Path(listed).read_text(encoding="utf-8"))
    makers = {"patchword": ours, "timm": timm, "transformers": transformers, "bare": bare}
    replies = sys.stdout
    sys.stdout = sys.stderr  # keep the libraries' output out of the replies
    run, choice = makers[name](model, files)
    sys.stdout = replies
    send(choice=choice)
    for _ in sys.stdin:
        found = run()
        assert len(found) == len(files)
        send(done=len(found))


def ours(model: str, files: list[str]) -> tuple[Run, str]:
    from patchword import machine
    from patchword.inference.load import load

    machine.tune_allocator()
    loaded = load(model, device="cpu")
    return lambda: [p.top(5) for p in loaded.predict_each(files)], "default"


def timm(model: str, files: list[str]) -> tuple[Run, str]:
    import timm
    import torch
    from PIL import Image

    width = {"timm-Ti": "tiny", "timm-S": "small"}[Path(model).stem]
    net = timm.create_model(f"vit_{width}_patch16_224", checkpoint_path=model).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))

    class Files(torch.utils.data.Dataset[Any]):
        def __init__(self, names: list[str]) -> None:
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(self.names[index]).convert("RGB"))

    def make(names: list[str], batch: int, workers: int) -> Run:
        loader = torch.utils.data.DataLoader(
            Files(names), batch, num_workers=workers, persistent_workers=workers > 0
        )

        @torch.inference_mode()
        def run() -> list[Any]:
            found: list[Any] = []
            for images in loader:
                shares, classes = net(images).softmax(-1).topk(5)
                found += zip(shares.tolist(), classes.tolist(), strict=True)
            return found

        return run

    return _tuned(make, files)


def transformers(model: str, files: list[str]) -> tuple[Run, str]:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(model)
    net = AutoModelForImageClassification.from_pretrained(model).eval()

    class Files(torch.utils.data.Dataset[Any]):
        def __init__(self, names: list[str]) -> None:
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def __getitem__(self, index: int) -> Any:
            image = Image.open(self.names[index]).convert("RGB")
            return processor(images=image, return_tensors="pt")["pixel_values"][0]

    def make(names: list[str], batch: int, workers: int) -> Run:
        loader = torch.utils.data.DataLoader(
            Files(names), batch, num_workers=workers, persistent_workers=workers > 0
        )

        @torch.inference_mode()
        def run() -> list[Any]:
            found: list[Any] = []
            for images in loader:
                shares, classes = net(pixel_values=images).logits.softmax(-1).topk(5)
                found += zip(shares.tolist(), classes.tolist(), strict=True)
            return found

        return run

    return _tuned(make, files)


def _tuned(make: Callable[[list[str], int, int], Run], files: list[str]) -> tuple[Run, str]:
    """Pick the fastest batch size and worker count on some of the photographs, timing the second pass of each."""
    best, choice = float("inf"), (BATCHES[0], 0)
    for batch in BATCHES:
        for workers in WORKERS:
            run = make(files[:96], batch, workers)
            run()
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            if taken < best:
                best, choice = taken, (batch, workers)
    return make(files, *choice), f"batch {choice[0]}, {choice[1]} loader processes"


def bare(model: str, files: list[str]) -> tuple[Run, str]:
    import torch

    from patchword import machine
    from patchword.images.prepare import read
    from patchword.inference.load import load

    machine.tune_allocator()
    loaded = load(model, device="cpu")
    ready = torch.stack([torch.from_numpy(read(f, loaded.preprocess)) for f in files])

    @torch.inference_mode()
    def forward(batch: int, images: Any = ready) -> Any:
        return torch.cat([loaded(part) for part in images.split(batch)])

    taken = {}
    for batch in (1, *BATCHES, 32):
        forward(batch, ready[:64])
        start = time.perf_counter()
        forward(batch, ready[:64])
        taken[batch] = time.perf_counter() - start
    best = min(taken, key=lambda b: taken[b])
    return lambda: forward(best), f"batch {best}, {torch.get_num_threads()} threads"


def _report(size: str, count: int, seconds: dict[str, list[float]], choices: dict[str, str]) -> None:
    rows = ["| system | setting | images/s, median | times ours [95 %] |", "|---|---|---|---|"]
    for name, taken in seconds.items():
        ratio, low, high = ratio_interval(seconds["patchword"], taken)
        speed = count / statistics.median(taken)
        rows.append(f"| {name} | {choices[name]} | {speed:.1f} | {ratio:.3f} [{low:.3f}, {high:.3f}] |")
    beyond, low, high = ratio_interval(seconds["bare"], seconds["patchword"])
    rows += [
        "",
        f"ViT-{size}/16, {count} photographs, {len(seconds['bare'])} rounds, "
        f"{os.environ['OMP_NUM_THREADS']} threads in total. File to prediction over the bare model on prepared tensors: "
        f"{beyond:.3f} [{low:.3f}, {high:.3f}] (goal: at most 1.25).",
    ]
    table = "\n".join(rows)
    print(table)
    print(write_result(f"predict-{size}", {"seconds": seconds, "choices": choices}, table))


if __name__ == "__main__":
    main()
