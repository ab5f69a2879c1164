"""The extensions by which a folder's images are known: one list for training, check and prediction.

Only a scan asks for them; a file that is named itself is known by its content. Images that are refused (HEIC,
JPEG XL, SVG) are listed, so that each has a row that says why.
"""

_ENDINGS = """
    jpg jpeg jpe jfif mpo png apng gif webp avif bmp dib tif tiff npy ppm pgm pbm pnm pam pfm jp2 j2k j2c jpx
    ico cur icns tga qoi pcx sgi dds psd heic heif hif jxl svg
"""
SUFFIXES = frozenset("." + ending for ending in _ENDINGS.split())

# Folders and files that systems and programs leave next to a user's own. Names that begin with a dot (.ipynb_checkpoints,
# .DS_Store, macOS's ._x.jpg) are hidden as everywhere.
_LEFT_BY_SYSTEMS = frozenset(
    name.lower()
    for name in (
        "__MACOSX",
        "@eaDir",  # Synology: thumbnails under the names of the images
        "@tmp",
        "#recycle",
        "#snapshot",
        "@__thumb",  # QNAP
        "@Recycle",
        "@Recently-Snapshot",
        "$RECYCLE.BIN",
        "RECYCLER",
        "System Volume Information",
        "lost+found",
        "Network Trash Folder",
        "Temporary Items",
        "__pycache__",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "Icon\r",
    )
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name was put there by a system rather than by a person."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS
