"""Time one training step on the CPU in float32 and bfloat16, with attention fused or written out.

    python benchmarks/training_step.py [--rounds 15]

This is why `attend` in src/patchword/model/attention.py exists; see docs/decisions/0005.
"""

import argparse
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F

from common import interleave, ratio_interval, write_result
from patchword import machine
from patchword.model import attention
from patchword.model.config import (
    AttentionConfig,
    BlockConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    ViTConfig,
)
from patchword.model.kinds import MeanPool
from patchword.model.vit import ViT

SHAPES = [(128, 6, 4, 64), (192, 9, 6, 64), (192, 6, 6, 96), (384, 6, 6, 112)]  # dim, depth, heads, pixels
BATCH = 64


def _fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, p: float
) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)


def step_of(shape: tuple[int, int, int, int], precision: str) -> Callable[[], None]:
    """Return one complete step: forward, backward, AdamW; patch 8, batch 64."""
    dim, depth, heads, pixels = shape
    model = ViT(
        ViTConfig(
            image=ImageConfig(size=(pixels, pixels)),
            patch=PatchConfig(size=(8, 8)),
            dim=dim,
            depth=depth,
            attention=AttentionConfig(num_heads=heads),
            block=BlockConfig(layer_scale=0.1),
            head=HeadConfig(pool=MeanPool(), num_classes=5),
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images, labels = torch.rand(BATCH, 3, pixels, pixels), torch.randint(0, 5, (BATCH,))

    def step() -> None:
        patched = (
            mock.patch.object(attention, "attend", _fused) if "fused" in precision else mock.patch.dict({})
        )
        with patched, torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in precision):
            loss = F.cross_entropy(model(images).float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    machine.tune_allocator()
    torch.set_num_threads(machine.granted_threads())
    kinds = ("bfloat16 written out", "bfloat16 fused", "float32 fused")
    rows, payload = [], {}
    for shape in SHAPES:
        seconds = interleave({kind: step_of(shape, kind) for kind in kinds}, rounds)
        ratios = {kind: ratio_interval(seconds[kinds[0]], seconds[kind]) for kind in kinds}
        payload[str(shape)] = {"seconds": seconds, "ratios": ratios}
        ms = 1e3 * sorted(seconds[kinds[0]])[rounds // 2]
        cells = " | ".join(f"{m:.2f} [{lo:.2f}, {hi:.2f}]" for m, lo, hi in (ratios[k] for k in kinds[1:]))
        rows.append(f"| {shape[0]} | {shape[1]} | {shape[2]} | {shape[3]} | {ms:.0f} | {cells} |")
        print(rows[-1], flush=True)
    head = (
        "Time of a training step of 64 images (patch 8), and how many times as long the others take\n"
        "(median of rounds, 95 % interval).\n\n"
        "| dim | depth | heads | pixels | bfloat16, attention written out, ms | bfloat16 fused | float32 fused |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    print(write_result("training-step", payload, head + "\n".join(rows)))


if __name__ == "__main__":
    main()
