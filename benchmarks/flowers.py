"""flowers5 from scratch, nothing else said, three seeds: `python benchmarks/flowers.py [FOLDER] [--seeds 3]`.

Goal: 74 % on its val/ in 600 s on two idle cores. FOLDER holds flowers5.zip (else PATCHWORD_DATA names it).
"""

import argparse
import os
from pathlib import Path

from trainings import Goal, train_seeds

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=os.environ.get("PATCHWORD_DATA", "."))
parser.add_argument("--seeds", type=int, default=3)
if __name__ == "__main__":
    given = parser.parse_args()
    train_seeds(
        "flowers", str(Path(given.folder) / "flowers5.zip"), range(given.seeds), Goal(top1=0.74, seconds=600)
    )
