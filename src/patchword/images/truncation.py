"""Detect truncated PCX and JPEG 2000 files that their decoders accept.

Source: ZSoft PCX technical reference, revision 5 (the 256 colours stand behind the pixels, after a byte of 12);
ITU-T T.800, annex A (a codestream ends with EOC; no coded data holds those two bytes).
"""

from patchword.errors import ImageError

ENDS = ("pcx", "jpeg2000")
_COLOURS = 769  # bytes of a PCX palette and its mark
_GREY = 2  # what a PCX header says where no palette is due


def refuse_without_end(data: bytes, kind: str, name: str) -> None:
    """Raises ImageError: Pillow would read the palette indices as grey levels, and OpenJPEG omits the missing part."""
    if kind == "pcx":
        has_256_colours = (
            len(data) > 68 and data[1] == 5 and data[3] == 8 and data[65] == 1 and data[68] != _GREY
        )
        is_cut_off = has_256_colours and data[-_COLOURS:][:1] != b"\x0c"
    else:
        is_cut_off = b"\xff\xd9" not in data
    if is_cut_off:
        what = "its palette is" if kind == "pcx" else "its last data are"
        raise ImageError(
            f"{name}: the {kind.upper()} file is truncated ({what} missing)", "download it again"
        )
