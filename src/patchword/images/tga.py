"""TGA: whether the fourth channel is alpha. Pillow always treats it as alpha, which hides images without alpha.

Source: Truevision TGA File Format Specification 2.0, fields 3 to 5 of the header.
"""


def has_alpha(data: bytes) -> bool:
    """Whether the header gives a pixel 8 bits of alpha. Of a single bit programs disagree about the sense: none."""
    attribute_bits, bits_of_map, bits_of_pixel = data[17] & 15, data[7], data[16]
    bits = bits_of_map if data[1] else bits_of_pixel
    is_grey = data[2] in (3, 11)
    return attribute_bits != 0 and (bits == 32 or is_grey)
