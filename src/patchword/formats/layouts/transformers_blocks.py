"""Names of a block's parts in transformers' two spellings, as rows for all its towers."""

from collections.abc import Sequence
from dataclasses import dataclass

from patchword.formats.layout import Ignored
from patchword.formats.ops import Op, Shape, WithZeros
from patchword.formats.rows import MakeOp, Row, gate_and_value, queries_keys_values

MASK_REASON = "stands in for hidden patches in pre-training; it does not affect the output"
_QKV = "blocks.{i}.attention.qkv."


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of a block's parts. first: one name, or gate and value. layer: contains {} for the block's index.

    q, k, v: the same name if the three are one tensor. apart: block names lack the prefix that all other names have.
    """

    layer: str
    q: str
    k: str
    v: str
    out: str
    norm1: str
    norm2: str
    first: tuple[str, ...]
    second: str
    scales: tuple[str, str] | None = None
    apart: bool = False

    def block(self, prefix: str, index: int | str) -> str:
        return f"{'' if self.apart else prefix}{self.layer.format(index)}"

    def rows(self, prefix: str, biases: str = "") -> list[Row]:
        """The rows of a block.

        biases: which of "qkv" have one in the file, if the config cannot express it; "": those of the config.
        """
        before = self.block(prefix, "{i}")
        parts = {letter: f"{before}{name}" for letter, name in zip("qkv", self._three, strict=True)}
        first = tuple(f"{before}{name}.{{wb}}" for name in self.first)
        scales = enumerate(self.scales or (), 1)
        return [
            (f"{before}{self.norm1}.{{wb}}", "blocks.{i}.norm1.{wb}"),
            *self._attention(parts, biases),
            (f"{before}{self.out}.{{wb}}", "blocks.{i}.attention.proj.{wb}"),
            (f"{before}{self.norm2}.{{wb}}", "blocks.{i}.norm2.{wb}"),
            (first, "blocks.{i}.mlp.fc1.{wb}", gate_and_value)
            if len(first) == 2
            else (first, "blocks.{i}.mlp.fc1.{wb}"),
            (f"{before}{self.second}.{{wb}}", "blocks.{i}.mlp.fc2.{wb}"),
            *((f"{before}{name}", f"blocks.{{i}}.scale{at}.weight") for at, name in scales),
        ]

    def _attention(self, parts: dict[str, str], biases: str) -> list[Row]:
        if self.q == self.k:
            return [(f"{parts['q']}.{{wb}}", _QKV + "{wb}")]
        weights = tuple(f"{part}.weight" for part in parts.values())
        return [
            (weights, _QKV + "weight", queries_keys_values),
            *(_biases(parts) if not biases else _odd_biases(parts, biases)),
        ]

    @property
    def _three(self) -> tuple[str, str, str]:
        return self.q, self.k, self.v


def _biases(parts: dict[str, str]) -> list[Row]:
    return [
        (tuple(f"{part}.bias" for part in parts.values()), _QKV + "bias", queries_keys_values),
        (f"{parts['q']}.bias", "blocks.{i}.attention.q_bias"),
        (f"{parts['v']}.bias", "blocks.{i}.attention.v_bias"),
    ]


def _odd_biases(parts: dict[str, str], there: str) -> list[Row]:
    """Biases of which the file has some: those of the model that it omits are zeros."""
    theirs = tuple(f"{part}.bias" for letter, part in parts.items() if letter in there)

    def op(whole: str) -> MakeOp:
        def make(ours: Sequence[Shape]) -> Op:
            return WithZeros(tuple(letter in there for letter in whole))

        return make

    apart = ("blocks.{i}.attention.q_bias", "blocks.{i}.attention.v_bias")
    return [(theirs, _QKV + "bias", op("qkv")), (theirs, apart, op("qv"))]


def mask_token(prefix: str) -> Ignored:
    return Ignored(rf"{prefix.replace('.', '[.]')}embeddings[.]mask_token", MASK_REASON)
