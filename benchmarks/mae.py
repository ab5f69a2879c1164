"""Time a pre-training step of a masked autoencoder against transformers' ViTMAE: `python benchmarks/mae.py [--rounds 9]`.

ViT-S/16 at 224 pixels, 75 % hidden, batch 32, a decoder of 8 blocks of 512 channels in both, standardised targets; forward,
backward, AdamW, the same threads, in turn in one process. Peak memory of each in a process of its own.
Goals: at least 1.2 times the peer's images/s; the encoder at most 0.28 of the time of the unmasked one; peak memory at most the
peer's. transformers needs the bench extra.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from common import interleave, ratio_interval, write_result
from patchword import machine
from patchword.model.decoder import DecoderConfig
from patchword.model.mae import MAE
from patchword.model.sizes import sized
from patchword.model.vit import ViT
from patchword.training.groups import parameter_groups
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import OptimSettings

MODEL, SIDE, BATCH, RATIO = "ViT-S/16", 224, 32, 0.75
GOAL_SPEED, GOAL_ENCODER = 1.2, 0.28
Step = Callable[[], None]


def ours(images: torch.Tensor, noise: torch.Tensor) -> Step:
    model = MAE(ViT(sized(MODEL, image_size=(SIDE, SIDE), num_classes=0)), DecoderConfig(mask_ratio=RATIO))
    settings = OptimSettings(method="adamw", lr=1e-4, weight_decay=0.05, beta2=0.95)
    optimiser = make_optimiser(model, settings, parameter_groups(model, settings))

    def step() -> None:
        optimiser.zero_grad()
        loss = model(images, noise)["pixels"] / len(images)
        loss.backward()
        optimiser.step()

    return step


def theirs(images: torch.Tensor, noise: torch.Tensor) -> Step:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        image_size=SIDE,
        patch_size=16,
        mask_ratio=RATIO,
        norm_pix_loss=True,
        attn_implementation="sdpa",
    )
    model = ViTMAEForPreTraining(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.95), weight_decay=0.05, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        model(images, noise=noise).loss.backward()
        optimiser.step()

    return step


def encoders(images: torch.Tensor, noise: torch.Tensor) -> tuple[Step, Step]:
    """Forward and backward of the encoder on visible patches, and on all."""
    model = MAE(ViT(sized(MODEL, image_size=(SIDE, SIDE), num_classes=0)), DecoderConfig(mask_ratio=RATIO))
    masking = model.masking(noise)

    def masked() -> None:
        model.zero_grad()
        model.encode(images, masking).square().mean().backward()

    def whole() -> None:
        model.zero_grad()
        model.vit.forward_features(images).square().mean().backward()

    return masked, whole


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    return images, torch.rand(BATCH, (SIDE // 16) ** 2, generator=generator)


def peak_mib(which: str, threads: int) -> float:
    """Peak memory of three steps in a new process, less that of the same process before its first."""
    command = [sys.executable, __file__, "--peak", which, "--threads", str(threads)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _peak(which: str) -> float:
    step = {"ours": ours, "theirs": theirs}[which](*inputs())
    before = _high_water_mib()
    for _ in range(3):
        step()
    return _high_water_mib() - before


def _high_water_mib() -> float:
    """The most resident memory of this process; `ru_maxrss` would count that of its parent too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=machine.granted_threads())
    parser.add_argument("--peak", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--dont-write", action="store_true", help="print only")
    args = parser.parse_args()
    machine.tune_allocator()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(json.dumps(_peak(args.peak)))
        return
    memory = {which: peak_mib(which, args.threads) for which in ("ours", "theirs")}
    print(memory, flush=True)
    images, noise = inputs()
    masked, whole = encoders(images, noise)
    systems = {
        "patchword": ours(images, noise),
        "transformers": theirs(images, noise),
        "masked": masked,
        "whole": whole,
    }
    seconds = interleave(systems, args.rounds)
    speed = ratio_interval(seconds["patchword"], seconds["transformers"])
    share = ratio_interval(seconds["whole"], seconds["masked"])
    rates = {name: BATCH / median(times) for name, times in seconds.items()}
    lines = [
        f"{MODEL} at {SIDE} pixels, batch {BATCH}, {args.threads} threads, float32.",
        "",
        "| | patchword | transformers | ratio, 95 % interval | goal |",
        "|---|---|---|---|---|",
        f"| images/s of a step | {rates['patchword']:.1f} | {rates['transformers']:.1f} | {speed[0]:.2f} [{speed[1]:.2f}, {speed[2]:.2f}] "
        f"| {GOAL_SPEED}: {'met' if speed[0] >= GOAL_SPEED else 'NOT met'} |",
        f"| peak memory of steps, MiB | {memory['ours']:.0f} | {memory['theirs']:.0f} | {memory['ours'] / memory['theirs']:.2f} "
        f"| 1: {'met' if memory['ours'] <= memory['theirs'] else 'NOT met'} |",
        f"| encoder, masked / whole, forward and backward | {median(seconds['masked']):.2f} s | {median(seconds['whole']):.2f} s "
        f"| {share[0]:.3f} [{share[1]:.3f}, {share[2]:.3f}] | {GOAL_ENCODER}: {'met' if share[0] <= GOAL_ENCODER else 'NOT met'} |",
    ]
    print("\n".join(lines))
    if not args.dont_write:
        payload = {"seconds": seconds, "speed": speed, "encoder": share, "memory_mib": memory}
        print(write_result("mae", payload, "\n".join(lines)))


if __name__ == "__main__":
    main()
