"""TIFF that Pillow does not read completely: deeper than 8 bits, float, any number of channels, planes apart.

`parse_tiff` reads the first directory; `is_ordinary` says whether Pillow has it right; `read_tiff` does the rest,
with Pillow's libtiff only unpacking bytes (LZW, PackBits…), so that no further codec package is needed.
Source: TIFF 6.0 (Adobe 1992), sections 2, 8, 14; Adobe Photoshop TIFF technical note 3 (predictor 3); BigTIFF.
"""

import struct
from dataclasses import dataclass, field

from patchword.errors import ImageError
from patchword.images.limits import Limits

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_TAGS = {
    256: "width",
    257: "height",
    258: "bits",
    259: "compression",
    262: "photometric",
    266: "fill_order",
    273: "strip_offsets",
    274: "orientation",
    277: "samples",
    278: "rows_per_strip",
    279: "strip_counts",
    284: "planar",
    317: "predictor",
    320: "colour_map",
    322: "tile_width",
    323: "tile_height",
    324: "tile_offsets",
    325: "tile_counts",
    338: "extra_samples",
    339: "sample_format",
    530: "subsampling",
}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
PLAIN, LZW, DEFLATE, ADOBE_DEFLATE, PACKBITS = 1, 5, 32946, 8, 32773
# What libtiff can unpack for us into plain bytes; Zstandard and LZMA where Pillow's has them.
UNPACKED = (PLAIN, LZW, DEFLATE, ADOBE_DEFLATE, PACKBITS, 34925, 50000)
_MAX_SEGMENTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Tiff:
    """The first directory. Offsets and counts are of strips or tiles, all planes in turn."""

    order: str  # "<" or ">"
    is_big: bool = False  # BigTIFF: offsets of 64 bits
    width: int
    height: int
    bits: int
    samples: int
    compression: int
    photometric: int
    sample_format: int = 1  # 1 unsigned, 2 signed, 3 float
    planes_apart: bool = False
    predictor: int = 1
    orientation: int = 1
    fill_order: int = 1
    is_subsampled: bool = False  # of YCbCr only
    extra_samples: tuple[int, ...] = ()
    colour_map: tuple[int, ...] = field(default=(), repr=False)
    segment: tuple[int, int] = (0, 0)  # rows, columns of a strip or tile
    is_tiled: bool = False
    offsets: tuple[int, ...] = field(default=(), repr=False)
    counts: tuple[int, ...] = field(default=(), repr=False)


def parse_tiff(data: bytes, name: str, limits: Limits) -> Tiff:
    """Raises: ImageError for a directory that is damaged or truncated, or a size over the limits."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        is_big = data[2:4] in (b"+\0", b"\0+")
        tags = _read_tags(data, order, is_big, name)
        tiff = _from_tags(tags, order, is_big, name)
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise ImageError(
            f"{name}: the TIFF file is truncated or its directory is damaged", "download it again"
        ) from error
    limits.check(tiff.width, tiff.height, tiff.samples, max(tiff.bits // 8, 1), name)
    rows, columns = tiff.segment
    limits.check_bytes(rows * columns * tiff.samples * max(tiff.bits // 8, 1), name)
    if tiff.photometric == YCBCR and tiff.is_subsampled and tiff.compression == PLAIN:
        raise ImageError(  # Pillow would say that it is truncated
            f"{name}: uncompressed YCbCr TIFF with subsampled colour is not supported",
            "save it as PNG",
        )
    return tiff


def is_ordinary(tiff: Tiff) -> bool:
    """Whether Pillow reads the image completely: 8 bits or 1, unsigned, of a usual kind and channel count."""
    known = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR)
    if tiff.compression not in UNPACKED or tiff.photometric not in known:
        return True  # JPEG, fax, CIELab…: only Pillow can read them
    if tiff.photometric == YCBCR:  # Pillow 11.3 fails on plain YCbCr without subsampling
        return tiff.is_subsampled or tiff.bits != 8 or tiff.samples != 3
    if tiff.compression == PACKBITS and tiff.predictor != 1:
        return False  # libtiff would give the differences
    if tiff.sample_format != 1 or tiff.fill_order != 1 or (tiff.is_big and tiff.order == ">"):
        return False
    if tiff.photometric == BLACK_IS_ZERO:
        return tiff.samples == 1 and tiff.bits in (1, 8)
    if tiff.bits != 8 or tiff.planes_apart:
        return False
    # Not WHITE_IS_ZERO, a negative where its one plane is marked as separate; nor palettes, black where their colours
    # are numbers of 8 bits.
    usual = {RGB: 3, CMYK: 4}.get(tiff.photometric)
    return tiff.samples == usual or (tiff.photometric == RGB and tiff.extra_samples == (2,))


def _read_tags(data: bytes, order: str, is_big: bool, name: str) -> dict[str, tuple[int, ...]]:
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    start += 8 if is_big else 2
    step, word, inline = (20, "Q", 8) if is_big else (12, "I", 4)
    if count * step > len(data):
        raise ValueError("more entries than bytes")
    tags: dict[str, tuple[int, ...]] = {}
    for entry in range(start, start + count * step, step):
        tag, kind, number = struct.unpack_from(order + "HH" + word, data, entry)
        if tag not in _TAGS or kind not in _WHOLE:
            continue
        place = entry + step - inline
        if number * _SIZES[kind] > inline:
            (place,) = struct.unpack_from(order + word, data, place)
        if number > _MAX_SEGMENTS:
            raise ImageError(
                f"{name}: damaged TIFF file ({number} {_TAGS[tag]})", "save it again, or download it again"
            )
        tags[_TAGS[tag]] = struct.unpack_from(f"{order}{number}{_WHOLE[kind]}", data, place)
    return tags


def _from_tags(tags: dict[str, tuple[int, ...]], order: str, is_big: bool, name: str) -> Tiff:
    def one(tag: str, default: int) -> int:
        return tags[tag][0] if tags.get(tag) else default

    width, height, samples = tags["width"][0], tags["height"][0], one("samples", 1)
    bits, formats = set(tags.get("bits", (1,))), set(tags.get("sample_format", (1,)))
    if len(bits) > 1 or len(formats) > 1 or not 1 <= samples <= 65535:
        raise ImageError(
            f"{name}: the channels of this TIFF have different depths (bits {tags.get('bits')})",
            "save all channels with the same depth",
        )
    is_tiled = "tile_offsets" in tags
    segment = (min(one("rows_per_strip", height), height), width)
    if is_tiled:
        segment = (tags["tile_height"][0], tags["tile_width"][0])
    orientation = one("orientation", 1)
    compression = one("compression", PLAIN)
    return Tiff(
        order=order,
        is_big=is_big,
        width=width,
        height=height,
        bits=bits.pop(),
        samples=samples,
        compression=compression,
        photometric=one("photometric", BLACK_IS_ZERO),
        sample_format=formats.pop(),
        planes_apart=one("planar", 1) == 2 and samples > 1,
        predictor=one("predictor", 1) if compression != PLAIN else 1,  # as libtiff writes and reads it
        orientation=orientation if 1 <= orientation <= 8 else 1,
        fill_order=one("fill_order", 1),
        is_subsampled=tags.get("subsampling", (2, 2)) != (1, 1),
        extra_samples=tags.get("extra_samples", ()),
        colour_map=tags.get("colour_map", ()),
        segment=segment,
        is_tiled=is_tiled,
        offsets=tags["tile_offsets" if is_tiled else "strip_offsets"],
        counts=tags.get("tile_counts" if is_tiled else "strip_counts", ()),
    )
