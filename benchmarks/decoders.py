"""Compare our readers of TIFF, netpbm and 16-bit PNG with tifffile and imagecodecs.

    python benchmarks/decoders.py --data imagenet-sample.zip [--awkward awkward-images.zip] [--libraries FOLDER]

Measures four things: decoding real photographs, saved in the usual formats of deep images, from memory to the same float32
image; a cold process that decodes one file; how many of the awkward files each decodes correctly; and how many truncated
deep files each refuses. imagecodecs is not part of the bench extra: install it into a folder
(`pip install --target FOLDER --no-deps imagecodecs`) and pass that folder as --libraries.
"""

import argparse
import csv
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import compile_source, interleave, ratio_interval, write_result
from patchword.images.decode import decode
from peers import photographs

Pixels = np.ndarray[Any, Any]
OURS = "import sys; from patchword.images.decode import decode; decode(sys.argv[1])"
THEIRS = "import sys, tifffile; tifffile.imread(sys.argv[1])"
THEIRS_PNG = "import sys, imagecodecs; imagecodecs.imread(sys.argv[1])"
NETPBM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"PF", b"Pf")


def by_libraries(data: bytes) -> Pixels:
    """Decode with the libraries and convert to RGB in 0..1, in as little code as their output allows."""
    import imagecodecs
    import tifffile

    if data[:2] in (b"II", b"MM"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return _tiff_page(file.pages[0])
    if data[:2] in NETPBM:
        # imagecodecs does not read netpbm, so this uses Pillow.
        image = Image.open(io.BytesIO(data))
        return as_rgb(np.asarray(image, np.uint16) if image.mode == "I" else np.asarray(image))
    return as_rgb(imagecodecs.png_decode(data), alpha=True)


def _tiff_page(page: Any) -> Pixels:
    pixels: Pixels = page.asarray()
    kind, extra = int(page.photometric), tuple(page.extrasamples)
    if int(page.planarconfig) == 2 and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if kind == 3:
        pixels = page.colormap[:, pixels].transpose(1, 2, 0)
    elif kind == 0 and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    elif kind == 5:
        paper = 1 - pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
        return paper[..., :3] * paper[..., 3:]
    elif kind == 6:
        pixels = np.asarray(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    elif kind == 8:
        raise ValueError("CIELab")
    return as_rgb(pixels, alpha=extra[:1] in ((1,), (2,)))


def as_rgb(pixels: Pixels, *, alpha: bool = False) -> Pixels:
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype == bool:
        pixels = pixels.astype(np.float32)
    elif pixels.dtype.kind == "u":
        pixels = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if pixels.dtype.kind != "f":
        raise ValueError(f"{pixels.dtype}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError("out of range")
    if alpha and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1] * pixels[..., -1:] + 1 - pixels[..., -1:]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def written(photo: Pixels) -> dict[str, bytes]:
    """Encode the photograph in each format, with noise in the lower byte, as from a camera."""
    import imagecodecs
    import tifffile

    noise = np.random.default_rng(0).integers(0, 257, photo.shape)
    deep = (photo.astype(np.uint32) * 256 + noise).clip(0, 65535).astype(np.uint16)
    height, width, _ = deep.shape

    def tiff(values: Pixels, **how: Any) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, values, **{"photometric": "rgb", **how})
        return file.getvalue()

    grey, small = deep[..., 1], deep[:128, :128]
    text = " ".join(map(str, small.reshape(-1).tolist())).encode()
    return {
        "TIFF, 16-bit RGB, plain": tiff(deep),
        "TIFF, 16-bit RGB, LZW, predictor": tiff(deep, compression="lzw", predictor=2, rowsperstrip=16),
        "TIFF, 16-bit RGB, deflate": tiff(deep, compression="zlib", predictor=2, rowsperstrip=64),
        "TIFF, 16-bit RGB, tiles, deflate": tiff(deep, compression="zlib", tile=(128, 128)),
        "TIFF, float RGB, deflate, predictor": tiff(
            (deep / 65535).astype(np.float32), compression="zlib", predictor=3, rowsperstrip=64
        ),
        "TIFF, 16-bit RGB, planes apart": tiff(deep.transpose(2, 0, 1).copy(), planarconfig="separate"),
        "PNG, 16-bit RGB": imagecodecs.png_encode(deep),
        "PNG, 16-bit RGBA": imagecodecs.png_encode(np.dstack([deep, np.full_like(grey, 65535)])),
        "PGM, 16-bit": b"P5\n%d %d\n65535\n" % (width, height) + grey.astype(">u2").tobytes(),
        "PPM, 16-bit, 128 x 128": b"P6\n128 128\n65535\n" + small.astype(">u2").tobytes(),
        "PPM, 16-bit, ASCII, 128 x 128": b"P3\n128 128\n65535\n" + text,
    }


def speed(photos: list[Pixels], rounds: int) -> tuple[list[str], dict[str, Any]]:
    files = [written(photo) for photo in photos]
    rows, payload = [], {}
    for kind in files[0]:
        many = [file[kind] for file in files]
        off = max(float(np.abs(as_rgb(decode(d)) - by_libraries(d)).max()) for d in many)
        systems: dict[str, Callable[[], Any]] = {
            "ours": lambda many=many: [as_rgb(decode(data)) for data in many],  # type: ignore[misc]
            "libraries": lambda many=many: [by_libraries(data) for data in many],  # type: ignore[misc]
        }
        seconds = interleave(systems, rounds, warm_up=1)
        ratio, low, high = ratio_interval(seconds["ours"], seconds["libraries"])
        ms = 1e3 * statistics.median(seconds["ours"]) / len(many)
        rows.append(f"| {kind} | {ms:.1f} | {ratio:.2f} [{low:.2f}, {high:.2f}] | {off:.1g} |")
        print(rows[-1], flush=True)
        payload[kind] = {"seconds": seconds, "largest_difference": off}
    return rows, payload


def starts(photo: Pixels, rounds: int) -> dict[str, list[float]]:
    """Time a cold process that decodes one file."""
    with tempfile.TemporaryDirectory() as place:
        files = written(photo)
        tiff, png = Path(place) / "a.tiff", Path(place) / "a.png"
        tiff.write_bytes(files["TIFF, 16-bit RGB, LZW, predictor"])
        png.write_bytes(files["PNG, 16-bit RGB"])
        commands = {
            "ours, TIFF": [sys.executable, "-c", OURS, str(tiff)],
            "tifffile and imagecodecs, TIFF": [sys.executable, "-c", THEIRS, str(tiff)],
            "ours, PNG": [sys.executable, "-c", OURS, str(png)],
            "imagecodecs, PNG": [sys.executable, "-c", THEIRS_PNG, str(png)],
            "NumPy and Pillow alone": [sys.executable, "-c", "import numpy, PIL.Image"],
        }
        systems = {name: (lambda c=c: subprocess.run(c, check=True)) for name, c in commands.items()}
        return interleave(systems, rounds, warm_up=1)


def awkward(place: Path) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Select the files of the pack that our own readers handle."""
    if place.suffix == ".zip":
        with zipfile.ZipFile(place) as pack:
            files = {Path(n).name: pack.read(n) for n in pack.namelist() if not n.endswith("/")}
    else:
        files = {path.name: path.read_bytes() for path in place.iterdir()}
    rows = csv.DictReader(files["manifest.csv"].decode().splitlines())
    found = {row["file"]: (files[row["file"]], row) for row in rows}
    kinds = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG")
    deep = {n: f for n, f in found.items() if f[0][:4] in kinds or f[0][:2] in NETPBM}
    return {n: f for n, f in deep.items() if f[0][:4] != b"\x89PNG" or f[0][24:25] == b"\x10"}


def is_correct(read: Callable[[bytes], Pixels], data: bytes, row: dict[str, str]) -> bool:
    try:
        pixels = read(data)
    except Exception:
        return row["expect"] in ("error", "either")
    if row["expect"] == "error" or pixels.shape[2] != 3:
        return row["expect"] in ("error", "either") and pixels.shape[2] != 3
    expected = np.array([float(v) for v in row["mean_rgb"].split(";")])
    right = pixels.shape[:2] == (int(row["height"]), int(row["width"]))
    return right and bool(np.abs(pixels.mean((0, 1)) - expected).max() <= float(row["tol"]))


def refused(read: Callable[[bytes], Pixels], data: bytes) -> bool:
    try:
        read(data[: len(data) * 6 // 10])
    except Exception:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--awkward", default=str(Path(__file__).parents[1] / "tests" / "data" / "awkward"))
    parser.add_argument("--libraries", help="folder that contains imagecodecs")
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    if chosen.libraries:  # after the installed packages, so that both use the same NumPy
        sys.path.append(chosen.libraries)
        os.environ["PYTHONPATH"] = chosen.libraries
    compile_source()
    import imagecodecs
    import tifffile

    with tempfile.TemporaryDirectory() as place:
        photos = [np.asarray(Image.open(p).convert("RGB")) for p in photographs(chosen.data, Path(place))[:2]]
    photos = [np.asarray(Image.fromarray(p).resize((768, 512))) for p in photos]
    rows, payload = speed(photos, chosen.rounds)
    seconds = starts(photos[0], chosen.rounds)
    cold = [f"| {name} | {statistics.median(taken):.2f} |" for name, taken in seconds.items()]
    pack = awkward(Path(chosen.awkward))
    ours_wrong = [
        n for n, (data, row) in pack.items() if not is_correct(lambda d: as_rgb(decode(d)), data, row)
    ]
    theirs_wrong = [n for n, (data, row) in pack.items() if not is_correct(by_libraries, data, row)]
    cut = written(photos[0])
    ours_cut = [k for k, data in cut.items() if not refused(decode, data)]
    theirs_cut = [k for k, data in cut.items() if not refused(by_libraries, data)]
    sizes = {m.__name__: folder_mib(Path(m.__file__ or "").parent) for m in (tifffile, imagecodecs)}
    table = "\n".join(
        [
            "| 768 x 512 photographs | ours, ms each | the libraries take, times ours | largest difference |",
            "|---|---|---|---|",
            *rows,
            "",
            "| cold process, one file | seconds, median |",
            "|---|---|",
            *cold,
            "",
            f"Awkward files for these readers: {len(pack)}. Correct: ours {len(pack) - len(ours_wrong)}, "
            f"the libraries {len(pack) - len(theirs_wrong)} (wrong: {', '.join(theirs_wrong) or 'none'}).",
            f"Of {len(cut)} files truncated at 60 %, accepted without an error: ours {len(ours_cut)}, the libraries "
            f"{len(theirs_cut)} ({', '.join(theirs_cut) or 'none'}).",
            f"Installed: {', '.join(f'{name} {size:.0f} MiB' for name, size in sizes.items())} "
            f"(tifffile {tifffile.__version__}, imagecodecs {imagecodecs.__version__}).",
            f"Written {time.strftime('%Y-%m-%d')}; {chosen.rounds} rounds.",
        ]
    )
    print(table)
    payload = {"decode": payload, "cold": seconds, "ours_wrong": ours_wrong, "theirs_wrong": theirs_wrong}
    print(write_result("decoders", payload | {"cut_taken": theirs_cut, "installed_mib": sizes}, table))


def folder_mib(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20


if __name__ == "__main__":
    main()
