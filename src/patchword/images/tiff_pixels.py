"""The pixels of a TIFF directory: segments unpacked, predictors undone, laid into one array, given a meaning."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from patchword.errors import ImageError
from patchword.images import tiff as t
from patchword.images.limits import Limits
from patchword.images.pillow import translated
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Meaning, Pixels, Stored, scaled
from patchword.images.tiff import Tiff

_BITS_BLOCK = 1 << 16  # bytes
_ALPHA = (1, 2)  # extra samples: 1 associated (premultiplied), 2 unassociated; 0 is unspecified


def read_tiff(data: bytes, tiff: Tiff, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """Raises: ImageError for depths without a known range, missing data, or damage."""
    # The unpacked bytes, the array and the floats are held at once.
    limits.check_bytes(tiff.width * tiff.height * tiff.samples * (max(tiff.bits // 8, 1) * 2 + 4), name)
    values = _assemble(data, tiff, name)
    if tiff.photometric == t.PALETTE:
        return _through_palette(values, tiff, name)
    pixels = _to_unit(values, tiff, name, value_range)
    return _with_meaning(pixels, tiff)


def _to_unit(values: NDArray[Any], tiff: Tiff, name: str, value_range: ValueRange | None) -> Pixels:
    if tiff.sample_format == 1 and tiff.bits <= 8:
        pixels: Pixels = values if tiff.bits == 8 else values * np.uint8(255 // (2**tiff.bits - 1))
    elif tiff.sample_format == 1 and tiff.bits < 16:
        pixels = scaled(values, name, value_range, top=2**tiff.bits - 1)
    else:
        pixels = scaled(values, name, value_range)
    if tiff.photometric == t.WHITE_IS_ZERO:  # the extra samples, alpha among them, are not turned round
        white = np.uint8(255) if pixels.dtype == np.uint8 else np.float32(1)
        pixels = np.concatenate([white - pixels[..., :1], pixels[..., 1:]], axis=2)
    return pixels


def _with_meaning(pixels: Pixels, tiff: Tiff) -> Stored:
    extra = tiff.extra_samples[0] if tiff.extra_samples else 0
    meaning: Meaning = "bands"
    if tiff.photometric == t.CMYK and tiff.samples == 4:
        meaning = "cmyk"
    elif tiff.photometric == t.YCBCR:
        planes = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(3)]
        pixels, meaning = np.asarray(Image.merge("YCbCr", planes).convert("RGB")), "rgb"
    elif tiff.photometric in (t.WHITE_IS_ZERO, t.BLACK_IS_ZERO):
        if tiff.samples == 1:
            meaning = "grey"
        elif tiff.samples == 2 and extra in _ALPHA:
            meaning = "grey+alpha"
    elif tiff.photometric == t.RGB and tiff.samples in (3, 4):
        meaning = "rgb" if tiff.samples == 3 else "rgb+alpha" if extra in _ALPHA else "rgb+band"
    if extra == 1 and meaning.endswith("+alpha"):
        pixels = _unmultiplied(pixels)
    return Stored(pixels=pixels, meaning=meaning)


def _unmultiplied(pixels: Pixels) -> Pixels:
    """Associated alpha: the colours are stored already multiplied by it."""
    unit = pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
    alpha = unit[..., -1:]
    colour = np.divide(unit[..., :-1], alpha, out=np.zeros_like(unit[..., :-1]), where=alpha > 0)
    return np.concatenate([np.minimum(colour, 1), alpha], axis=2)


def _through_palette(values: NDArray[Any], tiff: Tiff, name: str) -> Stored:
    colours = 2**tiff.bits
    has_alpha = tiff.samples == 2 and tiff.bits == 8 and tiff.extra_samples[:1] in ((1,), (2,))
    if (tiff.samples != 1 and not has_alpha) or tiff.bits > 8 or len(tiff.colour_map) != 3 * colours:
        raise ImageError(f"{name}: damaged TIFF file (invalid palette)", "save it again as PNG")
    table = np.array(tiff.colour_map, np.uint16).reshape(3, colours).T
    # Written in 16 bits, as 257 or 256 times the 8-bit number; some programs put the 8-bit numbers there.
    colours_8bit = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
    pixels = colours_8bit[values[..., 0]]
    if has_alpha:
        return Stored(pixels=np.concatenate([pixels, values[..., 1:]], axis=2), meaning="rgb+alpha")
    return Stored(pixels=pixels, meaning="rgb")


def _assemble(data: bytes, tiff: Tiff, name: str) -> NDArray[Any]:
    """[height, width, samples] in the file's own numbers."""
    rows, columns = tiff.segment
    if rows < 1 or columns < 1:
        raise ImageError(f"{name}: damaged TIFF file (segments of {columns}x{rows})", "download it again")
    down, across = -(-tiff.height // rows), -(-tiff.width // columns)
    planes = tiff.samples if tiff.planes_apart else 1
    per_plane = down * across
    if len(tiff.offsets) < per_plane * planes or len(tiff.counts) not in (0, len(tiff.offsets)):
        raise ImageError(f"{name}: damaged TIFF file ({len(tiff.offsets)} segments)", "download it again")
    samples = 1 if planes > 1 else tiff.samples
    dtype = _dtype(tiff, name)
    _refuse_other_predictors(tiff, dtype, name)
    out = np.empty((tiff.height, tiff.width, tiff.samples), dtype.newbyteorder("="))
    for plane in range(planes):
        first = plane * per_plane
        raw = _unpack(data, tiff, range(first, first + per_plane), samples, name)
        for i, segment in enumerate(raw):
            top, left = i // across * rows, i % across * columns
            height, width = min(rows, tiff.height - top), min(columns, tiff.width - left)
            values = _values(segment, tiff, columns, samples, dtype)[:height, :width]
            channel = slice(plane, plane + 1) if planes > 1 else slice(None)
            out[top : top + height, left : left + width, channel] = values
    return out


def _dtype(tiff: Tiff, name: str) -> np.dtype[Any]:
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(tiff.sample_format)
    packed = kind == "u" and tiff.bits in (1, 2, 4, 10, 12, 14)
    if packed:
        return np.dtype(np.uint8 if tiff.bits < 8 else np.uint16)
    if kind is None or tiff.bits not in (8, 16, 32, 64) or (kind == "f" and tiff.bits == 8):
        raise ImageError(
            f"{name}: TIFF with {tiff.bits}-bit channels of sample format {tiff.sample_format} is not supported",
            "save it with 8-bit, 16-bit or float channels",
        )
    return np.dtype(f"{tiff.order}{kind}{tiff.bits // 8}")


def _refuse_other_predictors(tiff: Tiff, dtype: np.dtype[Any], name: str) -> None:
    """Differences of a kind that is not undone would be shown as if they were the image."""
    whole_bytes = tiff.bits % 8 == 0
    fits = {1: True, 2: whole_bytes, 3: whole_bytes and dtype.kind == "f"}.get(tiff.predictor, False)
    if not fits:
        raise ImageError(
            f"{name}: TIFF with predictor {tiff.predictor} for {tiff.bits}-bit channels of sample format "
            f"{tiff.sample_format} is not supported",
            "save it without a predictor",
        )


def _unpack(data: bytes, tiff: Tiff, which: range, samples: int, name: str) -> list[bytes]:
    """The plain bytes of the segments `which` of one plane."""
    rows, columns = tiff.segment
    stride = (columns * samples * tiff.bits + 7) // 8
    full = rows * stride
    last = full if tiff.is_tiled else (tiff.height - rows * (len(which) - 1)) * stride
    packed = []
    for i in which:
        length = tiff.counts[i] if tiff.counts else full
        body = data[tiff.offsets[i] : tiff.offsets[i] + length]
        if len(body) < length:
            raise ImageError(f"{name}: the TIFF file is truncated", "download it again")
        packed.append(_reversed_bits(body) if tiff.fill_order == 2 else body)
    sizes = [full] * (len(packed) - 1) + [last]
    if tiff.compression == t.PLAIN:
        plain = packed
    elif tiff.compression in (t.DEFLATE, t.ADOBE_DEFLATE):
        try:
            plain = [zlib.decompressobj().decompress(p, size) for p, size in zip(packed, sizes, strict=True)]
        except zlib.error as error:
            raise ImageError(f"{name}: damaged TIFF file ({error})", "download it again") from error
    else:
        plain = _through_libtiff(packed, tiff, stride, rows, sizes, name)
    if any(len(p) < size for p, size in zip(plain, sizes, strict=True)):
        raise ImageError(
            f"{name}: the TIFF file is truncated or damaged (too few pixels)", "download it again"
        )
    return [p[:size] for p, size in zip(plain, sizes, strict=True)]


def _reversed_bits(packed: bytes) -> bytes:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8)).reshape(-1, 8)
    return np.packbits(bits[:, ::-1], axis=1).tobytes()


