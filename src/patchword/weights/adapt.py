"""Adapt a model to another image size, patch size, channels or classes, and list every change.

Resampling stores exactly what the model would compute at run time for that size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from patchword.errors import SettingsError, near_text, plural
from patchword.images.preprocess import Preprocess, sized_as
from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned, LearnedBetween, LearnedTokens, RelativeBias
from patchword.model.resample_rules import rule_text
from patchword.model.shapes import DECODER
from patchword.weights.card import ModelCard, Provenance, encoder_only

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
How = Literal["inflate", "average", "map"]
HEADS = ("head", "head_distillation")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to change; None leaves a part as it is.

    channels: the new number of channels. how: "inflate" repeats the old channels cyclically, scaled so
    that an image with equal channels keeps its output; "average" gives each the mean of the old ones;
    "map" takes those listed in `source`. classes: names in their new order. seed: for new rows of the head.
    """

    image_size: Size | None = None
    patch_size: Size | None = None
    channels: int | None = None
    how: How = "inflate"
    source: tuple[int, ...] = ()
    classes: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the table: a part, its shape before and after, and what was done."""

    part: str
    before: str
    after: str
    how: str


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The adapted model with its new card. kept: number of unchanged tensors. notes: remarks for the user."""

    card: ModelCard
    tensors: Mapping[str, "Tensor"]
    changes: tuple[Change, ...]
    kept: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Adapted({plural(len(self.changes), 'tensor')} changed, {self.kept} kept)"


def adapt(card: ModelCard, tensors: Mapping[str, "Tensor"], wanted: Wanted) -> Adapted:
    """Apply the wanted changes.

    Raises: SettingsError if they contradict each other or the model.
    """
    # Temperature and thresholds belong to the outputs of the old model.
    work = _Work(replace(card, temperature=None, thresholds=()), dict(tensors))
    if wanted.channels is not None:
        work.channels(wanted.channels, wanted.how, wanted.source)
    if wanted.patch_size is not None:
        work.patch(wanted.patch_size)
    work.image(wanted.image_size)
    if wanted.classes is not None:
        work.classes(wanted.classes, wanted.seed)
    if card.decoder is not None:
        work.decoder(card)
    changed = {change.part for change in work.changes}
    return Adapted(
        card=replace(work.card, provenance=_derived(card.provenance, work.changes)),
        tensors=work.tensors,
        changes=tuple(work.changes),
        kept=len(set(work.tensors) - changed),
        notes=tuple(work.notes),
    )


def _derived(old: Provenance, changes: Sequence[Change]) -> Provenance:
    """Keep the origin of the weights; drop the metrics, which belong to the old model."""
    done = "; ".join(f"{change.part}: {change.how}" for change in changes)
    return replace(old, metrics={}, facts={**old.facts, "adapted": done or "nothing"})


