"""Measure cold starts: `patchword --help`, and one photograph classified by a ViT-Ti/16.

    python benchmarks/startup.py --data imagenet-sample.zip

Compared with `import torch` alone and the shortest scripts for timm and transformers, each in a fresh
process, interleaved. Time is measured until the process exits; memory is its peak.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import compile_source, interleave, ratio_interval, write_result
from peers import photographs, save_models

TIMM = """
import sys, timm, torch
from PIL import Image
model = timm.create_model("vit_tiny_patch16_224", checkpoint_path=sys.argv[1]).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    shares = model(transform(Image.open(sys.argv[2]).convert("RGB"))[None]).softmax(-1)
print(shares.topk(5))
"""
TRANSFORMERS = """
import sys
from transformers import pipeline
print(pipeline("image-classification", model=sys.argv[1])(sys.argv[2]))
"""
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    compile_source()
    with tempfile.TemporaryDirectory() as place:
        models = save_models(Path(place), "Ti")
        photo = photographs(chosen.data, Path(place))[0]
        python = sys.executable
        commands = {
            "patchword --help": [python, "-m", "patchword.cli.main", "--help"],
            "import torch": [python, "-c", "import torch"],
            "patchword predict": [
                python, "-m", "patchword.cli.main", "predict", str(models["patchword"]), photo
            ],
            "timm": [python, "-c", TIMM, str(models["timm"]), photo],
            "transformers": [python, "-c", TRANSFORMERS, str(models["transformers"]), photo],
        }  # fmt: skip
        peaks: dict[str, list[float]] = {name: [] for name in commands}
        systems = {name: (lambda c=c, n=name: peaks[n].append(_run(c))) for name, c in commands.items()}
        seconds = interleave(systems, chosen.rounds)
    _report(seconds, peaks)


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


def _report(seconds: dict[str, list[float]], peaks: dict[str, list[float]]) -> None:
    torch_alone = seconds["import torch"]
    beyond = [a - b for a, b in zip(seconds["patchword predict"], torch_alone, strict=True)]
    rows = [
        "| process | seconds, median | peak MiB | beyond `import torch`, s | times ours |",
        "|---|---|---|---|---|",
    ]
    for name, taken in seconds.items():
        extra = statistics.median(a - b for a, b in zip(taken, torch_alone, strict=True))
        ratio, low, high = ratio_interval(seconds["patchword predict"], taken)
        rows.append(
            f"| {name} | {statistics.median(taken):.2f} | {statistics.median(peaks[name]):.0f} | {extra:+.2f} "
            f"| {ratio:.2f} [{low:.2f}, {high:.2f}] |"
        )
    help_s = statistics.median(seconds["patchword --help"])
    rows += [
        "",
        f"Goals: --help under 0.3 s: {help_s:.2f} s. Predict at most 0.4 s beyond import torch: "
        f"{statistics.median(beyond):.2f} s.",
        f"Written {time.strftime('%Y-%m-%d')}; {len(torch_alone)} rounds.",
    ]
    table = "\n".join(rows)
    print(table)
    print(write_result("startup", {"seconds": seconds, "peak_mib": peaks}, table))


if __name__ == "__main__":
    main()
