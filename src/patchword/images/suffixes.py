"""The endings by which a folder's pictures are known: one list for training, check and prediction.

Only a scan asks for them; a file that is named itself is known by its content. Pictures that are refused (HEIC,
JPEG XL, SVG) are listed, so that each has a row that says why.
"""

_ENDINGS = """
    jpg jpeg jpe jfif mpo png apng gif webp avif bmp dib tif tiff npy ppm pgm pbm pnm pam pfm jp2 j2k j2c jpx
    ico cur icns tga qoi pcx sgi dds psd heic heif hif jxl svg
"""
SUFFIXES = frozenset("." + ending for ending in _ENDINGS.split())
