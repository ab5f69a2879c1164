"""Files that try to hang, fill the memory or crash: refused at once, or bounded. And places that are no files."""

import io
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import decode

AWKWARD = Path(__file__).parents[2] / "data" / "awkward"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG header of any claim, `extra` chunks, and next to no data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        + chunk(b"IEND", b"")
    )


def tiff(**tags: int) -> bytes:
    """A TIFF directory of any claim (tag numbers as t256=…), little-endian, every value one LONG."""
    entries = sorted((int(tag[1:]), value) for tag, value in tags.items())
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(64)


def gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + b",\0\0\0\0"
        + struct.pack("<HHB", width, height, 0)
    )


def ico(size: int) -> bytes:
    inner = png(size, size)
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


BOMBS = {
    "png of gigapixels": png(60000, 60000),
    "png of 2^31 pixels a side": png(2**31 - 1, 2**31 - 1),
    "16-bit png": png(9999, 9999, depth=16),
    "png with text": png(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 200_000_000))),
    "png with a profile": png(4, 4, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 200_000_000))),
    "tiff of gigapixels": tiff(t256=100_000, t257=100_000, t258=8, t273=8, t278=1, t279=1),
    "tiff of gigantic tiles": tiff(t256=64, t257=64, t258=16, t322=2**30, t323=2**30, t324=8, t325=8),
    "tiff of tiny tiles": tiff(t256=9000, t257=9000, t258=16, t322=1, t323=1, t324=8, t325=8),
    "tiff of gigantic strips": tiff(t256=9999, t257=9999, t258=16, t278=2**31, t259=5, t273=8, t279=2**31),
    "tiff of 65535 channels": tiff(t256=9000, t257=9000, t258=16, t277=65535, t273=8, t279=8),
    "gif of an absurd canvas": gif(65535, 65535),
    "ico of gigapixels": ico(60000),
    "webp": b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + bytes(4)
    + b"\xff" * 6
    + bytes(12),
    "ppm": b"P6 99999 99999 65535\n",
    "ppm in text": b"P3 9999 9999 65535\n1 2 3",
    "npy": b"\x93NUMPY\1\0\x46\0"
    + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999, 3), }".ljust(70),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0),
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 99999, 99999, 8, 3) + bytes(40),
    "ppm of comments": b"P5" + b"#" * 500,
    "ppm of comments and spaces": b"P6\n" + b"# " * 500,
    "pam without a number": b"P7\nWIDTH \nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nENDHDR\n1234",
    "pam of 10^400 channels": b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH " + b"9" * 400 + b"\nMAXVAL 255\nENDHDR\n",
    "npy of digits": b"\x93NUMPY\1\0\xf4\1"
    + (b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * 200 + b"x").ljust(500),
    "sgi": b"\x01\xda\x01\x01" + struct.pack(">HHHH", 3, 65535, 65535, 3) + bytes(600),
}

LIMITED = """
import resource, sys
import numpy, patchword.images.decode as d, patchword.images.tiff_pixels
from patchword.errors import ImageError
with open('/proc/self/statm') as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 600_000_000,) * 2)
try:
    print("read", d.decode(sys.stdin.buffer.read()).shape)
except ImageError as error:
    print("refused", str(error).replace(chr(10), " "))
"""