def _through_libtiff(
    packed: list[bytes], tiff: Tiff, stride: int, rows: int, sizes: list[int], name: str
) -> list[bytes]:
    """Let Pillow's libtiff unpack: the segments, dressed as the strips of an 8-bit grey TIFF of bytes."""
    height = sum(sizes) // stride
    lengths = [len(p) for p in packed]
    n = len(packed)
    tags_at = 8
    tables_at = tags_at + 2 + 9 * 12 + 4
    pixels_at = tables_at + 8 * n
    offsets = [pixels_at + sum_ for sum_ in np.cumsum([0, *lengths[:-1]]).tolist()]
    tables = struct.pack(f"<{n}I{n}I", *offsets, *lengths)
    entries = [
        (256, 4, 1, stride),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, tiff.compression),
        (262, 3, 1, t.BLACK_IS_ZERO),
        (273, 4, n, tables_at if n > 1 else offsets[0]),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, n, tables_at + 4 * n if n > 1 else lengths[0]),
    ]
    directory = (
        struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + bytes(4)
    )
    dressed = b"".join([b"II*\0", struct.pack("<I", tags_at), directory, tables, *packed])
    with translated(name, "tiff"):
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(dressed))
        image.load()
        flat = image.tobytes()
    return [
        flat[start : start + size]
        for start, size in zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True)
    ]


