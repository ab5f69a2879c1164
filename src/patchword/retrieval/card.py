"""The card of a file of embeddings: which part of which model the vectors are, and of which images."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from patchword.errors import DataError, SettingsError
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.settings import from_plain, to_json, to_plain

# The key of the card in the metadata of a Parquet file, and the end of the name of the card next to an .npy file.
CARD_KEY = "patchword"
CARD_ENDING = ".card.json"
NAMES_ENDING = ".names.txt"
_FORMAT, _VERSION = "patchword-embeddings", 1

Part = Literal["pooled", "class", "registers", "grid", "mean", "tokens"]
PARTS: tuple[Part, ...] = ("pooled", "class", "registers", "grid", "mean", "tokens")
# These give one vector per image; the others a matrix or a grid of vectors.
VECTOR_PARTS: tuple[Part, ...] = ("pooled", "class", "mean")


@dataclass(frozen=True, kw_only=True)
class EmbeddingCard:
    """How the vectors of a file were made.

    part: of the tokens, or "pooled" for the input of the head. layer: the block (from 0) whose tokens were read, of `config.depth`.
    norm: whether the final norm was applied. weights: the model as given. weights_sha256: of the tensors below the head.
    config, preprocess: of the model as it ran. files: the images as given. folder: where these paths start.
    patchword: the version that wrote the file.
    """

    part: Part
    layer: int
    norm: bool
    weights: str
    weights_sha256: str
    config: ViTConfig
    preprocess: Preprocess
    files: tuple[str, ...] = ()
    folder: str = ""
    patchword: str = ""

    @property
    def described(self) -> str:
        """ "pooled, layer 11 of 0 to 11, after the final norm"."""
        norm = "after the final norm" if self.norm else "without the final norm"
        return f"{self.part}, layer {self.layer} of 0 to {self.config.depth - 1}, {norm}"


def card_text(card: EmbeddingCard) -> str:
    plain = to_plain(card)
    height, width = card.config.image.size
    return to_json({"format": _FORMAT, "version": _VERSION, "image_size": [height, width], **plain}, indent=1)


def card_of(text: str, name: str) -> EmbeddingCard:
    """Parse the card of the file `name`. Raises: DataError if it is not one, or of a newer version."""
    again = "write the file again with `patchword embed`"
    try:
        plain: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: its card is not valid JSON ({error})", again) from error
    if not isinstance(plain, dict) or plain.get("format") != _FORMAT:
        raise DataError(f"{name}: its card is not one of `patchword embed`", again)
    version = plain.get("version")
    if not isinstance(version, int) or version > _VERSION:
        raise DataError(
            f"{name}: its card has version {version}, but this patchword reads up to {_VERSION}",
            f"update patchword, or {again}",
        )
    fields = {key: value for key, value in plain.items() if key not in ("format", "version", "image_size")}
    try:
        return from_plain(EmbeddingCard, fields, "its card")
    except SettingsError as error:
        raise DataError(f"{name}: {error.message}", again) from error


def name_line(name: str) -> str:
    """A name as one line of the file of names; `name_of_line` is its inverse."""
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def name_of_line(line: str) -> str:
    return re.sub(r"\\([\\nr])", lambda found: {"n": "\n", "r": "\r"}.get(found[1], "\\"), line)