class _Work:
    """A card and tensors that change together, and the list of changes."""

    def __init__(self, card: ModelCard, tensors: "dict[str, Tensor]") -> None:
        self.card, self.tensors = card, tensors
        self.changes: list[Change] = []
        self.notes: list[str] = []
        self.stored_grid = card.config.grid_size

    @property
    def config(self) -> ViTConfig:
        return self.card.config

    def _set(
        self, config: ViTConfig, preprocess: Preprocess | None = None, **other: "tuple[str, ...]"
    ) -> None:
        self.card = replace(
            self.card,
            config=config,
            preprocess=preprocess or self.card.preprocess,
            classes=other.get("classes", self.card.classes),
            untrained=other.get("untrained", self.card.untrained),
        )

    def _put(self, name: str, new: "Tensor", how: str) -> None:
        old = self.tensors.get(name)
        before = "–" if old is None else _shape(old)
        self.changes.append(Change(part=name, before=before, after=_shape(new), how=how))
        self.tensors[name] = new.contiguous()

    # Channels --------------------------------------------------------------------------

    def channels(self, count: int, how: How, source: tuple[int, ...]) -> None:
        """Change the kernel's channels, the norm over pixels, and the mean and std per channel."""
        old = self.config.image.channels
        if count < 1:
            raise SettingsError(f"channels is {count}", "use at least 1")
        if self.config.patch.stem.kind != "none":
            raise SettingsError(
                "a model with a convolutional stem needs three channels", "choose a model without a stem"
            )
        taken = _taken(old, count, how, source)
        if count == old and taken == list(range(old)):
            return
        name = "patch_embed.proj.weight"
        kernel = self.tensors[name]
        if how == "average":
            new, done = kernel.mean(1, keepdim=True).repeat(1, count, 1, 1) * (old / count), "averaged"
        elif count == 1:
            # One grey channel replaces all of them: with the summed kernel a grey image gives the same output.
            new, done = kernel.sum(1, keepdim=True), f"the sum of {old} channels"
        else:
            scale = 1.0 if how == "map" else old / count
            new = kernel[:, taken] * scale
            done = f"old channels {', '.join(map(str, taken))}" + (f" x {scale:.3g}" if scale != 1 else "")
        self._put(name, new, done)
        self._norm_over_pixels(taken if how != "average" else None, old, count)
        mean, std = (
            _channels_of(v, old, count, taken, how)
            for v in (self.card.preprocess.mean, self.card.preprocess.std)
        )
        preprocess = replace(self.card.preprocess, in_channels=count, mean=mean, std=std)
        config = replace(self.config, image=replace(self.config.image, channels=count))
        self._set(config, preprocess)
        whose = (
            "the mean of all old ones" if how == "average" or count == 1 else "copied from the old channels"
        )
        self.notes.append(f"mean and std of the new channels are {whose}: check that they match your data")

    def _norm_over_pixels(self, taken: list[int] | None, old: int, count: int) -> None:
        for part in ("weight", "bias"):
            name = f"patch_embed.norm_pixels.{part}"
            if name in self.tensors:
                by_channel = self.tensors[name].view(old, -1)
                new = (
                    by_channel.mean(0, keepdim=True).repeat(count, 1) if taken is None else by_channel[taken]
                )
                self._put(name, new.flatten(), "same channels as the kernel")

    # Patch and image -------------------------------------------------------------------

    def patch(self, size: Size) -> None:
        """Resample the kernel with the pseudo-inverse resize. The images keep their size, so the grid changes."""
        from patchword.model.resample import resample_kernel

        old = self.config.patch.size
        if size == old:
            return
        if min(size) < 1:
            raise SettingsError(f"patch_size is {size}", "use at least 1 pixel per side")
        if self.config.patch.norm_pixels:
            raise SettingsError(
                "a norm over the pixels of a patch cannot be resampled to another patch size",
                "keep the patch size",
            )
        name, rule = "patch_embed.proj.weight", self.config.patch.resample
        self._put(
            name, resample_kernel(self.tensors[name], size, rule), f"pseudo-inverse of {rule_text(rule)}"
        )
        self._set(replace(self.config, patch=replace(self.config.patch, size=size)))

    def image(self, wanted: Size | None) -> None:
        """Resample position tables to the grid of that size; formulas and rotations need no change.

        None keeps the size the tables are made for and the preprocessing, whose size may differ
        (DINOv2: tables for 518 pixels, images of 224).
        """
        size = wanted or self.config.image.size
        if min(size) < 1:
            raise SettingsError(f"image_size is {size}", "use at least 1 pixel per side")
        old_grid, new_grid = self.stored_grid, self.config.grid_of(size)
        config = replace(self.config, image=replace(self.config.image, size=size))
        if min(config.grid_size) < 1:
            raise SettingsError(
                f"images of {size[0]} x {size[1]} are smaller than one patch", "use a larger image size"
            )
        if old_grid != new_grid:
            self._resample(config, old_grid, new_grid)
        preprocess = self.card.preprocess
        if wanted is not None and preprocess.image_size != size:
            preprocess = sized_as(preprocess, size)
        self._set(config, preprocess)

    def _resample(self, config: ViTConfig, old: Size, new: Size) -> None:
        import torch

        from patchword.model.positions.learned_tokens import RULE
        from patchword.model.resample import resample_differences, resample_grid

        added, inner = config.added_positions, config.inner_positions
        if isinstance(added, Learned | LearnedTokens):
            table, rule = (
                self.tensors["positions.grid"],
                added.resample if isinstance(added, Learned) else RULE,
            )
            self._put("positions.grid", resample_grid(table, new, rule), rule_text(rule))
        if isinstance(inner, LearnedBetween):
            self.notes.append("positions between the blocks keep their grid; they are resampled at run time")
        if isinstance(inner, RelativeBias):
            for name in [n for n in self.tensors if n.startswith("attention_positions.tables.")]:
                table = self.tensors[name]
                end = len(table) - (3 if inner.prefix_rows else 0)
                resampled = resample_differences(table[:end], old, new, inner.rule)
                self._put(name, torch.cat((resampled, table[end:])), f"differences, {inner.rule}")
        if not isinstance(added, Learned | LearnedTokens) and not isinstance(
            inner, RelativeBias | LearnedBetween
        ):
            self.notes.append("positions are computed for any grid; no tensor changed for the new one")

    # Decoder ---------------------------------------------------------------------------

    def decoder(self, old: ModelCard) -> None:
        """Resample the decoder's positions too; leave it out if its patches have another shape now."""
        decoder = self.card.decoder
        assert decoder is not None
        before, after = decoder.trunk(old.config), decoder.trunk(self.config)
        if (
            old.config.patch.size != self.config.patch.size
            or old.config.image.channels != self.config.image.channels
        ):
            self.card, self.tensors = encoder_only(self.card, self.tensors)
            self.notes.append(
                "the decoder is left out: it predicts patches of the old "
                + ("size" if old.config.patch.size != self.config.patch.size else "channels")
            )
        elif before.grid_size != after.grid_size and isinstance(before.positions, Learned):
            from patchword.model.resample import resample_grid

            name, rule = f"{DECODER}positions.grid", before.positions.resample
            self._put(name, resample_grid(self.tensors[name], after.grid_size, rule), rule_text(rule))

    # Classes ---------------------------------------------------------------------------

    def classes(self, names: tuple[str, ...], seed: int) -> None:
        """Keep the head's rows of shared class names; initialise the others randomly, so the head needs training."""
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise SettingsError(
                "no classes are given" if not names else f"the class {twice[0]!r} is listed twice",
                "list each class once",
            )
        old = self.card.classes
        rows = {name: row for row, name in enumerate(old)}
        new = [name for name in names if name not in rows]
        head = replace(self.config.head, num_classes=len(names))
        config = replace(self.config, head=head)
        for part in HEADS if head.distilled else HEADS[:1]:
            self._head(part, config, names, rows, seed)
        self._set(config, classes=names, untrained=("head",) if new else ())
        if new:
            near = [f"{name!r}{near_text(name, old)}" for name in new if near_text(name, old)]
            shown = f": {', '.join(near[:3])}" if near else ""
            self.notes.append(
                f"{len(new)} of {len(names)} classes have no row in the old head{shown}; "
                "train the head before you use it"
            )

    def _head(
        self, part: str, config: ViTConfig, names: tuple[str, ...], rows: Mapping[str, int], seed: int
    ) -> None:
        import torch

        width = config.head.projection or config.embed_dim
        drawn = torch.Generator().manual_seed(seed)
        kept = [rows.get(name) for name in names]
        for tensor, shape in (("weight", (len(names), width)), ("bias", (len(names),))):
            name = f"{part}.{tensor}"
            if tensor == "bias" and not config.head.bias:
                continue
            old = self.tensors.get(name)
            new = torch.zeros(shape)
            if tensor == "weight":
                torch.nn.init.trunc_normal_(new, std=0.02, generator=drawn)
            for row, source in enumerate(kept):
                if source is not None and old is not None:
                    new[row] = old[source]
            count = sum(source is not None for source in kept) if old is not None else 0
            self._put(name, new, f"{count} rows by name, {len(names) - count} new")


def _taken(old: int, count: int, how: How, source: tuple[int, ...]) -> list[int]:
    """Which old channel each new one is taken from."""
    if how != "map":
        if source:
            raise SettingsError("a channel map is only used with how = map", "pass --how map")
        return [index % old for index in range(count)]
    wrong = [index for index in source if not 0 <= index < old]
    if len(source) != count or wrong:
        raise SettingsError(
            f"the map {','.join(map(str, source)) or '(empty)'} does not select {count} of {old} channels",
            f"give {plural(count, 'number')} from 0 to {old - 1}",
        )
    return list(source)


def _channels_of(
    values: tuple[float, ...], old: int, count: int, taken: list[int], how: How
) -> tuple[float, ...]:
    if len(values) == 1:
        return values
    if how == "average" or count == 1:
        return (sum(values) / old,) * count
    return tuple(values[index] for index in taken)


def _shape(tensor: "Tensor") -> str:
    return " x ".join(map(str, tensor.shape)) or "1"
