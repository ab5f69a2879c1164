"""Recorded cases into tests/data/parity/cases, small enough to be committed.

python -m support.pack_cases FOLDER NAME...    # in tests/; FOLDER holds recorded cases, each a folder with a meta.json

A case becomes one zip. Its files are kept byte for byte, but of its recorded arrays the first image alone: no model of
the family looks from one image of a batch to another, and the input is half of a case.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from support.parity import PACKED

# Arrays with something else before the batch: layers, steps of a chain.
BATCH_AXIS = {"intermediate": 1, "intermediate_patches": 1, "intermediate_cls": 1}
LONG_AGO = (2020, 1, 1, 0, 0, 0)


def pack(case: Path) -> Path:
    meta = json.loads((case / "meta.json").read_text(encoding="utf-8"))
    target = PACKED / f"{meta['case']}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(path for path in case.rglob("*") if path.is_file()):
            content = first_image(file, meta) if file.name == "io.npz" else file.read_bytes()
            name = zipfile.ZipInfo(f"{meta['case']}/{file.relative_to(case).as_posix()}", LONG_AGO)
            name.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(name, content)
    return target


def first_image(file: Path, meta: dict[str, object]) -> bytes:
    """io.npz with the first image of a batch; a case of another kind than a model's answers stays whole."""
    with np.load(file) as opened:
        arrays = dict(opened)
    if meta["kind"] == "backbone" and "image" in arrays:
        batch = len(arrays["image"])
        for name, array in arrays.items():
            axis = BATCH_AXIS.get(name, 0)
            if array.ndim > axis and array.shape[axis] == batch:
                arrays[name] = array.take([0], axis)
    # Written uncompressed: the zip around it does that once, and better.
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


if __name__ == "__main__":
    for named in sys.argv[2:]:
        print(pack(Path(sys.argv[1]) / named))
