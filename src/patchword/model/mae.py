"""A masked autoencoder: the encoder sees some patches of an image, a small decoder predicts the pixels of the others.

    images → visible patches → encoder → decoder over all places → pixels of the hidden patches

It wraps a ViT and changes nothing in it: afterwards the encoder is an ordinary model.
Shapes: B images, N patches, k of them visible, P prefix tokens, D dim of the encoder, d of the decoder, V values per patch.
Source: He et al. 2022 (arXiv 2111.06377); facebookresearch/mae, models_mae.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from patchword.errors import SettingsError
from patchword.model.config import ViTConfig
from patchword.model.decoder import DecoderConfig, num_visible, require_maskable
from patchword.model.linear import Linear
from patchword.model.norms import make_norm
from patchword.model.positions import added_positions
from patchword.model.positions.layout import AttentionPositions, Grid
from patchword.model.vit import Block, ViT, cut_patches

# Added to the variance of a patch before the root, as in the source.
TARGET_EPS = 1e-6


class Masking(NamedTuple):
    """Which patches of each image are visible.

    order [B, N]: patch indices, first the visible ones, both in ascending order of the noise. num_visible: k.
    """

    order: Tensor
    num_visible: int

    @property
    def visible(self) -> Tensor:
        """[B, k]"""
        return self.order[:, : self.num_visible]

    @property
    def hidden(self) -> Tensor:
        """[B, N - k]"""
        return self.order[:, self.num_visible :]

    @property
    def restore(self) -> Tensor:
        """The place of each patch in `order`: [B, N]."""
        return self.order.argsort(dim=1)

    @property
    def mask(self) -> Tensor:
        """[B, N]: 1 for a hidden patch, 0 for a visible one."""
        return (self.restore >= self.num_visible).float()


class MAE(nn.Module):
    """A ViT and its decoder.

    Args:
        vit: the encoder. Hybrids are refused: their stem mixes the pixels of neighbouring patches.
        config: the decoder and what it predicts.
        generator: source of the decoder's random initial weights.

    Raises: SettingsError if the encoder cannot leave out patches.
    """

    def __init__(
        self, vit: ViT, config: DecoderConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        config = config or DecoderConfig()
        require_maskable(vit.config)
        self.config = config
        self.vit, self.decoder = vit, Decoder(config, vit.config)
        # While a new decoder is fitted to trained weights, the encoder needs no gradients.
        self.encoder_frozen = False
        if vit.patch_embed.proj.weight.device.type != "meta":
            self.decoder.init_weights(generator)

    def masking(self, noise: Tensor, mask_ratio: float | None = None) -> Masking:
        """Hide the patches with the highest noise [B, N]: int(N · (1 - mask_ratio)) stay visible.

        Raises: SettingsError if no patch would be visible, or none hidden.
        """
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        return Masking(noise.argsort(dim=1), num_visible(noise.shape[1], ratio))

    def encode(self, images: Tensor, masking: Masking) -> Tensor:
        """The encoder's normed output for the visible patches of images [B, C, H, W]: [B, P + k, D] (`latent` in the source).

        Only the visible patches are projected; they keep their positions. Registers behind the patches are left out.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            return self._encode(images, masking)

    def _encode(self, images: Tensor, masking: Masking) -> Tensor:
        x = self.visible_tokens(images, masking)
        vit, layout = self.vit, self.vit.layout(images)
        rows = _rows(masking.visible, layout.num_prefix, layout.num_patches, layout.num_suffix)
        # Most encoders have the same positions in every block.
        places = vit.places(layout)
        selected = {id(place): place.select(rows) for place in places}
        for block, place in zip(vit.blocks, places, strict=True):
            x = block(x, selected[id(place)])
        latent: Tensor = vit.norm(x[:, : layout.num_prefix + masking.num_visible])
        return latent

    def visible_tokens(self, images: Tensor, masking: Masking) -> Tensor:
        """The tokens that enter the first block: prefix, visible patches, registers that follow them."""
        vit = self.vit
        pixels = rows_of(cut_patches(images, vit.config.patch.size), masking.visible)
        x = vit.patch_embed.project(pixels)
        if vit.positions is not None:
            table = vit.positions(vit.layout(images).grid).to(x)
            x = x + table[masking.visible]
        tokens: Tensor = vit.entry_norm(vit.dropout(vit.with_prefix(x)))
        return tokens

    def predict(self, images: Tensor, masking: Masking) -> Tensor:
        """The decoder's patches [B, N, V], hidden and visible, in the units of `targets`; channels vary fastest."""
        grid = self.vit.layout(images).grid
        predicted: Tensor = self.decoder(self.encode(images, masking), masking, grid)
        return predicted

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """The loss in training: the sum over the batch of the `errors`, as "pixels"."""
        return {"pixels": self.errors(images, noise).sum()}

    def errors(self, images: Tensor, noise: Tensor) -> Tensor:
        """The error of each image, averaged over its hidden patches: images [B, C, H, W], noise [B, N] → [B]."""
        self.require_whole_patches(images)
        masking = self.masking(noise)
        grid = self.vit.layout(images).grid
        predicted = self.decoder.hidden(self.encode(images, masking), masking, grid)
        wanted = self.targets(rows_of(self.patches(images), masking.hidden))
        return (predicted.float() - wanted.float()).square().mean(dim=(1, 2))

    def patches(self, images: Tensor) -> Tensor:
        """images [B, C, H, W] → [B, N, V], ordered by row in the patch, column, channel."""
        return patchify(images, self.vit.config.patch.size)

    def targets(self, patches: Tensor) -> Tensor:
        """What the decoder is to predict for patches [..., V]: their pixels, or those standardised in each patch."""
        return standardise(patches) if self.config.norm_targets else patches

    def require_whole_patches(self, images: Tensor) -> None:
        """Raises: SettingsError if images [B, C, H, W] cannot be cut into patches."""
        size, (rows, columns) = tuple(images.shape[-2:]), self.vit.config.patch.size
        if size[0] % rows or size[1] % columns:
            raise SettingsError(
                f"images of {size[0]} x {size[1]} pixels cannot be cut into patches of {rows} x {columns}",
                f"use images of {size[0] // rows * rows or rows} x {size[1] // columns * columns or columns}",
            )


