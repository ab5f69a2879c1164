"""Real images for tests without files in the repository: scikit-learn's scans, three times as large."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def scans_of(digit: int, count: int, first: int = 0) -> list[Image.Image]:
    """`count` scans of a digit as grey 24 x 24 images."""
    digits = load_digits()
    chosen = digits.images[digits.target == digit][first : first + count]
    return [Image.fromarray(np.kron((s * 15.9).astype(np.uint8), np.ones((3, 3), np.uint8))) for s in chosen]


def write_scans(folder: Path, counts: dict[str, int], first: int = 0) -> None:
    """PNG files in class folders; the class "d3" holds threes."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        digit = int("".join(c for c in name if c.isdigit()) or 0)
        for i, scan in enumerate(scans_of(digit, count, first)):
            scan.save(folder / name / f"{i}.png")
