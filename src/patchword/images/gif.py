"""GIF without any colours.

Source: Graphics Interchange Format, version 89a, sections 18 to 24.
"""

from patchword.errors import ImageError


def refuse_without_colours(data: bytes, name: str) -> None:
    """Raises ImageError if there is no colour table: Pillow would read the indices as grey levels, nearly black."""
    if len(data) < 13 or data[10] & 0x80:
        return
    position = 13
    while data[position : position + 1] == b"!":
        position += 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    if data[position : position + 1] == b"," and position + 9 < len(data) and not data[position + 9] & 0x80:
        raise ImageError(f"{name}: damaged GIF file (it has no colour table)", "download it again")
