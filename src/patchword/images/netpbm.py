"""The netpbm family, whole: PBM, PGM, PPM (ASCII and binary, any maxval to 65535), PAM and PFM.

Pillow brings colour deeper than 8 bits down to 8 and grey to mode "I", so it is not asked.
Source: netpbm.sourceforge.net/doc (pbm, pgm, ppm, pam); pauldebevec.com/Research/HDR/PFM.
"""

import re
from dataclasses import dataclass

import numpy as np

from patchword.errors import ImageError
from patchword.images.limits import Limits
from patchword.images.stored import Meaning, Pixels, Stored, ValueRange, scaled

_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*)*([^\s#]+)")
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
    """Raises: ImageError for a damaged header, a file cut off, a value over maxval, or a size over the limits."""
    magic = data[:2]
    if magic in (b"PF", b"Pf"):
        return _read_pfm(data, name, limits, value_range)
    header = _pam_header(data, name) if magic == b"P7" else _header(data, name)
    if not 1 <= header.maxval <= 65535:
        raise _damaged(name, f"maxval {header.maxval}")
    itemsize = 1 if header.maxval < 256 else 2
    # An ASCII sample takes eight bytes while it is being read.
    limits.check(
        header.width, header.height, header.channels, 8 if magic in (b"P1", b"P2", b"P3") else itemsize, name
    )
    count = header.width * header.height * header.channels
    if magic in (b"P1", b"P2", b"P3"):
        values = _ascii(data, header, count, name)
    elif magic == b"P4":
        values = _packed_bits(data, header, name)
    else:
        dtype = np.dtype(np.uint8 if itemsize == 1 else ">u2")
        values = np.frombuffer(_exactly(data, header.start, count * itemsize, name), dtype)
    if int(values.max()) > header.maxval:
        raise _damaged(name, f"a value of {values.max()} over maxval {header.maxval}")
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
        match = _TOKEN.match(data, position, position + 1000)
        if match is None or not match[1].isdigit() or len(match[1]) > 10:
            raise _damaged(name, "its header")
        numbers.append(int(match[1]))
        position = match.end()
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
    if end < 0:
        raise _damaged(name, "its header")
    fields = dict(line.split(None, 1) for line in data[3:end].splitlines() if line.strip() and b" " in line)
    try:
        width, height, channels, maxval = (
            int(fields[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
        )
    except (KeyError, ValueError) as error:
        raise _damaged(name, "its header") from error
    meaning = _PAM_MEANING.get(fields.get(b"TUPLTYPE", b"").strip(), "bands")
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


def _ascii(data: bytes, header: _Header, count: int, name: str) -> Pixels:
    body = re.sub(rb"#[^\r\n]*", b"", data[header.start - 1 :])
    if data[1:2] == b"1":  # PBM digits may stand without a space between; 1 is black
        digits = np.frombuffer(re.sub(rb"\s", b"", body), np.uint8)
        values: Pixels = np.equal(digits[:count], ord("0")).astype(np.uint8)
        if not np.isin(digits[:count], (48, 49)).all():
            raise _damaged(name, "something that is no 0 or 1 among its pixels")
    else:
        tokens = body.split(None, count)[:count]
        try:
            values = np.fromiter(map(int, tokens), np.int64, len(tokens))
        except (ValueError, OverflowError) as error:
            raise _damaged(name, "something that is no number among its pixels") from error
        if values.size and values.min() < 0:
            raise _damaged(name, "a negative value")
    if values.size < count:
        raise ImageError(f"{name}: the file is cut off ({values.size} of {count} values)", "get it again")
    return values


def _packed_bits(data: bytes, header: _Header, name: str) -> Pixels:
    stride = (header.width + 7) // 8
    packed = np.frombuffer(_exactly(data, header.start, stride * header.height, name), np.uint8)
    bits = np.unpackbits(packed.reshape(header.height, stride), axis=1)[:, : header.width]
    return np.equal(bits, 0).astype(np.uint8)  # 1 is black


def _read_pfm(data: bytes, name: str, limits: Limits, value_range: ValueRange | None) -> Stored:
    """Rows from the bottom up; a negative scale means little-endian."""
    match = re.match(rb"P[fF]\s+(\d{1,10})\s+(\d{1,10})\s+([-+0-9.eE]{1,30})\s", data[:200])
    if match is None:
        raise _damaged(name, "its header")
    width, height = int(match[1]), int(match[2])
    try:
        order = "<f4" if float(match[3]) < 0 else ">f4"
    except ValueError as error:
        raise _damaged(name, "its header") from error
    channels = 3 if data[1:2] == b"F" else 1
    limits.check(width, height, channels, 4, name)
    body = _exactly(data, match.end(), width * height * channels * 4, name)
    values = np.frombuffer(body, order).astype(np.float32).reshape(height, width, channels)[::-1]
    return Stored(pixels=scaled(values, name, value_range), meaning="rgb" if channels == 3 else "grey")


def _exactly(data: bytes, start: int, length: int, name: str) -> memoryview:
    body = memoryview(data)[start : start + length]
    if len(body) < length:
        raise ImageError(
            f"{name}: the file is cut off ({len(body)} of {length} bytes of pixels)", "get it again"
        )
    return body


def _damaged(name: str, what: str) -> ImageError:
    return ImageError(f"{name}: damaged netpbm file ({what})", "get it again, or save it as PNG")
