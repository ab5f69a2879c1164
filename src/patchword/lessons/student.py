"""A ViT as a student might write it, in plain torch, with one mistake at a time."""

import typing
from typing import Literal

import torch
from torch import Tensor, nn

Mistake = Literal["none", "positions", "batch", "softmax", "residual", "probabilities"]
MISTAKES: tuple[Mistake, ...] = tuple(m for m in typing.get_args(Mistake) if m != "none")


class StudentAttention(nn.Module):
    """Self-attention [B, N, D] → [B, N, D], written out."""

    def __init__(self, dim: int, heads: int, mistake: Mistake) -> None:
        super().__init__()
        self.heads, self.mistake = heads, mistake
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.mistake == "batch":  # nn.MultiheadAttention without batch_first=True does this
            x = x.transpose(0, 1)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        weights = scores.softmax(dim=-2 if self.mistake == "softmax" else -1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return out.transpose(0, 1) if self.mistake == "batch" else out


class StudentBlock(nn.Module):
    """Attention and MLP, pre-norm."""

    def __init__(self, dim: int, heads: int, mistake: Mistake) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = StudentAttention(dim, heads, mistake)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.mistake = mistake

    def forward(self, x: Tensor) -> Tensor:
        branch = self.attention(self.norm1(x))
        x = branch if self.mistake == "residual" else x + branch
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class StudentViT(nn.Module):
    """Images [B, 1, 8, 8] → logits [B, 10]: patches of 2 x 2, width 32, 2 blocks of 2 heads, class token.

    mistake: "positions" never adds them; "batch" attends over the images of the batch; "softmax" normalises over queries;
    "residual" forgets the addition around attention; "probabilities" hands a softmax to a loss that takes logits.
    generator: source of the weights.
    """

    def __init__(self, mistake: Mistake = "none", generator: torch.Generator | None = None) -> None:
        super().__init__()
        dim = 32
        self.embed = nn.Linear(4, dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 17, dim))
        self.blocks = nn.ModuleList(StudentBlock(dim, 2, mistake) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)
        self.mistake = mistake
        for weight in (self.class_token, self.positions):
            nn.init.normal_(weight, std=0.02, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        pieces = images.reshape(len(images), 1, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5)
        patches = pieces.reshape(len(images), 16, 4)
        x = torch.cat((self.class_token.expand(len(images), -1, -1), self.embed(patches)), dim=1)
        if self.mistake != "positions":
            x = x + self.positions
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits.softmax(dim=-1) if self.mistake == "probabilities" else logits
