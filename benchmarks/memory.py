"""Check that predicting 3,000 images needs no more memory than predicting 300.

    python benchmarks/memory.py --data imagenet-sample.zip

Runs the real command in a fresh process each time; the 3,000 are the same photographs linked ten times.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import write_result
from peers import photographs, save_models


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    peaks: dict[str, list[float]] = {"300": [], "3000": []}
    with tempfile.TemporaryDirectory() as place:
        model = save_models(Path(place), "Ti")["patchword"]
        files = photographs(chosen.data, Path(place))[:300]
        for count, copies in (("300", 1), ("3000", 10)):
            (Path(place) / count).mkdir()
            for i, file in enumerate(files * copies):
                os.symlink(file, Path(place) / count / f"{i:05}{Path(file).suffix}")
        for _ in range(chosen.rounds):
            for count in peaks:
                peaks[count].append(_peak_mib(model, Path(place) / count))
    few, many = (statistics.median(peaks[c]) for c in ("300", "3000"))
    table = (
        "| images | peak MiB, median |\n|---|---|\n"
        f"| 300 | {few:.0f} |\n| 3,000 | {many:.0f} |\n\n"
        f"Ratio {many / few:.3f} (goal: at most 1.05); {chosen.rounds} rounds, ViT-Ti/16."
    )
    print(table)
    print(write_result("memory", {"peak_mib": peaks}, table))


def _peak_mib(model: Path, folder: Path) -> float:
    command = [sys.executable, "-m", "patchword.cli.main", "predict", str(model), str(folder), "--jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} exited with {process.returncode}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
