"""The configuration of DETR. Does not import torch."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from patchword.errors import SettingsError
from patchword.model.base import Size, require_above_zero, require_eps, require_positive, require_share

# Layers of convolutions: the root and the pool after it halve the image, as does every stage but the first.
_STAGES = 4


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """A ResNet of bottlenecks with frozen batch norm (He et al. 2016, arXiv 1512.03385); the defaults are ResNet-50.

    Args:
        units: bottlenecks of each of the four stages; ResNet-101 has (3, 4, 23, 3).
        root: channels after the first convolution.
        middle: channels inside the bottlenecks of each stage.
        outputs: channels that each stage returns.
        dilation: the last stage keeps the size of its input and dilates its convolutions instead (DC5).
        eps: of the frozen batch norms, added to their variance.
        channels: of the images.
    """

    units: tuple[int, ...] = (3, 4, 6, 3)
    root: int = 64
    middle: tuple[int, ...] = (64, 128, 256, 512)
    outputs: tuple[int, ...] = (256, 512, 1024, 2048)
    dilation: bool = False
    eps: float = 1e-5
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("units", "middle", "outputs"):
            values = getattr(self, name)
            if len(values) != _STAGES:
                raise SettingsError(
                    f"trunk.{name} is {values}", f"give {_STAGES} numbers, one for each stage"
                )
            require_positive(f"trunk.{name}", *values)
        require_positive("trunk.root", self.root)
        require_positive("trunk.channels", self.channels)
        require_eps("trunk.eps", self.eps)

    @property
    def stride(self) -> int:
        """Pixels between two cells of the features."""
        return 16 if self.dilation else 32

    def grid_of(self, size: Size) -> Size:
        """Rows and columns of the features of an image of this size: every layer with a stride rounds up."""
        return -(-size[0] // self.stride), -(-size[1] // self.stride)


@dataclass(frozen=True, kw_only=True)
class DetrParts:
    """All of DETR (Carion et al. 2020, arXiv 2005.12872) but its classes; the defaults are the published DETR-R50.

    Args:
        dim, num_heads, hidden: width of the tokens, attention heads, width inside the MLPs of the encoder and the decoder.
        decoder_heads, decoder_hidden: of the decoder, if it differs; None for those of the encoder.
        encoder_depth, decoder_depth: number of layers. Each decoder layer returns boxes.
        num_queries: the number of boxes that every image gets.
        positions: "sine" is computed from the unpadded cells; "learned" is a table of 50 rows and one of 50 columns.
        order: "post" normalises after each branch, as published; "pre" before it.
        decoder_norm: "outputs" normalises what each decoder layer hands to the heads, as published; "between" also what it
            hands to the next layer, and the last output twice (transformers with `auxiliary_loss`).
        eps: of the layer norms. dropout: in training, of attention weights, branches and MLPs.
    """

    kind: ClassVar[str] = "detr"

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    dim: int = 256
    num_heads: int = 8
    hidden: int = 2048
    decoder_heads: int | None = None
    decoder_hidden: int | None = None
    encoder_depth: int = 6
    decoder_depth: int = 6
    num_queries: int = 100
    positions: Literal["sine", "learned"] = "sine"
    order: Literal["post", "pre"] = "post"
    decoder_norm: Literal["outputs", "between"] = "outputs"
    eps: float = 1e-5
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("dim", "num_heads", "hidden", "decoder_depth", "num_queries"):
            require_positive(f"detr.{name}", getattr(self, name))
        for name in ("decoder_heads", "decoder_hidden"):
            if getattr(self, name) is not None:
                require_positive(f"detr.{name}", getattr(self, name))
        if self.encoder_depth < 0:
            raise SettingsError(f"detr.encoder_depth is {self.encoder_depth}", "set it to 0 or more")
        require_above_zero("detr.eps", self.eps)
        require_share("detr.dropout", self.dropout)
        for name, heads in (("num_heads", self.num_heads), ("decoder_heads", self.decoder_heads)):
            if heads is not None and self.dim % heads:
                fitting = [n for n in range(1, self.dim + 1) if self.dim % n == 0]
                nearest = min(fitting, key=lambda n: abs(n - heads))
                raise SettingsError(
                    f"detr.dim {self.dim} cannot be divided evenly among {heads} attention heads",
                    f"set detr.{name} = {nearest}",
                )
        # Half of the channels are for rows and half for columns; those of sines are pairs.
        share = 4 if self.positions == "sine" else 2
        if self.dim % share:
            raise SettingsError(
                f"detr.dim is {self.dim}, but {self.positions} positions need a multiple of {share}",
                f"set detr.dim = {-(-self.dim // share) * share}",
            )


@dataclass(frozen=True, kw_only=True)
class DetrConfig(DetrParts):
    """DETR with its classes. num_classes: without "no object", which has the last output."""

    num_classes: int = 91

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("detr.num_classes", self.num_classes)
