"""The complete Vision Transformer, in the order in which it runs.

    images → patches → prefix → positions → blocks → norm → pool → head → output

One class serves the whole family. Where families differ, the config selects a part when the
model is built (`config.py`), so `forward` contains no special case for any family.

Shapes: B images, C channels, N tokens (prefix first), D dim, H heads, h × w grid of patches.
Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), section 3.1.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.attention import Attended, Attention, Watch
from patchword.model.config import ViTConfig
from patchword.model.initial import draw_weights
from patchword.model.kinds import LayerNormConfig, ResNetStem, RMSNormConfig
from patchword.model.linear import Linear, linear
from patchword.model.mlp import MLP
from patchword.model.modes import evaluation_mode, has_hooks
from patchword.model.norms import make_norm
from patchword.model.pool import AttentionPooling, make_pool
from patchword.model.positions import added_positions, inner_positions
from patchword.model.positions.layout import AttentionPositions, Grid, TokenLayout
from patchword.model.stem import ResNetFeatures

# Patches ---------------------------------------------------------------------------------


class PatchEmbed(nn.Module):
    """Turn each patch of an image into one token.

    This is a convolution whose stride equals its kernel size. It gives the same result as cutting
    out the patches and multiplying each by a [D, C · rows · columns] matrix. In a hybrid, a stem
    runs first. If an image is not a multiple of the patch size, its right and bottom edges are
    padded with zeros (the mean colour after normalisation) or cropped, depending on `patch.edge`.

    Shapes: images [B, C, H, W] → tokens [B, h · w, D], and the grid (h, w).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        size, stem = config.patch.size, config.patch.stem
        channels = config.image.channels
        self.stem = ResNetFeatures(stem, channels) if isinstance(stem, ResNetStem) else nn.Identity()
        self.proj = nn.Conv2d(
            stem.features(channels), config.dim, kernel_size=size, stride=size, bias=config.patch.bias
        )
        self.norm_pixels = make_norm(config.norm, config.patch_pixels) if config.patch.norm_pixels else None
        self.norm_output = make_norm(config.norm, config.dim) if config.patch.norm_output else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Grid]:
        self._check(images)
        grid = self.config.grid_of((images.shape[-2], images.shape[-1]))
        images = self.stem(images)
        height, width = images.shape[-2:]
        bottom = grid[0] * self.config.patch.size[0] - height
        right = grid[1] * self.config.patch.size[1] - width
        if bottom or right:
            images = F.pad(images, (0, right, 0, bottom))  # negative padding crops
        if self.norm_pixels is not None:
            return self.project(cut_patches(images, self.config.patch.size)), grid
        patches: Tensor = self.norm_output(self.proj(images).flatten(2).transpose(1, 2))
        return patches, grid

    def project(self, pixels: Tensor) -> Tensor:
        """Project patches that were cut already: pixels [B, n, C · rows · columns] (`cut_patches`) → tokens [B, n, D]."""
        if self.norm_pixels is not None:
            pixels = self.norm_pixels(pixels)
        patches: Tensor = self.norm_output(linear(pixels, self.proj.weight.flatten(1), self.proj.bias))
        return patches

    def _check(self, images: Tensor) -> None:
        channels = self.config.image.channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise SettingsError(
                f"the model expects images [batch, {channels} channels, height, width], not {list(images.shape)}",
                f"pass a batch of images with {channels} channels, or build a model with other image.channels",
            )
        if not all(self.config.grid_of((images.shape[2], images.shape[3]))):
            raise SettingsError(
                f"an image of {images.shape[2]} x {images.shape[3]} pixels is smaller than one patch of "
                f"{self.config.patch.size[0]} x {self.config.patch.size[1]}",
                "use larger images, or set patch.edge = 'pad'",
            )


