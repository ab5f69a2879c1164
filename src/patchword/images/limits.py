"""Limits on pixels and memory per image, checked from the header before decoding."""

from dataclasses import dataclass

from patchword.errors import ImageError

# Phones take photos of 12000 x 9000 and of 16320 x 12240 pixels.
MAX_PIXELS = 200_000_000
# Bytes that one image may hold at its peak, for each pixel allowed: enough for an RGB image of MAX_PIXELS in
# 8 bits (Pillow's 4 bytes a pixel and a copy), or less than half of that in 16-bit or float RGB.
_BYTES_PER_PIXEL = 8


@dataclass(frozen=True)
class Limits:
    max_pixels: int = MAX_PIXELS

    def check(self, width: int, height: int, channels: int, itemsize: int, name: str) -> None:
        """Raises ImageError for no pixels, too many, or more bytes than the limit (floats included)."""
        if width < 1 or height < 1:
            side = "width" if width < 1 else "height"
            raise ImageError(f"{name}: its {side} is zero", "remove it: it has no pixels")
        if width * height > self.max_pixels:
            raise ImageError(
                f"{name}: {width}x{height} is {width * height:,} pixels, over the limit of {self.max_pixels:,}",
                "resize the image, or raise the limit with --max-pixels (in Python max_pixels)",
            )
        stored = width * height * channels * itemsize
        as_float = 0 if itemsize == 1 else width * height * channels * 4
        self.check_bytes(stored + as_float, name)

    def check_bytes(self, needed: int, name: str) -> None:
        allowed = self.max_pixels * _BYTES_PER_PIXEL
        if needed > allowed:
            raise ImageError(
                f"{name}: decoding needs {needed / 1e9:,.1f} GB, over the limit of {allowed / 1e9:,.1f} GB",
                "resize the image, or raise the limit with --max-pixels (in Python max_pixels)",
            )
