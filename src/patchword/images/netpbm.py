"""The complete netpbm family: PBM, PGM, PPM (ASCII and binary, any maxval to 65535), PAM and PFM.

Pillow brings colour deeper than 8 bits down to 8 and grey to mode "I", so it is not used.
Source: netpbm.sourceforge.net/doc (pbm, pgm, ppm, pam); pauldebevec.com/Research/HDR/PFM.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.preprocess import ValueRange
from patchword.images.stored import Meaning, Pixels, Stored, scaled

# Possessive: a comment is never read a second way, so that a header of only "#" does not backtrack forever.
_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*+)*+([^\s#]+)")
_SPACE = re.compile(rb"\s")
_LONGEST_HEADER = 1 << 16  # bytes: comments may be long
_TOO_LONG = re.compile(rb"\d{19}")
_ASCII_BLOCK = 1 << 20  # bytes of ASCII pixels read at once, not to hold 64 bits for every one
_PAM_MEANING: dict[bytes, Meaning] = {
    b"BLACKANDWHITE": "grey",
    b"GRAYSCALE": "grey",
    b"RGB": "rgb",
    b"BLACKANDWHITE_ALPHA": "grey+alpha",
    b"GRAYSCALE_ALPHA": "grey+alpha",
    b"RGB_ALPHA": "rgb+alpha",
}
_CHANNELS = {"grey": 1, "grey+alpha": 2, "rgb": 3, "rgb+alpha": 4}


@dataclass(frozen=True, kw_only=True)
class _Header:
    width: int
    height: int
    channels: int
    maxval: int
    meaning: Meaning
    start: int  # where the pixels begin


def read_netpbm(data: bytes, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """Raises: ImageError for a damaged header, a truncated file, a value over maxval, or a size over the limits."""
    magic = data[:2]
    if magic in (b"PF", b"Pf"):
        return _read_pfm(data, name, limits, value_range)
    header = _pam_header(data, name) if magic == b"P7" else _header(data, name)
    if not 1 <= header.maxval <= 65535:
        raise _damaged(name, f"maxval {header.maxval}")
    itemsize = 1 if header.maxval < 256 else 2
    limits.check(header.width, header.height, header.channels, itemsize, name)
    count = header.width * header.height * header.channels
    if magic in (b"P1", b"P2", b"P3"):
        # The text, and copies of it without comments and spaces.
        limits.check_bytes(3 * len(data) + count * itemsize, name)
        values = _ascii(data, header, count, np.dtype(f"u{itemsize}"), name)
    elif magic == b"P4":
        values = _packed_bits(data, header, name)
    else:
        dtype = np.dtype(np.uint8 if itemsize == 1 else ">u2")
        values = np.frombuffer(_exactly(data, header.start, count * itemsize, name), dtype)
    if int(values.max()) > header.maxval:
        raise _damaged(name, f"value {values.max()} exceeds maxval {header.maxval}")
    shaped = values.reshape(header.height, header.width, header.channels)
    return Stored(pixels=_scaled(shaped, header.maxval, name, value_range), meaning=header.meaning)


def _scaled(values: Pixels, maxval: int, name: str, value_range: ValueRange | None) -> Pixels:
    if maxval == 1:
        return values.astype(np.uint8) * np.uint8(255)
    if maxval == 255:
        return values.astype(np.uint8)
    deep = values.astype(np.uint16)
    return scaled(deep, name, value_range if maxval > 255 else None, top=maxval)


def _header(data: bytes, name: str) -> _Header:
    has_maxval = data[1:2] not in b"14"
    numbers: list[int] = []
    position = 2
    for _ in range(3 if has_maxval else 2):
        match = _TOKEN.match(data, position, position + _LONGEST_HEADER)
        if match is None or not match[1].isdigit() or len(match[1]) > 10:
            raise _damaged(name, "invalid header")
        numbers.append(int(match[1]))
        position = match.end()
    if data[position : position + 1] == b"#":  # a comment in place of the one space before the pixels
        newline = data.find(b"\n", position)
        position = newline if newline >= 0 else len(data)
    is_colour = data[1:2] in b"36"
    return _Header(
        width=numbers[0],
        height=numbers[1],
        channels=3 if is_colour else 1,
        maxval=numbers[2] if has_maxval else 1,
        meaning="rgb" if is_colour else "grey",
        start=position + 1,
    )


def _pam_header(data: bytes, name: str) -> _Header:
    end = data.find(b"ENDHDR\n", 0, 4096)
    lines = [line.split(None, 1) for line in data[3 : max(end, 0)].splitlines()]
    fields = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    numbers = [fields.get(key, b"") for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")]
    if not all(number.isdigit() and len(number) <= 10 for number in numbers):
        raise _damaged(name, "invalid header")
    width, height, channels, maxval = map(int, numbers)
    meaning = _PAM_MEANING.get(fields.get(b"TUPLTYPE", b""), "bands")
    if meaning == "bands" and channels in (1, 3):
        meaning = "grey" if channels == 1 else "rgb"
    if channels < 1 or _CHANNELS.get(meaning, channels) != channels:
        raise _damaged(name, f"DEPTH {channels} for {meaning}")
    return _Header(
        width=width,
        height=height,
        channels=channels,
        maxval=maxval,
        meaning=meaning,
        start=end + len(b"ENDHDR\n"),
    )


def _ascii(data: bytes, header: _Header, count: int, dtype: np.dtype[Any], name: str) -> Pixels:
    body = re.sub(rb"#[^\r\n]*", b"", data[header.start - 1 :])
    if data[1:2] == b"1":  # PBM digits need no space between them; 1 is black
        digits = np.frombuffer(re.sub(rb"\s", b"", body), np.uint8)[:count]
        if not np.isin(digits, (48, 49)).all():
            raise _damaged(name, "a pixel that is not 0 or 1")
        values: Pixels = np.equal(digits, ord("0")).astype(np.uint8)
    else:
        values = _numbers(body, header.maxval, count, dtype, name)
    if values.size < count:
        raise ImageError(
            f"{name}: the file is truncated ({values.size} of {count} values)", "download it again"
        )
    return values


def _numbers(body: bytes, maxval: int, count: int, dtype: np.dtype[Any], name: str) -> Pixels:
    """The first `count` numbers of a text, or as many as there are. What follows them is not checked."""
    values = np.empty(count, dtype)
    have = start = 0
    while start < len(body) and have < count:
        gap = _SPACE.search(body, start + _ASCII_BLOCK)
        end = gap.start() if gap else len(body)
        block = body[start:end].strip()
        if not _is_numbers(block):
            block = b" ".join(block.split(None, count - have)[: count - have])
            if not _is_numbers(block):
                raise _damaged(name, "a pixel that is not a number")
        # Of an empty text numpy makes a zero.
        numbers = np.fromstring(block or b"0", np.int64, sep=" ")[: count - have if block else 0]
        if numbers.size and int(numbers.max()) > maxval:
            raise _damaged(name, f"value {numbers.max()} exceeds maxval {maxval}")
        values[have : have + numbers.size] = numbers
        have, start = have + numbers.size, end
    return values[:have]


def _is_numbers(text: bytes) -> bool:
    """Digits and spaces only, no number beyond 64 bits."""
    return not text.translate(None, b"0123456789 \t\r\n\v\f") and not _TOO_LONG.search(text)


def _packed_bits(data: bytes, header: _Header, name: str) -> Pixels:
    stride = (header.width + 7) // 8
    packed = np.frombuffer(_exactly(data, header.start, stride * header.height, name), np.uint8)
    bits = np.unpackbits(packed.reshape(header.height, stride), axis=1)[:, : header.width]
    return np.equal(bits, 0).astype(np.uint8)  # 1 is black


def _read_pfm(data: bytes, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """Rows from the bottom up; a negative scale means little-endian."""
    match = re.match(rb"P[fF]\s+(\d{1,10})\s+(\d{1,10})\s+([-+0-9.eE]{1,30})\s", data[:200])
    if match is None:
        raise _damaged(name, "invalid header")
    width, height = int(match[1]), int(match[2])
    try:
        order = "<f4" if float(match[3]) < 0 else ">f4"
    except ValueError as error:
        raise _damaged(name, "invalid header") from error
    channels = 3 if data[1:2] == b"F" else 1
    limits.check(width, height, channels, 4, name)
    body = _exactly(data, match.end(), width * height * channels * 4, name)
    values = np.frombuffer(body, order).astype(np.float32).reshape(height, width, channels)[::-1]
    return Stored(pixels=scaled(values, name, value_range), meaning="rgb" if channels == 3 else "grey")


def _exactly(data: bytes, start: int, length: int, name: str) -> memoryview:
    body = memoryview(data)[start : start + length]
    if len(body) < length:
        raise ImageError(
            f"{name}: the file is truncated ({len(body)} of {length} bytes of pixels)", "download it again"
        )
    return body


def _damaged(name: str, what: str) -> ImageError:
    return ImageError(f"{name}: damaged netpbm file ({what})", "download it again, or save it as PNG")
