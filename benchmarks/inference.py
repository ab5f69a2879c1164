"""Compare the bare model on prepared tensors with timm, transformers and torchvision.

    python benchmarks/inference.py --rounds 40 --sizes Ti S B --batches 1 8

Float32, eager, 224 pixels, patch 16, 1000 classes, random weights (the time does not
depend on them), inference mode, the same threads and the same tensor for all. A round runs
every system once, in a newly drawn order; ratios are computed within a round. Each peer is
built as its documentation says, transformers with its fused attention (`sdpa`).

Next to each time is the share of the machine's matrix-product rate that it reaches: its work
divided by its time, over the best rate of a torch product measured here (square or in the
model's own shapes, with either of torch's two libraries). Work is two FLOPs per multiply-add
for the complete model; a system that skips unused results is still credited for them.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import interleave, ratio_interval, write_result

from patchword.machine import tune_allocator
from patchword.model.config import ViTConfig
from patchword.model.cost import cost
from patchword.model.linear import linear, onednn_is_faster
from patchword.model.sizes import sized
from patchword.model.vit import ViT

TIMM = {"Ti": "vit_tiny_patch16_224", "S": "vit_small_patch16_224", "B": "vit_base_patch16_224"}
LOWEST_RATIO = 0.97


def build_systems(name: str) -> dict[str, nn.Module]:
    """Build each system's own model of this size, in eval mode."""
    config = sized(f"{name}/16")
    return {
        "patchword": ViT(config).eval(),
        "timm": _timm(name),
        "transformers": _transformers(config),
        "torchvision": _torchvision(config),
    }


def _timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(TIMM[name], pretrained=False).eval()
    return model


def _transformers(config: ViTConfig) -> nn.Module:
    from transformers import ViTConfig as TheirConfig
    from transformers import ViTForImageClassification

    theirs = TheirConfig(
        hidden_size=config.dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.attention.num_heads,
        intermediate_size=config.mlp_dim,
        num_labels=config.head.num_classes,
        attn_implementation="sdpa",
    )
    return ViTForImageClassification(theirs).eval()


def _torchvision(config: ViTConfig) -> nn.Module:
    from torchvision.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        image_size=224,
        patch_size=16,
        num_layers=config.depth,
        num_heads=config.attention.num_heads,
        hidden_dim=config.dim,
        mlp_dim=config.mlp_dim,
    ).eval()
    return model


def product_rate(config: ViTConfig, batch: int, seconds: float = 1.0) -> dict[str, float]:
    """Measure GFLOP/s of float32 products: a large square and the shapes of one block, best of many."""
    rows = batch * config.num_tokens
    shapes = {
        "square 2048": (2048, 2048, 2048),
        "qkv": (rows, config.dim, 3 * config.attention_dim),
        "proj": (rows, config.attention_dim, config.dim),
        "fc1": (rows, config.dim, config.mlp_dim),
        "fc2": (rows, config.mlp_dim, config.dim),
    }
    rates = {}
    for name, (m, k, n) in shapes.items():
        x, weight = torch.randn(m, k), torch.randn(n, k)
        for library, product in _products().items():
            rates[f"{name}, {library}"] = 2e-9 * m * k * n / _best(product, x, weight, seconds)
    return rates


def _products() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"torch's default": nn.functional.linear}
    return {**found, "oneDNN": linear} if onednn_is_faster() else found


def _best(product: Callable[..., Any], x: torch.Tensor, weight: torch.Tensor, seconds: float) -> float:
    best, until = float("inf"), time.perf_counter() + seconds / 10
    while time.perf_counter() < until:
        start = time.perf_counter()
        product(x, weight)
        best = min(best, time.perf_counter() - start)
    return best


def measure(name: str, batch: int, rounds: int, seed: int) -> dict[str, Any]:
    """Measure times, ratios and rates of every system for one size and batch."""
    config = sized(f"{name}/16")
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(seed))
    models = build_systems(name)
    calls = {system: _call(model, images) for system, model in models.items()}
    seconds = interleave(calls, rounds, seed)
    rates = product_rate(config, batch)
    limit = max(rates.values())
    peers = [system for system in models if system != "patchword"]
    fastest = min(peers, key=lambda system: statistics.median(seconds[system]))
    work = 1e-9 * cost(config).flops * batch
    return {
        "size": f"ViT-{name}/16",
        "batch": batch,
        "median_ms": {s: 1e3 * statistics.median(t) for s, t in seconds.items()},
        "share_of_product_rate": {s: work / statistics.median(t) / limit for s, t in seconds.items()},
        "product_gflops_per_s": rates,
        "fastest_peer": fastest,
        "ratio": dict(
            zip(peers, (ratio_interval(seconds["patchword"], seconds[p]) for p in peers), strict=True)
        ),
        "ratio_to_fastest_of_round": ratio_interval(
            seconds["patchword"], [min(times) for times in zip(*(seconds[p] for p in peers), strict=True)]
        ),
        "seconds": seconds,
    }


def _call(model: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    def forward() -> Any:
        with torch.inference_mode():
            return model(images)

    return forward


def table(results: list[dict[str, Any]], threads: int, rounds: int) -> str:
    """Format the results as markdown, one row per size and batch."""
    systems = list(results[0]["median_ms"])
    lines = [
        f"{threads} threads, {rounds} rounds. Ratio: the fastest peer's time divided by ours, by round; median",
        f"[95 % interval]; goal: at least {LOWEST_RATIO} at the lower end. In brackets after a time:",
        "share of the best matrix-product rate measured here.",
        "",
        "| model | batch | "
        + " | ".join(f"{s}, ms" for s in systems)
        + " | fastest peer | ratio | goal met |",
        "|---|---|" + "---|" * (len(systems) + 3),
    ]
    for r in results:
        cells = [f"{r['median_ms'][s]:.1f} ({100 * r['share_of_product_rate'][s]:.0f} %)" for s in systems]
        median, low, high = r["ratio"][r["fastest_peer"]]
        held = "yes" if low >= LOWEST_RATIO else "NO"
        lines.append(
            f"| {r['size']} | {r['batch']} | "
            + " | ".join(cells)
            + f" | {r['fastest_peer']} | {median:.2f} [{low:.2f}, {high:.2f}] | {held} |"
        )
    lines += ["", "Best product rates, GFLOP/s:", ""]
    for r in results:
        best = sorted(r["product_gflops_per_s"].items(), key=lambda item: -item[1])
        lines.append(f"- {r['size']} batch {r['batch']}: " + ", ".join(f"{n} {v:.0f}" for n, v in best))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sizes", nargs="+", choices=list(TIMM), default=list(TIMM))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Applies to the process, so every system benefits: freed buffers are kept, not returned.
    tune_allocator()
    results = []
    for name in args.sizes:
        for batch in args.batches:
            results.append(measure(name, batch, args.rounds, args.seed))
            print(table(results[-1:], args.threads, args.rounds).splitlines()[6], flush=True)
    markdown = table(results, args.threads, args.rounds)
    payload = {"threads": args.threads, "rounds": args.rounds, "seed": args.seed, "results": results}
    print(markdown)
    print(write_result("inference", payload, markdown))


if __name__ == "__main__":
    main()
