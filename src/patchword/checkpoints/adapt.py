"""A model for another size of image or patch, other channels, other classes: what changes, and how.

What is resampled here is what the model would compute at that size at run time, stored for good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from patchword.checkpoints.card import ModelCard, Provenance
from patchword.checkpoints.facts import sized_as
from patchword.checkpoints.resampled import rule_text
from patchword.errors import SettingsError, near_text, plural
from patchword.images.preprocess import Preprocess
from patchword.model.config import ViTConfig
from patchword.model.kinds import Learned, RelativeBias

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
How = Literal["inflate", "average", "map"]
HEADS = ("head", "head_distillation")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to change; None leaves a part as it is.

    channels: how many, `how` they come from the old ones: "inflate" repeats them in turn, scaled so
    that a picture of equal channels keeps its answers; "average" gives each the mean of the old;
    "map" takes those that `source` numbers. classes: names in their new order. seed: of new rows of the head.
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
    """The model under its new card. kept: tensors that stay as they are. notes: what to know of it."""

    card: ModelCard
    tensors: Mapping[str, "Tensor"]
    changes: tuple[Change, ...]
    kept: int
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Adapted({plural(len(self.changes), 'tensor')} changed, {self.kept} kept)"


def adapt(card: ModelCard, tensors: Mapping[str, "Tensor"], wanted: Wanted) -> Adapted:
    """Raises: SettingsError for a wish that contradicts itself or the model."""
    work = _Work(card, dict(tensors))
    if wanted.channels is not None:
        work.channels(wanted.channels, wanted.how, wanted.source)
    if wanted.patch_size is not None:
        work.patch(wanted.patch_size)
    work.image(wanted.image_size)
    if wanted.classes is not None:
        work.classes(wanted.classes, wanted.seed)
    changed = {change.part for change in work.changes}
    return Adapted(
        card=replace(work.card, provenance=_derived(card.provenance, work.changes)),
        tensors=work.tensors,
        changes=tuple(work.changes),
        kept=len(set(work.tensors) - changed),
        notes=tuple(work.notes),
    )


def _derived(old: Provenance, changes: Sequence[Change]) -> Provenance:
    """Where the weights come from stays; scores were another model's and go."""
    done = "; ".join(f"{change.part}: {change.how}" for change in changes)
    return replace(old, metrics={}, facts={**old.facts, "adapted": done or "nothing"})


