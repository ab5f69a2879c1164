"""Positions in a timm file: the patch grid, added positions, and positions inside attention."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from patchword.errors import CheckpointError, KeyMismatch, MissingFact
from patchword.formats.checkpoint import Checkpoint, square
from patchword.formats.facts import Facts
from patchword.formats.layouts.timm_facts import Size, TimmArchitecture
from patchword.formats.layouts.timm_names import rows, stem_names, stem_of
from patchword.formats.renamed import Renamed
from patchword.model.config import TokensConfig
from patchword.model.kinds import (
    CentreCoordinates,
    Combined,
    IndexCoordinates,
    Learned,
    NoPositions,
    Positions,
    RelativeBias,
    RelativeMLP,
    Resample,
    ResNetStem,
    Rope2d,
    RopeMixed,
)

DEFAULTS = "timm's default"
# Block names that only timm's Eva class has; its rotary positions leave no tensor.
EVA_ONLY = ("attn.q_proj.weight", "attn.q_bias", "mlp.fc1_g.weight", "gamma_1")


class Places:
    """A file being read: its tensors, timm's metadata, and the collected facts."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        facts: Facts,
        known: TimmArchitecture,
        spelling: Mapping[str, Any],
    ) -> None:
        self.checkpoint, self.facts, self.known = checkpoint, facts, known
        self.naflex = checkpoint.has("embeds.proj.weight")
        self.stem = "embeds." if self.naflex else ""
        self.block = "blocks.0."
        self.dim = checkpoint.shape_of(f"{self.block}norm1.weight", 1)[0]
        self.image_stem = stem_of(checkpoint)
        self.seen = Renamed(checkpoint, list(rows(spelling, self.image_stem)))
        self.channels, self.patch = self._channels_and_patch()
        self.pads = known.flag("dynamic_img_pad")

    @property
    def _patches(self) -> str:
        return "embeds.proj" if self.naflex else "patch_embed.proj"

    def _has(self, name: str) -> bool:
        return self.checkpoint.has(name)

    def _in_block(self, name: str) -> bool:
        return self._has(f"{self.block}{name}")

    def _channels_and_patch(self) -> tuple[int, Size]:
        if len(self.checkpoint.shape(f"{self._patches}.weight")) == 4:
            _, channels, rows, columns = self.checkpoint.shape_of(f"{self._patches}.weight", 4)
            if isinstance(self.image_stem, ResNetStem):
                channels = self.checkpoint.shape_of(f"{stem_names(self.image_stem).root}.weight", 4)[1]
            self._check_patch((rows, columns))
            return channels, (rows, columns)
        pixels = self.checkpoint.shape_of(f"{self._patches}.weight", 2)[1]
        size, source = self.known.size("patch_size")
        side = square(pixels // 3) if pixels % 3 == 0 else None
        coloured = (None if side is None else (side, side), "a square patch of three channels")
        sizes = [(self.facts.options.patch_size, "option"), (size, source), coloured, ((16, 16), DEFAULTS)]
        for candidate, _ in sizes:
            if candidate is not None and pixels % (candidate[0] * candidate[1]) == 0:
                return pixels // (candidate[0] * candidate[1]), candidate
        raise MissingFact(
            f"{self.facts.name}: no file specifies the shape of its patches of {pixels} values",
            "pass --patch-size",
            "patch_size",
        )

    def _check_patch(self, found: Size) -> None:
        asked = self.facts.options.patch_size
        if asked not in (None, found):
            raise CheckpointError(
                f"{self.facts.name}: its patches are {found[0]} x {found[1]}, but --patch-size asks for {asked[0]} x {asked[1]}",
                "resample them with `patchword adapt --to-patch-size`",
            )

    def _sizes(self) -> list[tuple[Size | None, str]]:
        """Image sizes (h, w) for which the model may have been trained, the most certain first."""
        known, options = self.known, self.facts.options
        size, source = known.size("img_size")
        own = (size, source) if source == known.evidence else (None, "")
        arch = (size, source) if source != known.evidence else (None, "")
        return [
            (options.image_size, "option"),
            own,
            (known.input_size(), f"{known.evidence}: pretrained_cfg"),
            arch,
        ]

    def _grid(self, fits: Callable[[Size], bool], side: int | None) -> tuple[Size, Size]:
        """The stored grid and its image size. Raises: CheckpointError if no size fits."""
        for size, source in self._sizes():
            if size is not None and fits(self._grid_of(size)):
                grid = self._grid_of(size)
                self.facts.record("grid", grid, source)
                return grid, self._image_of(grid, size)
        if side is None:
            raise MissingFact(
                f"{self.facts.name}: its positions do not form a square grid, and no file specifies the sides",
                "pass --image-size HEIGHTxWIDTH with the size the model was trained for",
                "image_size",
            )
        self.facts.record("grid", (side, side), "the square position table")
        return (side, side), (side * self.unit[0], side * self.unit[1])

    @property
    def unit(self) -> Size:
        """Image pixels that one patch covers."""
        stride = self.image_stem.stride
        return stride * self.patch[0], stride * self.patch[1]

    def _grid_of(self, size: Size) -> Size:
        """The grid for an image: timm stores positions for complete patches, even if it pads."""
        height, width = self.image_stem.size_after(size)
        return height // self.patch[0], width // self.patch[1]

    def _image_of(self, grid: Size, size: Size) -> Size:
        """The config for images of this size; if timm pads, for a size that fills this grid after padding."""
        if not self.pads:
            return size
        whole = (grid[0] * self.unit[0], grid[1] * self.unit[1])
        for candidate, _ in self._sizes():
            if candidate is not None and candidate != whole:
                below = [side - part for side, part in zip(whole, self.unit, strict=True)]
                if all(b < c <= w for b, c, w in zip(below, candidate, whole, strict=True)):
                    return candidate
        return whole

    # Tokens and positions ------------------------------------------------------------------

    def _tokens(self) -> TokensConfig:
        """Tokens in the file, plus those that its architecture needs, so that the plan reports them as missing."""
        registers = f"{self.stem}reg_token"
        return TokensConfig(
            class_token=self._has(f"{self.stem}cls_token") or self._class_token_is_lost(),
            distillation_token=self._has("dist_token") or self.known.kind == "VisionTransformerDistilled",
            num_registers=self.checkpoint.shape_of(registers, 3)[1]
            if self._has(registers)
            else self.known.num_registers,
        )

    def _class_token_is_lost(self) -> bool:
        """Check the prefix tokens against the positions: a model known only by its file name may be modified."""
        if not self.known.has_class_token:
            return False
        bare = self.known.flag("no_embed_class") or not self._has("pos_embed")
        return self.known.certain or bare or square(self.checkpoint.shape_of("pos_embed", 3)[1]) is None

    def _positions(self, tokens: TokensConfig) -> tuple[Positions, Size]:
        """The positions, and the image size for which they are stored."""
        table = f"{self.stem}pos_embed"
        added, inner = None, self._relative() or self._rope()
        if self._has(table):
            added, image = self._learned(table, tokens)
        elif isinstance(inner, RelativeBias):
            image = self._relative_grid(inner)
        else:
            sizes = [(size, source) for size, source in self._sizes() if size is not None]
            image, source = sizes[0] if sizes else (self.facts.require("image_size"), "option")
            image = self._image_of(self._grid_of(image), image)
            self.facts.record("image_size", image, source)
        if added is None and self.known.adds_positions:
            added = Learned()  # the plan reports its table as missing
        if added is not None and inner is not None:
            return Combined(added=added, inner=inner), image
        return added or inner or NoPositions(), image

    def _learned(self, table: str, tokens: TokensConfig) -> tuple[Learned, Size]:
        if self.naflex:
            _, rows, columns, _ = self.checkpoint.shape_of(table, 4)
            grid = (rows, columns)
            self.facts.record("grid", grid, "the shape of the position table")
            image = (rows * self.patch[0], columns * self.patch[1])
            covers: Literal["patches", "all", "all_but_registers"] = "patches"
            return Learned(covers=self._covers(covers, tokens), resample=self._naflex_resample()), image
        count, prefix = self.checkpoint.shape_of(table, 3)[1], tokens.num_prefix
        ways = self._coverings(count, prefix)
        # A specified size takes precedence over guessing a square.
        for covers, rows, side in [(*way, None) for way in ways] + [(*way, square(way[1])) for way in ways]:
            try:
                _, image = self._grid(lambda g, rows=rows: g[0] * g[1] == rows, side)  # type: ignore[misc]
            except CheckpointError:
                continue
            return Learned(covers=self._covers(covers, tokens)), image
        grid, image = self._grid(lambda g: g[0] * g[1] in (count, count - prefix), None)
        bare = grid[0] * grid[1] == count
        return Learned(covers=self._covers("patches" if bare else "all", tokens)), image

    def _coverings(self, count: int, prefix: int) -> list[tuple[Literal["patches", "all"], int]]:
        """Which tokens the table may cover, and the resulting number of patches, the most likely first."""
        stated, _ = self.known.argument("no_embed_class")
        bare: tuple[Literal["patches", "all"], int] = ("patches", count)
        whole: tuple[Literal["patches", "all"], int] = ("all", count - prefix)
        if not prefix:
            return [whole]
        if stated is not None or self.known.kind:
            return [bare, whole] if stated else [whole, bare]
        return [bare, whole] if square(count) else [whole, bare]

    def _covers(
        self, covers: Literal["patches", "all", "all_but_registers"], tokens: TokensConfig
    ) -> Literal["patches", "all", "all_but_registers"]:
        """Normalise equivalent values: without registers, use "all" as other families do."""
        if not tokens.num_prefix or (covers == "all" and not tokens.num_registers):
            return "all_but_registers"
        return covers

    def _naflex_resample(self) -> Resample:
        mode, _ = self.known.text("pos_embed_interp_mode")
        if mode not in (None, "bicubic", "bilinear"):
            raise self._lacks(f"positions resampled with {mode!r}")
        antialias, _ = self.known.argument("pos_embed_antialias")
        return Resample(
            interpolation="bilinear" if mode == "bilinear" else "bicubic",
            antialias=antialias is not False,
            align_corners=self.known.flag("pos_embed_align_corners"),
            keep_aspect=self.known.flag("pos_embed_ar_preserving"),
        )

    def _relative(self) -> RelativeBias | RelativeMLP | None:
        tables = {
            f"{self.block}attn.relative_position_bias_table": False,
            f"{self.block}attn.rel_pos.relative_position_bias_table": False,
            "rel_pos_bias.relative_position_bias_table": True,
            "shared_rel_pos.relative_position_bias_table": True,
        }
        self._check_tables()
        for name, shared in tables.items():
            if self._has(name):
                return RelativeBias(shared=shared, prefix_rows=self._tokens().class_token, rule="linear")
        for stem, shared in ((f"{self.block}attn.rel_pos", False), ("shared_rel_pos", True)):
            if self._has(f"{stem}.mlp.fc1.weight"):
                hidden = self.checkpoint.shape_of(f"{stem}.mlp.fc1.weight", 2)[0]
                if not self._has(f"{stem}.mlp.fc2.bias"):
                    raise self._lacks("Swin's relative positions (rel_pos_type 'mlp-swin')")
                return RelativeMLP(hidden=hidden, shared=shared)
        return None

    def _check_tables(self) -> None:
        lost = [name for name in self.known.relative_tables if not self._has(name)]
        if lost:
            raise KeyMismatch(
                f"{self.facts.name}: {lost[0]} is missing, which {self.known.architecture} has",
                "download the complete file",
            )

    def relative_table(self) -> str:
        """The first stored relative position table."""
        return next(name for name in self.checkpoint.tensors if name.endswith("relative_position_bias_table"))

    def _relative_grid(self, part: RelativeBias) -> Size:
        length = self.checkpoint.shape_of(self.relative_table(), 2)[0] - 3 * part.prefix_rows
        side = square(length)
        return self._grid(
            lambda g: (2 * g[0] - 1) * (2 * g[1] - 1) == length,
            (side + 1) // 2 if side is not None and side % 2 else None,
        )[1]

    def _rope(self) -> Rope2d | RopeMixed | None:
        known = self.known
        if self._has("rope.freqs"):
            indexing, _ = known.text("rope_grid_indexing")
            if indexing == "ij" or (known.kind and indexing is None):
                raise self._lacks("mixed rotary positions with rows first (rope_grid_indexing 'ij')")
            return RopeMixed(theta=known.number("rope_temperature")[0] or 10.0)
        if not self._rotates():
            return None
        kind, _ = known.text("rope_type")
        if kind == "mixed":
            raise KeyMismatch(
                f"{self.facts.name}: {known.argument('rope_type')[1]} specifies mixed rotary positions, but rope.freqs is missing",
                "download the complete file",
            )
        theta = known.number("rope_temperature")[0] or 10_000.0
        half = known.flag("rope_rotate_half")
        columns_first = known.text("rope_grid_indexing")[0] == "xy"
        pairing: Literal["half", "neighbours"] = "half" if half else "neighbours"
        first: Literal["row", "column"] = "column" if columns_first else "row"
        self.facts.record(
            "positions", f"rope {kind or 'cat'}, temperature {theta:g}", known.argument("rope_type")[1]
        )
        offset = known.number("rope_grid_offset")[0] or 0.0
        if kind == "dinov3" and not offset:
            return Rope2d(theta=theta, coordinates=CentreCoordinates(), pairing=pairing, first_axis=first)
        if kind not in (None, "cat", "axial"):
            raise self._lacks(f"rotary positions of kind {kind!r}")
        reference, _ = known.size("ref_feat_shape", "rope_ref_feat_shape")
        coordinates = IndexCoordinates(offset=offset, reference=reference)
        return Rope2d(theta=theta, coordinates=coordinates, pairing=pairing, first_axis=first)

    def _rotates(self) -> bool:
        """Whether queries and keys are rotated, which leaves no tensor."""
        known = self.known
        if known.kind == "NaFlexVit":
            return known.text("rope_type")[0] not in (None, "", "none")
        if known.kind or "use_rot_pos_emb" in known.declared:
            return known.flag("use_rot_pos_emb")
        before = self._has("norm_pre.weight")
        pe_core = before and self._has("attn_pool.latent")
        pe_else = before and not self._has("norm.weight") and not self._has("fc_norm.weight")
        nowhere = not self._has(f"{self.stem}pos_embed")
        if nowhere and known.declared.get("pos_embed", "") in ("none", None):
            return False
        absent = [name for name in ("cls_token", f"{self.stem}pos_embed") if not self._has(name)]
        if nowhere:
            raise CheckpointError(
                f"{self.facts.name}: it lacks {' and '.join(absent)}, so it is incomplete or a model of timm's Eva class, "
                "whose rotary positions no file specifies",
                "download the complete file, put timm's config.json next to it, or rename the file to timm's architecture name",
            )
        if pe_core or pe_else or any(self._in_block(name) for name in EVA_ONLY):
            raise CheckpointError(
                f"{self.facts.name}: a model of timm's Eva class or an AIMv2, whose rotary positions no file specifies"
                + (", and cls_token is missing" if absent else ""),
                "put timm's config.json next to it, or rename the file to timm's architecture name",
            )
        return False

    def _lacks(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.facts.name}: a timm model with {what}, which the backbone does not support",
            "load it with timm",
        )