class Decoder(nn.Module):
    """Blocks over all places of the image: encoded tokens where a patch was visible, one learned token elsewhere."""

    def __init__(self, config: DecoderConfig, encoder: ViTConfig) -> None:
        super().__init__()
        trunk = config.trunk(encoder)
        self.embed = Linear(encoder.dim, config.dim)
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        self.positions = added_positions(trunk)
        self.blocks = nn.ModuleList(Block(trunk, 0.0) for _ in range(config.depth))
        self.norm = make_norm(trunk.norm, config.dim)
        self.pred = Linear(config.dim, encoder.patch_pixels)
        self.num_prefix = trunk.tokens.num_prefix

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Glorot uniform for every linear layer, as the source; normal with std 0.02 for the mask token."""
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                for part in module.weight.chunk(3 if name.endswith("qkv") else 1):
                    nn.init.xavier_uniform_(part, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif callable(reset := getattr(module, "reset", None)):
                reset(generator)

    def forward(self, latent: Tensor, masking: Masking, grid: Grid) -> Tensor:
        """Predict every patch: latent [B, P + k, D] → [B, N, V]."""
        said = self._run(latent, masking, grid, rows=None)
        hidden = masking.order.shape[1] - masking.num_visible
        in_order = torch.cat((said[:, hidden + self.num_prefix :], said[:, :hidden]), dim=1)
        return rows_of(in_order, masking.restore)

    def hidden(self, latent: Tensor, masking: Masking, grid: Grid) -> Tensor:
        """Predict the hidden patches alone, in the order of `masking.hidden`: [B, N - k, V]."""
        return self._run(latent, masking, grid, rows=masking.order.shape[1] - masking.num_visible)

    def _run(self, latent: Tensor, masking: Masking, grid: Grid, rows: int | None) -> Tensor:
        """The prediction for each token of the sequence: hidden patches, prefix, visible patches.

        Attention does not depend on the order of its tokens. With the hidden ones in front, the last block can compute
        those alone. rows: compute so many only.
        """
        x: Tensor = self.embed(latent)
        table = self.positions(grid).to(x)
        front, visible = x[:, : self.num_prefix], x[:, self.num_prefix :] + table[masking.visible]
        if (prefix := self.positions.prefix) is not None:
            front = torch.cat((front[:, : len(prefix)] + prefix, front[:, len(prefix) :]), dim=1)
        hidden = self.mask_token.to(x) + table[masking.hidden]
        x = torch.cat((hidden, front, visible), dim=1)
        for index, block in enumerate(self.blocks):
            x = block(x, AttentionPositions(), rows if index == len(self.blocks) - 1 else None)
        predicted: Tensor = self.pred(self.norm(x))
        return predicted


def patchify(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut images [B, C, H, W] into [B, N, rows · columns · C], channel fastest (the order of MAE's targets)."""
    rows, columns = size
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, rows * columns * channels)


def unpatchify(patches: Tensor, size: tuple[int, int], grid: Grid) -> Tensor:
    """The inverse of `patchify`: [B, N, rows · columns · C] → [B, C, H, W]."""
    (rows, columns), (down, across) = size, grid
    cut = patches.reshape(len(patches), down, across, rows, columns, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, down * rows, across * columns)


def standardise(patches: Tensor) -> Tensor:
    """Patches [..., V] less their mean, over the root of their unbiased variance plus `TARGET_EPS`, each by itself."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + TARGET_EPS).sqrt()


def rows_of(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens [B, N, D] at indices [B, n] of each image: [B, n, D]."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


def _rows(visible: Tensor, num_prefix: int, num_patches: int, num_suffix: int) -> Tensor:
    """Indices in the complete sequence of prefix, visible patches and suffix: [B, n]."""
    before = torch.arange(num_prefix, device=visible.device).expand(len(visible), -1)
    after = torch.arange(num_suffix, device=visible.device).expand(len(visible), -1)
    return torch.cat((before, visible + num_prefix, after + num_prefix + num_patches), dim=1)