class _Work:
    """A card and tensors that change together, and the rows of what changed."""

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
        """The kernel's channels, the norm over pixels, and each channel's mean and std with them."""
        old = self.config.image.channels
        if count < 1:
            raise SettingsError(f"channels is {count}", "give at least 1")
        if self.config.patch.stem.kind != "none":
            raise SettingsError(
                "a model with a convolutional stem reads three channels", "choose a model without a stem"
            )
        taken = _taken(old, count, how, source)
        if count == old and taken == list(range(old)):
            return
        name = "patch_embed.proj.weight"
        kernel = self.tensors[name]
        if how == "average":
            new, told = kernel.mean(1, keepdim=True).repeat(1, count, 1, 1) * (old / count), "averaged"
        elif count == 1:
            # One grey channel in place of each: the sum answers a grey picture as before.
            new, told = kernel.sum(1, keepdim=True), f"the sum of {old} channels"
        else:
            scale = 1.0 if how == "map" else old / count
            new = kernel[:, taken] * scale
            told = f"channels {', '.join(map(str, taken))} of the old" + (
                f" x {scale:.3g}" if scale != 1 else ""
            )
        self._put(name, new, told)
        self._norm_over_pixels(taken if how != "average" else None, old, count)
        mean, std = (
            _channels_of(v, old, count, taken, how)
            for v in (self.card.preprocess.mean, self.card.preprocess.std)
        )
        preprocess = replace(self.card.preprocess, in_channels=count, mean=mean, std=std)
        config = replace(self.config, image=replace(self.config.image, channels=count))
        self._set(config, preprocess)
        whose = (
            "the mean of all" if how == "average" or count == 1 else "those of the channels they come from"
        )
        self.notes.append(f"mean and std of the new channels are {whose}: check that they are your data's")

    def _norm_over_pixels(self, taken: list[int] | None, old: int, count: int) -> None:
        for part in ("weight", "bias"):
            name = f"patch_embed.norm_pixels.{part}"
            if name in self.tensors:
                by_channel = self.tensors[name].view(old, -1)
                new = (
                    by_channel.mean(0, keepdim=True).repeat(count, 1) if taken is None else by_channel[taken]
                )
                self._put(name, new.flatten(), "as the kernel's channels")

    # Patch and image -------------------------------------------------------------------

    def patch(self, size: Size) -> None:
        """The kernel by the pseudo-inverse resize. The images keep their size, so the grid changes."""
        from patchword.model.kernel import resample_kernel

        old = self.config.patch.size
        if size == old:
            return
        if min(size) < 1:
            raise SettingsError(f"patch_size is {size}", "give pixels of at least 1")
        if self.config.patch.norm_pixels:
            raise SettingsError(
                "a norm over the pixels of a patch cannot be brought to another patch", "keep the patch size"
            )
        name, rule = "patch_embed.proj.weight", self.config.patch.resample
        self._put(
            name, resample_kernel(self.tensors[name], size, rule), f"pseudo-inverse of {rule_text(rule)}"
        )
        self._set(replace(self.config, patch=replace(self.config.patch, size=size)))

    def image(self, wanted: Size | None) -> None:
        """Tables of positions to the grid of that size; formulas and rotations need nothing.

        None: the size that they are made for, and images prepared as before, which may be of another
        (DINOv2: tables for 518 pixels, images of 224).
        """
        size = wanted or self.config.image.size
        if min(size) < 1:
            raise SettingsError(f"image_size is {size}", "give pixels of at least 1")
        old_grid, new_grid = self.stored_grid, self.config.grid_of(size)
        config = replace(self.config, image=replace(self.config.image, size=size))
        if min(config.grid_size) < 1:
            raise SettingsError(f"images of {size[0]} x {size[1]} hold no whole patch", "give larger images")
        if old_grid != new_grid:
            self._resample(config, old_grid, new_grid)
        preprocess = self.card.preprocess
        if wanted is not None and preprocess.image_size != size:
            preprocess = sized_as(preprocess, size)
        self._set(config, preprocess)

    def _resample(self, config: ViTConfig, old: Size, new: Size) -> None:
        import torch

        from patchword.model.positions.learned import resample_grid
        from patchword.model.positions.relative_bias import resample_differences

        added, inner = config.added_positions, config.inner_positions
        if isinstance(added, Learned):
            table = self.tensors["positions.grid"]
            self._put("positions.grid", resample_grid(table, new, added.resample), rule_text(added.resample))
        if isinstance(inner, RelativeBias):
            for name in [n for n in self.tensors if n.startswith("attention_positions.tables.")]:
                table = self.tensors[name]
                end = len(table) - (3 if inner.prefix_rows else 0)
                resampled = resample_differences(table[:end], old, new, inner.rule)
                self._put(name, torch.cat((resampled, table[end:])), f"differences, {inner.rule}")
        if not isinstance(added, Learned) and not isinstance(inner, RelativeBias):
            self.notes.append("positions are computed for any grid; no tensor changed for the new one")

    # Classes ---------------------------------------------------------------------------

    def classes(self, names: tuple[str, ...], seed: int) -> None:
        """Rows of names in common are kept; the others are drawn, and then nothing answers until trained."""
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise SettingsError(
                "no classes are named" if not names else f"the class {twice[0]!r} is named twice",
                "name each class once",
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
                "the head must be trained before it answers"
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
            raise SettingsError("a map of channels was given without how = map", "pass --how map")
        return [index % old for index in range(count)]
    wrong = [index for index in source if not 0 <= index < old]
    if len(source) != count or wrong:
        raise SettingsError(
            f"the map {','.join(map(str, source)) or 'is empty and'} does not give {count} channels of {old}",
            f"give {count} numbers from 0 to {old - 1}",
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
