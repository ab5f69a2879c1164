"""Train the demo with five seeds: `python benchmarks/digits.py [--seeds 5]`. Goal: 98.5 % in 90 s on two idle cores."""

import argparse

from trainings import Goal, train_seeds

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seeds", type=int, default=5)
if __name__ == "__main__":
    train_seeds("digits", "digits", range(parser.parse_args().seeds), Goal(top1=0.985, seconds=90))