def _values(segment: bytes, tiff: Tiff, columns: int, samples: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """[rows, columns, samples] of one strip or tile, the predictor undone."""
    if tiff.bits in (1, 2, 4, 10, 12, 14):
        return _unpacked_bits(segment, tiff.bits, columns, samples, dtype)
    if tiff.predictor == 3:
        return _float_predicted(segment, columns, samples, dtype)
    values = np.frombuffer(segment, dtype).reshape(-1, columns, samples)
    if tiff.predictor == 2:
        whole = values.view(f"{tiff.order}u{dtype.itemsize}").astype(f"=u{dtype.itemsize}")
        return np.cumsum(whole, axis=1, dtype=whole.dtype).view(dtype.newbyteorder("="))
    return values


def _unpacked_bits(
    segment: bytes, bits: int, columns: int, samples: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    stride = (columns * samples * bits + 7) // 8
    lines = np.frombuffer(segment, np.uint8).reshape(-1, stride)
    out = np.zeros((lines.shape[0], columns * samples), dtype)
    at_once = max(_BITS_BLOCK // stride, 1)  # some rows at a time: the bits take a byte each
    for top in range(0, lines.shape[0], at_once):
        block = out[top : top + at_once]
        digits = np.unpackbits(lines[top : top + at_once], axis=1)[:, : columns * samples * bits]
        for digit in range(bits):
            block <<= 1
            block |= digits[:, digit::bits]
    return out.reshape(-1, columns, samples)


def _float_predicted(segment: bytes, columns: int, samples: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Bytes of a row sorted by significance, most significant first, and stored as differences."""
    size = dtype.itemsize
    steps = np.frombuffer(segment, np.uint8).reshape(-1, columns * size, samples)
    planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(-1, size, columns * samples)
    whole = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
    return whole.reshape(-1, columns, samples)