@pytest.mark.parametrize(
    "bomb", ["png with text", "tiff of gigantic tiles", "ppm in text", "ico of gigapixels"]
)
def test_a_bomb_stays_within_600_mb_of_address_space(bomb: str) -> None:
    """Linux only, as the whole suite."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED], input=BOMBS[bomb], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith((b"refused", b"read")) and not done.stderr


@pytest.mark.timeout(100)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_or_harmless_within_seconds(bomb: str) -> None:
    try:
        assert decode(BOMBS[bomb]).size <= 300
    except ImageError as error:
        assert error.fix


def test_numbers_in_text_are_read_within_the_memory_of_the_picture() -> None:
    text = b"P2 4000 3000 99 " + b"87 " * 12_000_000  # as objects of Python's, 500 MB
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED], input=text, capture_output=True, timeout=60
    )
    assert done.stdout.startswith(b"read (3000, 4000, 3)"), done.stdout + done.stderr


def test_very_thin_deep_pictures_take_no_longer_than_others() -> None:
    long = 300_000
    rows = zlib.compress(b"\1\0\1\0\2\0\3" * long)
    header = struct.pack(">IIBBBBB", 1, long, 16, 2, 0, 0, 0)
    thin_png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    packed = zlib.compress(b"\x70" * long)
    thin_tiff = bytearray(
        tiff(t256=1, t257=long, t258=4, t259=8, t262=1, t273=0, t277=1, t278=long, t279=len(packed))
    )
    thin_tiff[10 + 5 * 12 + 8 : 10 + 6 * 12] = struct.pack("<I", len(thin_tiff))
    for data, value in ((thin_png, 1 / 65535), (bytes(thin_tiff) + packed, 7 * 17)):
        start = time.perf_counter()
        pixels = decode(data)
        assert pixels.shape == (long, 1, 3) and np.allclose(pixels[..., 0], value)
        assert time.perf_counter() - start < 1


def test_the_limit_on_pixels_is_checked_before_decoding_and_can_be_set() -> None:
    file = io.BytesIO()
    Image.new("RGB", (50, 40)).save(file, "PNG")
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        file = io.BytesIO()
        Image.new("RGB", (50, 40)).save(file, kind)
        assert decode(file.getvalue(), max_pixels=2000).shape == (40, 50, 3)
        with pytest.raises(ImageError, match="over the limit"):
            decode(file.getvalue(), max_pixels=1999)
    with pytest.raises(ImageError, match="over the limit"):
        decode(np.zeros((40, 50), np.uint8), max_pixels=1999)


def test_places_that_are_no_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder.jpg").mkdir()
    for path, word in (
        (tmp_path / "fifo", "pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path / "folder.jpg", "folder"),
        (tmp_path / "loop", "cannot be opened"),
        (tmp_path / "missing.jpg", "no such file"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
    ):
        with pytest.raises(ImageError, match=word):
            decode(path)


def test_no_permission_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root, who runs containers, may read everything
    with pytest.raises(ImageError, match="no permission"):
        decode("a.png")


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "photo_01.png").write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "photo_1.png")
    assert "photo_01.png" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n\n<html><body>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"PK\3\4" + bytes(30), "zip"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"II\xbc\1" + bytes(30), "JPEG XR"),
        (b"\x76\x2f\x31\x01\2\0\0\0", "OpenEXR"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n\1\2\3\4", "Radiance"),
        (b"8BPS\0\2" + bytes(30), "PSB"),
        (b"gimp xcf v011\0", "GIMP"),
        (b"/* XPM */\nstatic char * a[] = {", "XPM"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video file"),
        (b"hello, I am text", "text"),
        (bytes(5000), "zeros"),
        (b"\xff\xd8", "truncated"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (bytes(random.Random(0).randbytes(3000)), "not an image|damaged"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=word) as caught:
        decode(path)
    assert "picture.jpg" in caught.value.message and caught.value.fix


def test_sources_of_another_type_are_refused() -> None:
    for source in (None, 3, ["a.png"], io.StringIO("text")):
        with pytest.raises(ImageError):
            decode(source)  # type: ignore[arg-type]


def real_files() -> dict[str, bytes]:
    """One small file of each format, pixels of some detail."""
    y, x = np.mgrid[:24, :32]
    image = Image.fromarray(np.stack([x * 8, y * 10, x * y], axis=-1).astype(np.uint8))
    files = {}
    for kind in (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "AVIF",
        "ICO",
        "TGA",
        "PCX",
        "SGI",
        "DDS",
        "JPEG2000",
    ):
        file = io.BytesIO()
        image.save(file, kind)
        files[kind] = file.getvalue()
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(image).astype(np.uint16) * 257, photometric="rgb", compression="zlib")
    files["deep TIFF"] = file.getvalue()
    file = io.BytesIO()
    np.save(file, np.asarray(image))
    files["npy"] = file.getvalue()
    for name in ("rgba-16.png", "progressive.jpg", "maxval-100.ppm", "mode-P-trns-table.png", "animated.gif"):
        files[name] = (AWKWARD / name).read_bytes()
    return files


def damaged(data: bytes, random_: random.Random) -> bytes:
    bent = bytearray(data)
    kind = random_.random()
    if kind < 0.25:
        return bytes(bent[: random_.randrange(len(bent))])
    for _ in range(random_.choice((1, 1, 2, 8))):
        # Headers are where damage is dangerous: most of it falls near the start.
        place = (
            min(int(random_.expovariate(1 / 150)), len(bent) - 1)
            if kind < 0.7
            else random_.randrange(len(bent))
        )
        bent[place] = random_.choice((random_.randrange(256), 0, 255))
    return bytes(bent)


@pytest.mark.parametrize("name", real_files())
def test_damage_anywhere_raises_nothing_but_image_error(name: str) -> None:
    data, random_ = real_files()[name], random.Random(name)
    end = time.perf_counter() + 0.12
    while time.perf_counter() < end:
        bent = damaged(data, random_)
        try:
            # A small limit keeps a bent header from asking for seconds of honest work.
            pixels = decode(bent, max_pixels=1_000_000)
        except ImageError:
            continue
        assert pixels.dtype in (np.uint8, np.float32) and pixels.shape[2] == 3


def saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("tenths", range(1, 10))
@pytest.mark.parametrize(("kind", "mode"), [("PCX", "P"), ("PCX", "L"), ("PCX", "RGB"), ("JPEG2000", "RGB")])
def test_a_file_cut_off_behind_its_header_is_no_other_picture(kind: str, mode: str, tenths: int) -> None:
    # Two wide: Pillow 11 cannot read its own PCX of one column.
    columns = np.tile(np.arange(17, dtype=np.uint8)[:, None, None] * 15, (1, 2, 3))
    data = saved(Image.fromarray(columns).convert(mode), kind)
    assert decode(data).shape == (17, 2, 3)
    with pytest.raises(ImageError):
        decode(data[: len(data) * tenths // 10])
