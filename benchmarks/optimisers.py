"""Compare our AdamW and Muon with those of torch.optim: step time, start-up, state size, equality.

    python benchmarks/optimisers.py [--rounds 15]

Only the optimiser's step is timed, on fixed gradients. torch's Muon accepts only matrices and does not split joined queries,
keys and values, so it updates the blocks' matrices as they are, and torch's AdamW updates the rest in a second call.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from common import compile_source, interleave, ratio_interval, write_result
from patchword import machine
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.vit import ViT
from patchword.training.groups import decays
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import OptimSettings

SHAPES = {  # dim, depth, heads, pixels, patch
    "adamw": [(64, 4, 2, 8, 2), (128, 6, 4, 64, 8), (384, 12, 6, 224, 16)],
    "muon": [(64, 4, 2, 8, 2), (128, 6, 4, 64, 8)],
}
LR, DECAY, BETAS = 1e-3, 0.05, (0.9, 0.999)
STEPS_A_ROUND = 3
START = """
import torch
parameter = torch.nn.Parameter(torch.ones(4, 4))
parameter.grad = torch.ones(4, 4)
{}
"""
STARTS = {
    "import torch": "",
    "ours": "from patchword.training.muon import Muon\n"
    "Muon([{'params': [parameter], 'weight_decay': 0.0}], lr=1e-3, betas=(0.9, 0.999)).step()",
    "torch.optim": "torch.optim.AdamW([parameter], lr=1e-3, fused=True).step()",
}


def model_of(shape: tuple[int, int, int, int, int]) -> ViT:
    dim, depth, heads, pixels, patch = shape
    model = ViT(
        ViTConfig(
            image=ImageConfig(size=(pixels, pixels)),
            patch=PatchConfig(size=(patch, patch)),
            dim=dim,
            depth=depth,
            attention=AttentionConfig(num_heads=heads),
            head=HeadConfig(num_classes=10),
        ),
        torch.Generator().manual_seed(0),
    )
    drawn = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=drawn)
    return model


class Theirs:
    """torch's optimisers, set up like ours: groups with and without decay; with Muon, also the blocks' matrices."""

    def __init__(self, model: ViT, method: str) -> None:
        named = dict(model.named_parameters())
        muon = [n for n, p in named.items() if method == "muon" and n.startswith("blocks.") and p.ndim == 2]
        rest = {n: p for n, p in named.items() if n not in muon}
        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in rest.items() if decays(n, p)], "weight_decay": DECAY},
            {"params": [p for n, p in rest.items() if not decays(n, p)], "weight_decay": 0.0},
        ]
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8, fused=True)
        ]
        if muon:
            matrices = [named[n] for n in muon]
            self.all.append(
                torch.optim.Muon(
                    matrices, lr=LR, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self) -> None:
        for optimiser in self.all:
            optimiser.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimiser.state_dict() for optimiser in self.all]


def ours(model: ViT, method: str) -> Any:
    settings = OptimSettings(method=method, lr=LR, weight_decay=DECAY, beta1=BETAS[0], beta2=BETAS[1])  # type: ignore[arg-type]
    return make_optimiser(model, settings)


def state_bytes(state: Any) -> int:
    """Return the size in bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(state_bytes, inner))


@torch.no_grad()
def largest_difference(ours: list[Any], theirs: list[Any]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def compared(shape: tuple[int, int, int, int, int], method: str, rounds: int) -> dict[str, Any]:
    """Take ten steps with each from the same weights, then time further steps."""
    mine = model_of(shape)
    other = copy.deepcopy(mine)
    for parameter, same in zip(mine.parameters(), other.parameters(), strict=True):
        same.grad = None if parameter.grad is None else parameter.grad.clone()
    before = [p.detach().clone() for p in mine.parameters()]
    own, theirs = ours(mine, method), Theirs(other, method)
    for _ in range(10):
        own.step()
        theirs.step()
    moved = largest_difference(list(mine.parameters()), before)
    apart = largest_difference(list(mine.parameters()), list(other.parameters()))
    several: dict[str, Callable[[], Any]] = {
        "ours": lambda: [own.step() for _ in range(STEPS_A_ROUND)],
        "torch.optim": lambda: [theirs.step() for _ in range(STEPS_A_ROUND)],
    }
    seconds = interleave(several, rounds)
    parameters = sum(p.numel() * 4 for p in mine.parameters())
    return {
        "seconds": seconds,
        "ratio": ratio_interval(seconds["ours"], seconds["torch.optim"]),
        "largest_difference": apart,
        "largest_step": moved,
        "state": {
            "ours": state_bytes(own.state_dict()) / parameters,
            "torch.optim": state_bytes(theirs.state_dict()) / parameters,
        },
    }


def starts(rounds: int) -> dict[str, list[float]]:
    commands = {name: [sys.executable, "-c", START.format(code)] for name, code in STARTS.items()}
    systems = {name: (lambda c=c: subprocess.run(c, check=True)) for name, c in commands.items()}
    return interleave(systems, rounds, warm_up=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    compile_source()
    os.environ.setdefault("OMP_NUM_THREADS", str(machine.granted_threads()))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows, payload = [], {}
    for method, shapes in SHAPES.items():
        for shape in shapes:
            found = payload[f"{method} {shape}"] = compared(shape, method, rounds)
            ms = 1e3 * statistics.median(found["seconds"]["ours"]) / STEPS_A_ROUND
            ratio, low, high = found["ratio"]
            sizes = found["state"]
            rows.append(
                f"| {method} | {shape[0]} x {shape[1]} | {ms:.2f} | {ratio:.2f} [{low:.2f}, {high:.2f}] | "
                f"{sizes['ours']:.2f}, {sizes['torch.optim']:.2f} | {found['largest_difference']:.1g} of "
                f"{found['largest_step']:.1g} |"
            )
            print(rows[-1], flush=True)
    seconds = starts(rounds)
    bare = seconds["import torch"]
    cold = [
        f"| {name} | {statistics.median(taken):.2f} | "
        f"{statistics.median(t - b for t, b in zip(taken, bare, strict=True)):+.2f} |"
        for name, taken in seconds.items()
    ]
    ratio, low, high = ratio_interval(seconds["ours"], seconds["torch.optim"])
    table = "\n".join(
        [
            "| method | dim x depth | our step, ms | torch.optim takes, times ours | state, times the weights: ours, torch's "
            "| weights after ten steps differ by |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "| cold process to its first step | seconds, median | beyond `import torch` |",
            "|---|---|---|",
            *cold,
            "",
            f"torch.optim takes {ratio:.2f} [{low:.2f}, {high:.2f}] times as long as ours to the first step.",
            f"Written {time.strftime('%Y-%m-%d')}; {rounds} rounds, {torch.get_num_threads()} threads.",
        ]
    )
    print(table)
    print(write_result("optimisers", payload | {"cold": seconds}, table))


if __name__ == "__main__":
    main()
