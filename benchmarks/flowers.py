"""Train on flowers5 from scratch with default settings, three seeds: `python benchmarks/flowers.py [FOLDER] [--seeds 3]`.

Goal: 74 % on its val/ in 600 s on two idle cores. FOLDER contains flowers5.zip (default: PATCHWORD_DATA).
"""

import argparse
import os
from pathlib import Path

from trainings import Goal, train_seeds

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=os.environ.get("PATCHWORD_DATA", "."))
parser.add_argument("--seeds", type=int, default=3)
if __name__ == "__main__":
    args = parser.parse_args()
    train_seeds(
        "flowers", str(Path(args.folder) / "flowers5.zip"), range(args.seeds), Goal(top1=0.74, seconds=600)
    )