def cut_patches(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut images [B, C, H, W] into [B, h · w, C · rows · columns], ordered like the convolution's weight."""
    rows, columns = size
    cut = images.view(*images.shape[:2], -1, rows, images.shape[3] // columns, columns)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


# Prefix ----------------------------------------------------------------------------------


class PrefixTokens(nn.Module):
    """The learned tokens that are added to the patch tokens: class, distillation, registers.

    prefix() returns the tokens in front of the patches [num_prefix, D]; suffix() returns the
    registers [registers, D] if they follow the patches. Either is None if there are no such tokens.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        tokens, dim = config.tokens, config.dim
        self.class_token = nn.Parameter(torch.empty(dim)) if tokens.class_token else None
        self.distillation_token = nn.Parameter(torch.empty(dim)) if tokens.distillation_token else None
        registers = tokens.num_registers
        self.registers = nn.Parameter(torch.empty(registers, dim)) if registers else None
        self.registers_last = tokens.registers_last

    def reset(self, generator: torch.Generator | None) -> None:
        for token in self.parameters():
            nn.init.trunc_normal_(token, std=0.02, generator=generator)

    def prefix(self) -> Tensor | None:
        registers = None if self.registers_last else self.registers
        parts = [None if t is None else t[None] for t in (self.class_token, self.distillation_token)]
        present = [part for part in (*parts, registers) if part is not None]
        return torch.cat(present) if present else None

    def suffix(self) -> Tensor | None:
        return self.registers if self.registers_last else None


# Blocks ----------------------------------------------------------------------------------


class LayerScale(nn.Module):
    """Multiply each channel of a branch by a learned factor.

    Source: Touvron et al. 2021 (arXiv 2103.17239).
    """

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.full((dim,), start))

    def reset(self, generator: torch.Generator | None) -> None:
        nn.init.constant_(self.weight, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class DropPath(nn.Module):
    """Skip the branch for randomly chosen images of the batch, during training only.

    The remaining images are scaled by 1 / (1 - rate), which keeps the expected value. chance [B]: from 0 to below 1,
    for the images of the next batch; None draws from torch's global generator. Training sets it, so that the
    choice hangs on the image alone. An image may have several rows of the batch (windows), one after another. Source: Huang et al. 2016 (arXiv 1603.09382).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.chance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        chance = torch.rand(len(x), device=x.device) if self.chance is None else self.chance
        kept = chance.repeat_interleave(len(x) // len(chance)).view(-1, 1, 1) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class Block(nn.Module):
    """Attention, then an MLP, each added to the tokens as a residual branch.

    Shapes: x [B, N, D] → [B, N, D], or [B, rows, D] if only the first `rows` tokens are requested.
    """

    def __init__(self, config: ViTConfig, drop_path: float) -> None:
        super().__init__()
        self.order = config.block.order
        self.norm1 = make_norm(config.norm, config.dim)
        self.attention = Attention(config)
        self.norm2 = make_norm(config.norm, config.dim)
        self.mlp = MLP(config, config.mlp_dim, gated=config.mlp.gated)
        scale = config.block.layer_scale
        self.scale1 = nn.Identity() if scale is None else LayerScale(config.dim, scale)
        self.scale2 = nn.Identity() if scale is None else LayerScale(config.dim, scale)
        self.drop_path1, self.drop_path2 = DropPath(drop_path), DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        place: AttentionPositions,
        rows: int | None = None,
        watch: Callable[[Attended], None] | None = None,
    ) -> Tensor:
        x = place.enter(x)
        kept = x if rows is None else x[:, :rows]
        if self.order == "pre":
            x = kept + self._branch1(self.attention(self.norm1(x), place, rows, watch))
            x = x + self._branch2(self.mlp(self.norm2(x)))
        elif self.order == "post":
            x = self.norm1(kept + self._branch1(self.attention(x, place, rows, watch)))
            x = self.norm2(x + self._branch2(self.mlp(x)))
        else:
            x = kept + self._branch1(self.norm1(self.attention(x, place, rows, watch)))
            x = x + self._branch2(self.norm2(self.mlp(x)))
        return x

    def _branch1(self, x: Tensor) -> Tensor:
        branch: Tensor = self.drop_path1(self.scale1(x))
        return branch

    def _branch2(self, x: Tensor) -> Tensor:
        branch: Tensor = self.drop_path2(self.scale2(x))
        return branch

    def attention_weights(self, x: Tensor, place: AttentionPositions) -> Tensor:
        """The attention weights [B, H, N, N] for tokens x [B, N, D] that enter this block."""
        x = place.enter(x)
        return self.attention.weights(self.norm1(x) if self.order == "pre" else x, place)


# The model -------------------------------------------------------------------------------


class ViT(nn.Module):
    """A Vision Transformer.

    Images may have any size: positions are adapted to the grid, and edges that fill no complete
    patch are padded or cropped (see `PatchEmbed`).

    Args:
        config: the architecture.
        generator: source of the random initial weights.

    Shapes: images [B, C, H, W] → logits [B, classes]. A model without classes returns the
    embedding, projected if the config has a projection.
    """

    def __init__(self, config: ViTConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.prefix = PrefixTokens(config)
        self.positions = added_positions(config)
        self.attention_positions = inner_positions(config)
        self.dropout = nn.Dropout(config.block.dropout)
        self.entry_norm = make_norm(config.norm, config.dim) if config.block.entry_norm else nn.Identity()
        rates = [config.block.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)

        head = config.head
        self.norm = make_norm(config.norm, config.dim) if head.norm == "tokens" else nn.Identity()
        self.pool = make_pool(config)
        pooled = head.norm == "pooled"
        self.pooled_norm = make_norm(config.norm, config.pooled_dim) if pooled else nn.Identity()
        self.pre_logits = Linear(config.pooled_dim, head.pre_logits) if head.pre_logits else None
        width = config.embed_dim
        projected = head.projection
        self.projection = Linear(width, projected, bias=head.projection_bias) if projected else None
        width = head.projection or width
        classes = head.num_classes
        self.head = Linear(width, classes, bias=head.bias) if classes else None
        self.head_distillation = (
            Linear(width, classes, bias=head.bias) if head.distilled and classes else None
        )
        # A model on `meta` has no storage to initialise; it is filled from a weights file.
        if self.patch_embed.proj.weight.device.type != "meta":
            self.init_weights(generator)

    @property
    def num_prefix(self) -> int:
        """The number of tokens in front of the patches."""
        return self.config.tokens.num_prefix

    def layout(self, images: Tensor) -> TokenLayout:
        """Where the patches of these images are in the token sequence."""
        grid = self.config.grid_of((images.shape[-2], images.shape[-1]))
        return self._layout(grid, images.device)

    def forward(self, images: Tensor, watch: Watch | None = None) -> Tensor:
        """Compute logits [B, classes] from images [B, C, H, W]; without classes, the (projected) embedding.

        watch: sees what each attention computes, and changes nothing.
        """
        x, layout = self.embed_tokens(images)
        return self.answer(x, layout, self.places(layout), watch)

    def logits_by_head(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits [B, classes] of each head: "class", and "distillation" in a distilled model."""
        if self.head is None:
            return {}
        x, layout = self.embed_tokens(images)
        return self._outputs(x, layout, self.places(layout))

    def embed(self, images: Tensor) -> Tensor:
        """Embed images [B, C, H, W] as [B, embed_dim]: pooled and normed, the input of projection and head."""
        return self._embedding(*self._encode_for_pool(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Compute tokens [B, N, D] after the last block and the final norm (if any) from images [B, C, H, W]."""
        (tokens,), _ = self._encode(images, [self.config.depth - 1])
        return tokens

    def encode(
        self, images: Tensor, layers: Sequence[int] | None = None, *, normed: bool = True
    ) -> dict[int, Tensor]:
        """Return the tokens after the requested blocks: {block index: [B, N, D]}. `split` separates them by name.

        Args:
            images: [B, C, H, W].
            layers: block indices, negative ones counted from the end; None for all. Later blocks are not run.
            normed: apply the final norm, as for the tokens that the head reads (like DINOv2's
                `get_intermediate_layers`). If false, return the tokens exactly as they leave the block.

        Raises: SettingsError if a layer does not exist.
        """
        wanted = _indices(layers, self.config.depth, "layer")
        found, _ = self._encode(images, wanted, normed=normed)
        return dict(zip(wanted, found, strict=True))

    def split(self, tokens: Tensor, layout: TokenLayout) -> dict[str, Tensor]:
        """Split tokens [B, N, D] by name: "class", "distillation", "registers", "patches" [B, h, w, D]."""
        parts: dict[str, Tensor] = {}
        start = 0
        for name in dict.fromkeys(self.config.tokens.names):
            counts = {"patches": layout.num_patches, "registers": self.config.tokens.num_registers}
            stop = start + counts.get(name, 1)
            parts[name] = tokens[:, start:stop]
            start = stop
        parts["patches"] = parts["patches"].reshape(len(tokens), *layout.grid, -1)
        return parts

    def pooled(
        self,
        layers: Sequence[Tensor],
        layout: TokenLayout,
        *,
        normed: bool = True,
        watch: Watch | None = None,
    ) -> Tensor:
        """Pool tokens [B, N, D] of the blocks that pooling reads, as the head does: [B, pooled_dim].

        normed: apply the norm that comes after pooling, if there is one. watch: sees an attention pool.
        """
        pooled: Tensor
        if watch is not None and isinstance(self.pool, AttentionPooling):
            pooled = self.pool(layers, layout, functools.partial(watch, self.config.depth))
        else:
            pooled = self.pool(layers, layout)
        if self.config.head.distilled and self.head is None:
            pooled = layers[-1][:, :2].mean(dim=1)
        return self.pooled_norm(pooled) if normed else pooled

    @torch.no_grad()
    def attention_maps(
        self, images: Tensor, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> dict[int, Tensor]:
        """Return the softmax weights of the requested layers: {layer: [B, H, N, N]}; each row sums to 1.

        `forward` uses a fused kernel that never stores these weights, so this method runs the model
        again in evaluation mode: without dropout, and without updating running averages.

        Args:
            images: [B, C, H, W].
            layers, heads: indices, negative ones counted from the end; None for all.

        Raises: SettingsError if a layer or head does not exist.
        """
        wanted = _indices(layers, self.config.depth, "layer")
        chosen = None if heads is None else _indices(heads, self.config.attention.num_heads, "head")
        maps: dict[int, Tensor] = {}
        with evaluation_mode(self):
            x, layout = self.embed_tokens(images)
            for index, (block, place) in enumerate(zip(self.blocks, self.places(layout), strict=True)):
                if index in wanted:
                    assert isinstance(block, Block)
                    weights = block.attention_weights(x, place)
                    maps[index] = weights if chosen is None else weights[:, chosen]
                x = block(x, place)
        return {index: maps[index] for index in wanted}

    # The individual steps, for code that wraps the model (MAE, detection, explanation).

    def embed_tokens(self, images: Tensor) -> tuple[Tensor, TokenLayout]:
        """Compute the tokens [B, N, D] that enter the first block, and their layout, from images."""
        patches, grid = self.patch_embed(images)
        if self.positions is not None:
            patches = patches + self.positions(grid).to(patches)
        x: Tensor = self.entry_norm(self.dropout(self.with_prefix(patches)))
        return x, self._layout(grid, images.device)

    def places(self, layout: TokenLayout) -> list[AttentionPositions]:
        """The positional information that is passed to each block's attention."""
        if self.attention_positions is None:
            return [AttentionPositions()] * self.config.depth
        found: list[AttentionPositions] = self.attention_positions(layout, self.config.depth)
        return found

    def answer(
        self,
        x: Tensor,
        layout: TokenLayout,
        places: Sequence[AttentionPositions],
        watch: Watch | None = None,
    ) -> Tensor:
        """Compute what `forward` returns from the tokens x [B, N, D] that enter the first block."""
        first, *others = self._outputs(x, layout, places, watch).values()
        return (first + others[0]) / 2 if others else first

    def with_prefix(self, patches: Tensor) -> Tensor:
        """Add the prefix and suffix tokens: patches [B, h · w, D] → [B, N, D]."""
        front, behind = self.prefix.prefix(), self.prefix.suffix()
        rows = None if self.positions is None else self.positions.prefix
        if front is not None and rows is not None:
            positioned = front[: len(rows)] + rows
            front = positioned if len(rows) == len(front) else torch.cat((positioned, front[len(rows) :]))
        if behind is not None and self.positions is not None and self.positions.suffix is not None:
            behind = behind + self.positions.suffix
        parts = [
            part if part.ndim == 3 else part.to(patches.dtype).expand(len(patches), -1, -1)
            for part in (front, patches, behind)
            if part is not None
        ]
        return torch.cat(parts, dim=1) if len(parts) > 1 else patches

    def _encode(
        self, images: Tensor, layers: Sequence[int], *, normed: bool = True, rows: int | None = None
    ) -> tuple[list[Tensor], TokenLayout]:
        """The tokens [B, N, D] after each requested block, and their layout.

        rows: compute only the first `rows` tokens of the last block.
        """
        x, layout = self.embed_tokens(images)
        return self._blocks(x, self.places(layout), layers, normed=normed, rows=rows), layout

    def _blocks(
        self,
        x: Tensor,
        places: Sequence[AttentionPositions],
        layers: Sequence[int],
        *,
        normed: bool = True,
        rows: int | None = None,
        watch: Watch | None = None,
    ) -> list[Tensor]:
        """As `_encode`, from the tokens that enter the first block."""
        found: dict[int, Tensor] = {}
        last = self.config.depth - 1
        for index, (block, place) in enumerate(zip(self.blocks, places, strict=True)):
            if index > max(layers):
                break
            seen = None if watch is None else functools.partial(watch, index)
            x = block(x, place, rows if index == last else None, seen)
            if index in layers:
                found[index] = self.norm(x) if normed else x
        return [found[index] for index in layers]

    def _encode_for_pool(self, images: Tensor) -> tuple[list[Tensor], TokenLayout]:
        """The tokens that pooling reads.

        If pooling reads only the first tokens, the last block computes only those. The result is
        exact and saves 1/depth of the queries, projections and MLPs (7 % of a ViT-B).
        """
        return self._encode(images, self._layers_needed(), rows=self._rows_needed())

    def _layers_needed(self) -> Sequence[int]:
        return self.config.head.pool.layers(self.config.depth)

    def _rows_needed(self) -> int | None:
        """How many of the first tokens the head reads, or None if all of them must be computed.

        Also None if a norm averages over tokens, or if a hook on the last block expects all of them.
        """
        reads_first = self.config.head.pool.reads_first
        token_by_token = isinstance(self.config.norm, LayerNormConfig | RMSNormConfig)
        if not reads_first or not token_by_token or has_hooks(self.blocks[-1]) or has_hooks(self.norm):
            return None
        return 2 if self.config.head.distilled else 1

    def _embedding(self, layers: Sequence[Tensor], layout: TokenLayout, watch: Watch | None = None) -> Tensor:
        """Pool, normalise and apply the pre-logits layer, if any: [B, embed_dim]."""
        embedding = self.pooled(layers, layout, watch=watch)
        return embedding if self.pre_logits is None else self.pre_logits(embedding).tanh()

    def _outputs(
        self,
        x: Tensor,
        layout: TokenLayout,
        places: Sequence[AttentionPositions],
        watch: Watch | None = None,
    ) -> dict[str, Tensor]:
        """The logits of each head by name; without a head, the (projected) "embedding"."""
        layers = self._blocks(x, places, self._layers_needed(), rows=self._rows_needed(), watch=watch)
        embedding = self._embedding(layers, layout, watch)
        if self.projection is not None:
            embedding = self.projection(embedding)
        if self.head is None:
            return {"embedding": embedding}
        found = {"class": self.head(embedding)}
        if self.head_distillation is not None:
            found["distillation"] = self.head_distillation(layers[-1][:, 1])
        return found

    def _layout(self, grid: Grid, device: torch.device) -> TokenLayout:
        tokens = self.config.tokens
        return TokenLayout(grid, tokens.num_prefix, tokens.num_extra - tokens.num_prefix, device)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialise all weights randomly.

        As in the paper's own code:

        - Linear layers of the blocks: Glorot uniform, with queries, keys and values each initialised separately.
        - Patch convolution: normal with std 1/sqrt(pixels of a patch), so that the tokens of standardised
          images start with variance one.
        - Biases: zero.
        - Heads, extra tokens and positions: normal with DeiT's std of 0.02.
        - Norms: weight 1 and bias 0. LayerScale: its start value.

        Each module draws from a stream of its own name, so that models with the same seed share the initial weights of the parts
        they have in common: a difference in one part does not shift the draws of the others.
        """
        draw_weights(self, self.blocks, generator)


def _indices(requested: Sequence[int] | None, count: int, what: str) -> list[int]:
    """The requested indices, counted from 0. Raises: SettingsError if one does not exist."""
    indices = list(range(count)) if requested is None else [i + count if i < 0 else i for i in requested]
    for index in indices:
        if not 0 <= index < count:
            raise SettingsError(f"there is no {what} {index}", f"choose from {what}s 0 to {count - 1}")
    return indices
