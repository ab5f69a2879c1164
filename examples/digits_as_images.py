"""Write ten digits that training did not see as PNG files, one per class.

python examples/digits_as_images.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from patchword.data.open import open_data


def write_held_out_digits(folder: Path) -> list[Path]:
    """Write one file per class, named after its digit, in grey levels 0..255."""
    folder.mkdir(parents=True, exist_ok=True)
    split = open_data("digits").evaluation
    files = []
    for label in range(10):
        first = int(np.flatnonzero(split.labels == label)[0])
        scan = np.asarray(split.source(first))
        files.append(folder / f"a-{label}.png")
        Image.fromarray(scan.squeeze()).save(files[-1])
    return files


if __name__ == "__main__":
    write_held_out_digits(Path(sys.argv[1]))
