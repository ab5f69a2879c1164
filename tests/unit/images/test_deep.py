"""Deeper than 8 bits: PNG, TIFF, netpbm and .npy keep their precision and agree with the 8-bit picture."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from patchword.errors import ImageError
from patchword.images.decode import decode

Y, X = np.mgrid[:37, :53]
RGB = np.stack([X * 4, Y * 6, X + Y * 2], axis=-1).astype(np.uint8)
DEEP = RGB.astype(np.uint16) * 257
EXACT = (RGB / 255).astype(np.float32)


def png16(
    values: Any, colour: int, filters: Any = None, interlaced: bool = False, trns: bytes = b""
) -> bytes:
    """A 16-bit PNG with the given row filters, written apart from the reader."""
    height, width, channels = values.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ]
    raw = bytearray()
    for x, y, dx, dy in passes:
        part = values[y::dy, x::dx].astype(">u2")
        if part.size:
            rows = np.frombuffer(part.tobytes(), np.uint8).reshape(part.shape[0], -1)
            above = np.zeros_like(rows[0])
            for i, row in enumerate(rows):
                kind = filters[i % len(filters)] if filters else 0
                raw += bytes([kind]) + filtered(row, above, kind, 2 * channels)
                above = row

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    parts = [
        chunk(b"IHDR", header),
        chunk(b"tRNS", trns) if trns else b"",
        chunk(b"IDAT", zlib.compress(bytes(raw))),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def filtered(row: Any, above: Any, kind: int, step: int) -> bytes:
    out = bytearray()
    for i in range(len(row)):
        a = int(row[i - step]) if i >= step else 0
        b = int(above[i])
        c = int(above[i - step]) if i >= step else 0
        p = a + b - c
        paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        out.append((int(row[i]) - [0, a, b, (a + b) // 2, paeth][kind]) % 256)
    return bytes(out)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (4, 0, 3, 1, 2)])
def test_16_bit_colour_png_is_whole_under_every_filter(filters: Any, interlaced: bool) -> None:
    values = (DEEP + np.arange(3, dtype=np.uint16) * 7).astype(np.uint16)[:19, :21]
    pixels = decode(png16(values, 2, filters, interlaced))
    np.testing.assert_allclose(pixels, values / 65535, atol=1e-6)


def test_16_bit_png_with_alpha_or_a_clear_colour_goes_over_white() -> None:
    alpha = (X * 1200).astype(np.uint16)[..., None]
    unit, a = DEEP / 65535, alpha / 65535
    np.testing.assert_allclose(decode(png16(np.dstack([DEEP, alpha]), 6, (4,))), unit * a + 1 - a, atol=1e-5)
    grey = decode(png16(np.dstack([DEEP[..., :1], alpha]), 4, (4,)), channels=1)
    np.testing.assert_allclose(grey, (unit * a + 1 - a)[..., :1], atol=1e-5)
    clear = decode(png16(DEEP, 2, trns=struct.pack(">3H", *DEEP[5, 6])))
    assert (clear[5, 6] == 1).all() and np.allclose(clear[5, 7], unit[5, 7])


def test_16_bit_grey_png_may_be_interlaced_or_have_a_clear_level() -> None:
    grey = (DEEP[..., :1] + 5).astype(np.uint16)
    np.testing.assert_allclose(decode(png16(grey, 0, (4,), True), channels=1), grey / 65535, atol=1e-6)
    clear = decode(png16(grey, 0, trns=struct.pack(">H", grey[3, 4, 0])), channels=1)
    assert clear[3, 4] == 1 and np.allclose(clear[3, 5], grey[3, 5] / 65535)


def test_a_very_dark_deep_picture_is_not_black() -> None:
    dark = (RGB.astype(np.uint16)) % 250  # all below 256: the upper byte is zero everywhere
    for data in (png16(dark, 2), tiff(dark, photometric="rgb"), ppm(dark), npy(dark)):
        pixels = decode(data)
        assert pixels.dtype == np.float32 and len(np.unique(pixels)) > 100


def tiff(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def ppm(values: Any, maxval: int = 65535) -> bytes:
    height, width = values.shape[:2]
    kind = b"P6" if values.shape[2] == 3 else b"P5"
    return kind + f"\n# a comment\n{width} {height}\n{maxval}\n".encode() + values.astype(">u2").tobytes()


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_npy_in_columns_is_read_however_its_header_is_spaced() -> None:
    data = npy(np.asfortranarray(RGB))
    for spaced in (
        data,
        data.replace(b"'fortran_order': True", b"'fortran_order':  True").replace(b"  \n", b" \n"),
    ):
        np.testing.assert_array_equal(decode(spaced), RGB)
    np.testing.assert_array_equal(
        decode(data.replace(b"'fortran_order': True,", b"'fortran_order':True, ")), RGB
    )


@pytest.mark.parametrize("data", [png16(DEEP, 2), tiff(DEEP, photometric="rgb"), ppm(DEEP), npy(DEEP)])
def test_16_bits_equal_their_8_bit_version(data: bytes) -> None:
    assert np.abs(decode(data) - EXACT).max() < 1 / 255


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("kind", ["u2", "f2", "f4", "f8"])
def test_tiff_layouts_give_the_same_picture(order: Any, planes: Any, tile: Any, kind: str) -> None:
    values = DEEP if kind == "u2" else EXACT.astype(kind)
    stored = values if planes == "contig" else values.transpose(2, 0, 1)
    data = tiff(
        stored,
        photometric="rgb",
        planarconfig=planes,
        byteorder=order,
        **({"tile": tile} if tile else {"rowsperstrip": 9}),
    )
    assert np.abs(decode(data) - EXACT).max() < (1e-3 if kind == "f2" else 1e-6)


@pytest.mark.parametrize("samples", [2, 5, 13])
def test_channels_without_a_meaning_are_refused_as_rgb_and_come_as_they_are(samples: int) -> None:
    values = np.repeat(DEEP[..., :1], samples, axis=2) // np.arange(1, samples + 1, dtype=np.uint16)
    for data in (tiff(values, photometric="minisblack", planarconfig="contig"), npy(values)):
        for wrong in (1, 3):
            with pytest.raises(ImageError, match=f"{samples} channels"):
                decode(data, channels=wrong)
        np.testing.assert_allclose(decode(data, channels=samples), values / 65535, atol=1e-6)


def test_lzw_and_packbits_need_no_codec_package() -> None:
    for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate"):
        file = io.BytesIO()
        Image.fromarray(DEEP[..., 0]).save(file, "TIFF", compression=compression)
        np.testing.assert_allclose(
            decode(file.getvalue(), channels=1)[..., 0], DEEP[..., 0] / 65535, atol=1e-6
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_upright_as_an_8_bit_one(orientation: int) -> None:
    tag = [(274, "H", 1, orientation, True)]
    deep, shallow = tiff(DEEP, photometric="rgb", extratags=tag), tiff(RGB, photometric="rgb", extratags=tag)
    assert np.abs(decode(deep) - decode(shallow) / 255).max() < 1e-6


def raw_tiff(values: Any, bits: int, photometric: int, **tags: Any) -> bytes:
    """One strip, written apart from the reader. tags: t284=(2,), numbers of 16 bits; 32773 as t259: in PackBits."""
    order, is_big = tags.pop("order", "<"), tags.pop("is_big", False)
    height, width, samples = values.shape
    digits = (values.reshape(height, -1)[..., None] >> np.arange(bits)[::-1]) & 1
    body = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1).tobytes()
    if tags.get("t259") == (32773,):  # literal runs alone, each of 128 bytes at most
        runs = [body[at : at + 128] for at in range(0, len(body), 128)]
        body = b"".join(bytes([len(run) - 1]) + run for run in runs)
    entries: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (bits,) * samples,
        262: (photometric,),
    }
    entries |= {277: (samples,), 278: (height,), 279: (len(body),)}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    entries[273] = (16 if is_big else 8,)
    word, count, inline = ("Q", "Q", 8) if is_big else ("I", "H", 4)
    start = entries[273][0] + len(body)
    size = struct.calcsize("=" + count) + len(entries) * (20 if is_big else 12) + inline
    directory, tables = struct.pack(order + count, len(entries)), b""
    for tag, numbers in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(packed) > inline:
            place = struct.pack(order + word, start + size + len(tables))
            tables, packed = tables + packed, place
        directory += struct.pack(order + "HH" + word, tag, 3, len(numbers)) + packed.ljust(inline, b"\0")
    head = {"<": b"II", ">": b"MM"}[order]
    head += struct.pack(order + "HHHQ", 43, 8, 0, start) if is_big else struct.pack(order + "HI", 42, start)
    return head + body + directory + bytes(inline) + tables


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("factor", [1, 256, 257])
def test_a_tiff_palette_may_be_written_in_8_or_16_bits(bits: int, factor: int) -> None:
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    index = (X + Y)[:9, :13] % 2**bits
    data = raw_tiff(index[..., None], bits, 3, t320=tuple((colours.T * factor).ravel().tolist()))
    np.testing.assert_array_equal(decode(data), colours[index])


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_white_is_zero_in_every_arrangement(bits: int, planar: int, order: str, is_big: bool) -> None:
    values = (RGB[:9, :13, 1:2] > 20) * (2**bits - 1)
    data = raw_tiff(values, bits, 0, t284=(planar,), order=order, is_big=is_big)
    np.testing.assert_array_equal(decode(data, channels=1), 255 - values * (255 // (2**bits - 1)))


def test_alpha_of_a_tiff_whose_white_is_zero_is_not_turned_round() -> None:
    values = np.dstack([RGB[..., 0], (X * 4).astype(np.uint8)])
    pixels = decode(raw_tiff(values, 8, 0, t338=(2,)), channels=1)[..., 0]
    alpha = values[..., 1] / 255
    np.testing.assert_allclose(pixels, (255.0 - values[..., 0]) * alpha + 255 * (1 - alpha), atol=1)


def test_differences_packed_by_packbits_are_summed() -> None:
    differences = np.diff(RGB.astype(int), axis=1, prepend=0) % 256
    np.testing.assert_array_equal(decode(raw_tiff(differences, 8, 2, t259=(32773,), t317=(2,))), RGB)


@pytest.mark.parametrize(("bits", "predictor"), [(8, 3), (16, 3), (16, 4), (16, 34892), (4, 2)])
def test_differences_that_cannot_be_undone_are_refused_by_name(bits: int, predictor: int) -> None:
    with pytest.raises(ImageError, match=f"predictor {predictor}"):
        decode(raw_tiff(RGB.astype(int) % 16, bits, 2, t259=(32773,), t317=(predictor,)))


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_not_packed_has_no_predictor(bits: int) -> None:
    values = RGB.astype(int) * (257 if bits == 16 else 1)
    plain, told = (raw_tiff(values, bits, 2, t317=(predictor,)) for predictor in (1, 2))
    np.testing.assert_array_equal(decode(told), decode(plain))


def test_a_tiff_palette_with_alpha_goes_over_white() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3))
    values = np.dstack([RGB[..., 0], (X * 4).astype(np.uint8)])
    data = raw_tiff(values, 8, 3, t320=tuple((colours.T * 257).ravel().tolist()), t338=(2,))
    alpha = values[..., 1:] / 255
    expected = colours[values[..., 0]] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decode(data), expected, atol=1)


def test_uncompressed_colours_of_lower_resolution_are_refused_by_name() -> None:
    with pytest.raises(ImageError, match="subsampled colour"):
        decode(raw_tiff(RGB.astype(int), 8, 6, t530=(2, 2)))


def test_values_without_a_known_range_need_one() -> None:
    for values in (
        RGB.astype(np.int32),
        RGB.astype(np.int64),
        RGB.astype(np.float32),
        EXACT - 0.5,
        RGB.astype("i2"),
    ):
        with pytest.raises(ImageError, match=r"range|outside"):
            decode(values)
    twelve_bits = RGB.astype(np.uint16) * 16
    ranged = [
        decode(RGB.astype(np.int32), value_range=(0, 255)),
        decode(RGB.astype(np.float64), value_range=(0, 255)),
        decode(EXACT * 3 - 1, value_range=(-1, 2)),
        decode(npy(twelve_bits), value_range=(0, 4080)),
        decode(tiff(twelve_bits, photometric="rgb"), value_range=(0, 4080)),
    ]
    for pixels in ranged:
        assert np.abs(pixels - EXACT).max() < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    values = EXACT.copy()
    values[3, 4, 1] = bad
    for source in (values, npy(values), tiff(values, photometric="rgb")):
        with pytest.raises(ImageError, match="NaN or infinity"):
            decode(source)


def test_signalling_nan_in_foreign_byte_order_raises_no_warning() -> None:
    values = np.full((16, 16, 3), 0x7FA00001, ">u4").view(">f4")
    for source in (values, npy(values), tiff(values, photometric="rgb", byteorder=">")):
        with pytest.raises(ImageError, match="NaN or infinity"):
            decode(source)


def test_arrays_that_hold_no_numbers_are_refused() -> None:
    for values in (
        EXACT.astype(np.complex64),
        np.array([["a"]]),
        np.array([[None]]),
        np.zeros((2, 2), "f4,f4"),
    ):
        with pytest.raises(ImageError, match="not numeric"):
            decode(values)
    with pytest.raises(ImageError, match=r"pickled|numbers"):
        file = io.BytesIO()
        np.save(file, np.array([[None]]), allow_pickle=True)
        decode(file.getvalue())


def test_netpbm_of_every_kind() -> None:
    grey = RGB[..., 0]
    text = " ".join(map(str, grey.ravel())).encode()
    pam = b"P7\nWIDTH 53\nHEIGHT 37\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    opaque = np.dstack([RGB, np.full((37, 53), 255, np.uint8)])
    pfm = b"PF\n53 37\n-1.0\n" + EXACT[::-1].astype("<f4").tobytes()
    for data, expected in (
        (b"P2 53 37 255 " + text, grey[..., None]),
        (b"P5 53 37 255\n" + grey.tobytes(), grey[..., None]),
        (b"P3 53 37 255 " + " ".join(map(str, RGB.ravel())).encode(), RGB),
        (b"P6 53 37 255\n" + RGB.tobytes(), RGB),
        (pam + opaque.tobytes(), RGB),
        (pfm, RGB),
        (b"P1 4 2\n0110\n1001", np.array([[255, 0, 0, 255], [0, 255, 255, 0]])[..., None]),
        (b"P4 4 2\n\x60\x90", np.array([[255, 0, 0, 255], [0, 255, 255, 0]])[..., None]),
        (
            b"P5\n#" + b"a long comment # " * 900 + b"\n2 1 255# another\n\xff\x00",
            np.array([[255, 0]])[..., None],
        ),
        (b"P5 2 1 1023\n\x03\xff\x00\x00", np.array([[255, 0]])[..., None]),
    ):
        pixels = decode(data)
        levels = pixels if pixels.dtype == np.uint8 else pixels * 255
        assert np.abs(levels - expected.astype(float)).max() < 1e-4, data[:20]


@pytest.mark.parametrize(
    "text", [b"P2 1 1 255 ", b"P2 1 1 255 \n \n", b"P2 2 1 255 7 ", b"P1 2 1 1 ", b"P5 1 1 255#"]
)
def test_a_netpbm_without_its_last_pixel_is_cut_off(text: bytes) -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode(text)
