"""Detect a file's format from its content, never from its name."""

from patchword.errors import ImageError

HEAD = 512  # bytes enough for every signature here

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x93NUMPY", "npy"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"DDS ", "dds"),
    (b"qoif", "qoi"),
    (b"8BPS\0\1", "psd"),
    (b"icns", "icns"),
    (b"\x01\xda", "sgi"),
    (b"\x59\xa6\x6a\x95", "sun"),
)
_NETPBM = tuple(b"P" + kind for kind in b"1 2 3 4 5 6 7 f F".split())
_PNG_AGAIN = "save it as PNG or JPEG"
_FLOATS = "save its numbers with numpy.save, and pass their range with --value-range LOW,HIGH (in Python value_range)"
_NOT_IMAGES: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a git LFS pointer, not an image",
        "fetch the file itself with git lfs pull",
    ),
    (
        b"\0\5\x16\7",
        "an AppleDouble side file of macOS, not an image",
        "delete it: the image is the file without ._",
    ),
    (b"\xd0\xcf\x11\xe0", "an OLE container (such as Thumbs.db), not an image", "remove it"),
    (b"%PDF", "PDF, which is not a raster format", "render its page to PNG"),
    (b"%!PS", "PostScript, which is not a raster format", "render its page to PNG"),
    (b"PK\3\4", "a zip archive (or .npz), not an image", "unpack it; save arrays with numpy.save"),
    (b"\x1f\x8b", "gzip-compressed, not an image", "unpack it"),
    (b"\xff\x0a", "JPEG XL, which cannot be decoded here", _PNG_AGAIN),
    (b"\0\0\0\x0cJXL ", "JPEG XL, which cannot be decoded here", _PNG_AGAIN),
    (b"II\xbc", "JPEG XR, which cannot be decoded here", _PNG_AGAIN),
    (b"\x76\x2f\x31\x01", "OpenEXR, which cannot be decoded here", _FLOATS),
    (b"#?RADIANCE", "Radiance HDR, which cannot be decoded here", _FLOATS),
    (b"#?RGBE", "Radiance HDR, which cannot be decoded here", _FLOATS),
    (b"8BPS\0\2", "a large Photoshop file (PSB), which cannot be decoded here", _PNG_AGAIN),
    (b"gimp xcf", "a GIMP file (XCF), which cannot be decoded here", "export it as PNG"),
    (b"/* XPM */", "XPM, which cannot be decoded here", _PNG_AGAIN),
    (b"\xc5\xd0\xd3\xc6", "PostScript, which is not a raster format", "render its page to PNG"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, not an image", "save each image with numpy.save"),
    (b"SIMPLE  =", "FITS, which cannot be decoded here", "save its array with numpy.save"),
    (b"\x1aE\xdf\xa3", "a video, not an image", "extract its frames"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_FIX_HEIC = "convert it to JPEG or PNG (photo programs export it; on a phone choose 'most compatible')"


def sniff(head: bytes, size: int, name: str) -> str:
    """The kind of a file from its first bytes. Raises ImageError naming what it is instead of an image."""
    if size == 0:
        raise ImageError(f"{name}: the file is empty", "download it again, or remove it")
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] in _NETPBM and head[2:3] in b" \t\r\n#":
        return "netpbm"
    if head[:4] in (b"\0\0\1\0", b"\0\0\2\0") and any(head[4:6]):  # without entries it is a TGA
        return "ico" if head[2] == 1 else "cur"
    if head[4:8] == b"ftyp":
        return _sniff_boxes(head, name)
    if (
        len(head) >= 4
        and head[0] == 10
        and head[1] in (0, 2, 3, 4, 5)
        and head[2] == 1
        and head[3] in (1, 2, 4, 8)
    ):
        return "pcx"
    _refuse_others(head, size, name)
    if _looks_like_tga(head):
        return "tga"
    raise ImageError(f"{name}: not an image (its content matches no supported format)", "remove it")


def _sniff_boxes(head: bytes, name: str) -> str:
    """ISO media files: AVIF, HEIC or a video, distinguished by their brands."""
    length = int.from_bytes(head[:4], "big")
    brands = {head[i : i + 4] for i in range(8, min(max(length, 16), len(head)), 4) if i != 12}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & set(_HEIF_BRANDS):
        raise ImageError(f"{name}: HEIC, which cannot be decoded here", _FIX_HEIC)
    raise ImageError(f"{name}: a video file (MP4 or similar), not an image", "extract its frames")


def _refuse_others(head: bytes, size: int, name: str) -> None:
    for signature, what, fix in _NOT_IMAGES:
        if head.startswith(signature):
            raise ImageError(f"{name}: {what}", fix)
    if head[128:132] == b"DICM":
        raise ImageError(
            f"{name}: DICOM, which cannot be decoded here", "save its pixels as 16-bit PNG or with numpy.save"
        )
    if len(head) == size and any(
        signature.startswith(head) for signature in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
    ):
        raise ImageError(f"{name}: the file is truncated after {size} bytes", "download it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text[:400]:
        raise ImageError(f"{name}: SVG, which is not a raster format", "render it to PNG")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise ImageError(f"{name}: an HTML page, not an image", "download the image itself")
    if not head.strip(b"\0"):
        raise ImageError(f"{name}: nothing but zeros, not an image", "download it again")
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 or byte >= 128 for byte in head)
    if printable == len(head) and b"\0" not in head:
        raise ImageError(f"{name}: text, not an image", "remove it")


def _looks_like_tga(head: bytes) -> bool:
    """TGA has no signature: a header of 18 bytes whose fields all make sense."""
    if len(head) < 18:
        return False
    has_map, kind, depth, descriptor = head[1], head[2], head[16], head[17]
    return (
        has_map in (0, 1)
        and kind in (1, 2, 3, 9, 10, 11)
        and depth in (1, 8, 15, 16, 24, 32)
        and descriptor & 0xC0 == 0
        and any(head[12:14])
        and any(head[14:16])
    )
