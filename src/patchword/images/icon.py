"""ICO and CUR: the directory brought into agreement with the images, so that Pillow finds their alpha.

Pillow trusts the depth in the directory, where many programs leave zero and a CUR has its hot spot, and knows
neither the mask of a CUR nor the PNG in one.
Source: the ICO format as Windows reads it (a bitmap of 32 bits whose alpha is zero throughout has its mask alone).
"""

import struct

_LARGEST = 256  # pixels a side: what a directory can say
_PNG = b"\x89PNG\r\n\x1a\n"


def with_true_depths(data: bytes) -> bytes:
    """The file as an ICO whose directory gives each image's own depth; untouched if it points outside."""
    out = bytearray(data)
    out[2:4] = b"\1\0"
    count = int.from_bytes(data[4:6], "little")
    for entry in range(6, min(6 + 16 * count, len(data) - 15), 16):
        (offset,) = struct.unpack_from("<I", data, entry + 12)
        if data[offset : offset + 8] == _PNG:
            depth = 32
        elif offset + 40 <= len(data):
            depth = _depth(data, offset)
        else:
            continue
        struct.pack_into("<HH", out, entry + 4, 1, depth)
    return bytes(out)


def _depth(data: bytes, offset: int) -> int:
    size, width, height = struct.unpack_from("<III", data, offset)
    (depth,) = struct.unpack_from("<H", data, offset + 14)
    if depth != 32 or max(width, height // 2) > _LARGEST:
        return int(depth)
    start = offset + size
    alpha = data[start : start + width * (height // 2) * 4][3::4]
    return 32 if alpha.strip(b"\0") else 24
