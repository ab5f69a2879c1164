"""Measure the time from a cold process to the first logits of a ViT-L/16 (1.2 GB), for each kind of file.

    python benchmarks/loading.py [--rounds 9]

The same random weights are saved as timm's and transformers' safetensors folders, as `.pth`, as
`pytorch_model.bin` and as Google's `.npz`. Ours loads all five, each peer those it can. Each load runs
in its own process, interleaved. Memory is the peak of the process; the share of `import torch`
alone is reported separately. The warm-up rounds bring the files into the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import compile_source, interleave, ratio_interval, write_result

OURS = """
import sys, torch, patchword as pw
model = pw.load(sys.argv[1], device="cpu")
with torch.inference_mode():
    print(model(torch.zeros(1, 3, 224, 224))[0, :3])
"""
TIMM = """
import sys, timm, torch
model = timm.create_model("vit_large_patch16_224", checkpoint_path=sys.argv[1]).eval()
with torch.inference_mode():
    print(model(torch.zeros(1, 3, 224, 224))[0, :3])
"""
TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    print(model(pixel_values=torch.zeros(1, 3, 224, 224)).logits[0, :3])
"""
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
# Kind of file → the peer that reads it too, and the path.
PAIRS = {
    "safetensors, timm's": ("timm", "timm/model.safetensors"),
    ".pth": ("timm", "vit_large_patch16_224.pth"),
    ".npz, Google's": ("timm", "L_16.npz"),
    "safetensors, transformers'": ("transformers", "transformers"),
    "pytorch_model.bin": ("transformers", "transformers-bin"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    compile_source()
    if chosen.write:
        write(Path(chosen.write))
        return
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, __file__, "--write", place], check=True)
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "patchword inspect": [
                sys.executable, "-m", "patchword.cli.main", "inspect", str(Path(place) / "timm")
            ],
        }  # fmt: skip
        for kind, (peer, path) in PAIRS.items():
            file = str(Path(place) / path)
            script = TIMM if peer == "timm" else TRANSFORMERS
            commands[f"patchword, {kind}"] = [sys.executable, "-c", OURS, _ours(file)]
            commands[f"{peer}, {kind}"] = [sys.executable, "-c", script, file]
        peaks: dict[str, list[float]] = {name: [] for name in commands}
        systems = {name: (lambda c=c, n=name: peaks[n].append(_run(c))) for name, c in commands.items()}
        seconds = interleave(systems, chosen.rounds, warm_up=1)
        size = (Path(place) / "timm" / "model.safetensors").stat().st_size / 2**20
    _report(seconds, peaks, size)


def _ours(file: str) -> str:
    """Return the folder if the file has a config.json next to it; timm needs the file itself."""
    path = Path(file)
    return str(path.parent) if path.name == "model.safetensors" else file


def write(place: Path) -> None:
    import timm
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    from patchword.inference.convert import convert

    torch.manual_seed(0)
    model = timm.create_model("vit_large_patch16_224")
    (place / "timm").mkdir()
    save_file(model.state_dict(), place / "timm" / "model.safetensors", {"format": "pt"})
    facts = {"architecture": "vit_large_patch16_224", "num_classes": 1000, "num_features": 1024}
    facts |= {"global_pool": "token", "pretrained_cfg": _preprocessing(model.pretrained_cfg)}
    (place / "timm" / "config.json").write_text(json.dumps(facts))
    torch.save(model.state_dict(), place / "vit_large_patch16_224.pth")
    # Google's readers use the tanh form of GELU, timm the exact one; loading takes the same time with either.
    convert(place / "timm", "google", place / "L_16.npz", accept=("mlp.activation",))
    theirs = ViTForImageClassification(
        ViTConfig(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            num_labels=1000,
        )
    )
    theirs.save_pretrained(place / "transformers")
    ViTImageProcessor().save_pretrained(place / "transformers")
    theirs.config.save_pretrained(place / "transformers-bin")
    ViTImageProcessor().save_pretrained(place / "transformers-bin")
    published = load_file(place / "transformers" / "model.safetensors")
    torch.save(published, place / "transformers-bin" / "pytorch_model.bin")


def _preprocessing(cfg: dict[str, object]) -> dict[str, object]:
    names = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
    return {name: cfg[name] for name in names if name in cfg}


def _run(command: list[str]) -> float:
    """Run the command to its end; return its peak memory in MiB."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | QUIET
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} exited with {process.returncode}")
    return usage.ru_maxrss / 1024


def _report(seconds: dict[str, list[float]], peaks: dict[str, list[float]], size: float) -> None:
    torch_peak = statistics.median(peaks["import torch"])
    rows = [
        "| file | ours, s | the peer takes, times ours | peak beyond `import torch`, MiB | share of the weights | the peer's peak |",
        "|---|---|---|---|---|---|",
    ]
    for kind, (peer, _) in PAIRS.items():
        ours, theirs = seconds[f"patchword, {kind}"], seconds[f"{peer}, {kind}"]
        ratio, low, high = ratio_interval(ours, theirs)
        beyond = statistics.median(peaks[f"patchword, {kind}"]) - torch_peak
        other = statistics.median(peaks[f"{peer}, {kind}"]) - torch_peak
        rows.append(
            f"| {kind} | {statistics.median(ours):.2f} | {peer} {ratio:.2f} [{low:.2f}, {high:.2f}] "
            f"| {beyond:.0f} | {beyond / size:.2f} | {other:.0f} ({other / size:.2f}) |"
        )
    rows += [
        "",
        f"ViT-L/16, {size:.0f} MiB of float32. `import torch` alone: {statistics.median(seconds['import torch']):.2f} s, "
        f"{torch_peak:.0f} MiB. Goals: not slower than the peer; at most 1.2 times the weights for safetensors.",
        f"`patchword inspect` of the safetensors folder: {statistics.median(seconds['patchword inspect']):.2f} s "
        f"(slowest {max(seconds['patchword inspect']):.2f}; goal: under 0.4), "
        f"{statistics.median(peaks['patchword inspect']):.0f} MiB.",
        f"Written {time.strftime('%Y-%m-%d')}; {len(seconds['import torch'])} rounds.",
    ]
    table = "\n".join(rows)
    print(table)
    print(write_result("loading", {"seconds": seconds, "peak_mib": peaks, "weights_mib": size}, table))


if __name__ == "__main__":
    main()
