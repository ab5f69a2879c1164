"""The optional stem in front of the patches: nothing, or a ResNet. Does not import torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.base import Size, require_positive


@dataclass(frozen=True, kw_only=True)
class NoStem:
    """Patches are cut from the image itself."""

    kind: ClassVar[str] = "none"
    stride: ClassVar[int] = 1

    def features(self, channels: int) -> int:
        """Channels of the features that the patches are cut from."""
        return channels

    def size_after(self, size: Size) -> Size:
        return size


@dataclass(frozen=True, kw_only=True)
class ResNetStem:
    """Patches are cut from a ResNet's features (the hybrids of Dosovitskiy et al. 2021).

    A 7 x 7 convolution and a max pool each halve the image; every stage but the first halves it again.

    units: bottlenecks per stage; () is the root alone (R+ViT-Ti/16). width: channels of the root.
    weight_eps: divide standardised weights by "deviation" + small (Google), or by the square root of
    "variance" + small (jeonsworld, timm). norm_eps: eps of the group norms. padding: TensorFlow's "same",
    or torch's "symmetric" with an unpadded max pool. proj_norm: normalise the shortcut in "groups" of
    channels or each "channel" separately.
    """

    kind: ClassVar[str] = "resnet"
    GROUPS: ClassVar[int] = 32

    units: tuple[int, ...] = (3, 4, 9)
    width: int = 64
    weight_eps: Literal["deviation", "variance"] = "deviation"
    small: float = 1e-5
    norm_eps: float = 1e-6
    padding: Literal["same", "symmetric"] = "same"
    proj_norm: Literal["groups", "channel"] = "groups"

    def __post_init__(self) -> None:
        require_positive("patch.stem.width", self.width)
        if self.units:
            require_positive("patch.stem.units", *self.units)
        if self.width % self.GROUPS:
            raise SettingsError(
                f"patch.stem.width {self.width} is not divisible into {self.GROUPS} groups for group norm",
                f"set patch.stem.width = {-(-self.width // self.GROUPS) * self.GROUPS}",
            )

    @property
    def stride(self) -> int:
        """Image pixels per side that one feature covers."""
        return int(4 * 2 ** max(len(self.units) - 1, 0))

    def features(self, channels: int) -> int:
        """Channels of the features that the patches are cut from."""
        return int(self.width * 4 * 2 ** (len(self.units) - 1)) if self.units else self.width

    def pads(self, side: int, kernel: int, stride: int) -> Size:
        """Padding before and after a side of this length, for a convolution."""
        if self.padding == "symmetric":
            return kernel // 2, kernel // 2
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return missing // 2, missing - missing // 2

    def sizes(self, size: Size) -> list[Size]:
        """Height and width after the root, and after each stage (after the pool if there are no stages)."""
        halved = _halved(size)
        same = self.padding == "same"
        pooled = _halved(halved) if same else ((halved[0] - 1) // 2, (halved[1] - 1) // 2)
        found = [halved, pooled]
        for _ in self.units[1:]:
            found.append(_halved(found[-1]))
        return found

    def size_after(self, size: Size) -> Size:
        return self.sizes(size)[-1]


def _halved(size: Size) -> Size:
    return -(-size[0] // 2), -(-size[1] // 2)


Stem = NoStem | ResNetStem
