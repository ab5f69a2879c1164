"""A small ViT as a student would write it, and what can go wrong in it: one class with switches, and other layouts."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, PATCH, WIDTH, HEADS, DEPTH, CLASSES = 32, 8, 64, 4, 2, 10
GRID = SIZE // PATCH
TOKENS = GRID * GRID + 1


class Attention(nn.Module):
    def __init__(self, fault: str = "", width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.fault, self.heads = fault, heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        if fault == "one matrix for q and k":
            self.k = self.q
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        if self.fault in ("heads split by view", "heads split and joined by view"):
            return x.view(b, self.heads, n, d // self.heads)
        if self.fault == "attention over heads":
            return x.view(b, n, self.heads, d // self.heads)
        return x.view(b, n, self.heads, d // self.heads).transpose(1, 2)

    def join(self, x: Tensor, shape: torch.Size) -> Tensor:
        if self.fault in (
            "heads joined without transpose",
            "heads split and joined by view",
            "attention over heads",
        ):
            return x.reshape(shape)
        return x.transpose(1, 2).reshape(shape)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        head, width = q.shape[-1], x.shape[-1]
        scale = {
            "no scale": 1.0,
            "scale by model width": width**-0.5,
            "scale by number of heads": self.heads**-0.5,
            "scale the wrong way round": head**0.5,
            "scale by head width without root": 1 / head,
            "scale after softmax": 1.0,
        }.get(self.fault, head**-0.5)
        scores = q @ k.transpose(-2, -1) * scale
        if self.fault == "causal mask":
            n = scores.shape[-1]
            scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
        axis = {"softmax over queries": -2, "softmax over heads": 1, "softmax over the batch": 0}
        weights = scores.softmax(axis.get(self.fault, -1))
        if self.fault == "scale after softmax":
            weights = weights * head**-0.5
        if self.fault == "keys instead of values":
            v = k
        return self.out(self.join(weights @ v, x.shape))


class Block(nn.Module):
    def __init__(self, fault: str = "", width: int = WIDTH, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        if fault == "norm over tokens and channels":
            self.norm1 = nn.LayerNorm([TOKENS, width])
        if fault == "one norm for both places":
            self.norm2 = self.norm1
        if fault in ("no norm in the blocks", "no norm before attention"):
            self.norm1 = nn.Identity()
        if fault in ("no norm in the blocks", "no norm before the MLP"):
            self.norm2 = nn.Identity()
        self.attention = attention or Attention(fault, width)
        act: nn.Module = nn.Identity() if fault == "no activation" else nn.GELU()
        rate = 0.9 if fault == "dropout as the share to keep" else 0.0
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), act, nn.Dropout(rate), nn.Linear(4 * width, width)
        )
        if fault == "batch norm over tokens":
            self.norm1 = TokenBatchNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "no residual around attention":
            x = self.attention(self.norm1(x))
        elif self.fault == "post-norm":
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.mlp(x))
        elif self.fault == "residual after the norm":
            x = self.norm1(x)
            x = x + self.attention(x)
            x = self.norm2(x)
            return x + self.mlp(x)
        else:
            x = x + self.attention(self.norm1(x))
        if self.fault == "functional dropout":
            x = F.dropout(x, 0.1)
        if self.fault == "no residual around the MLP":
            return self.mlp(self.norm2(x))
        return x + self.mlp(self.norm2(x))


class TokenBatchNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class SequenceFirst(nn.Module):
    """torch's attention with its default layout, on [batch, tokens, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class StudentViT(nn.Module):
    """A plain pre-norm ViT; `fault` switches one mistake on."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        pixels = 3 * PATCH * PATCH
        self.embed: nn.Module = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        if fault in ("image.view into patches", "rows and columns mixed", "height and width swapped"):
            self.embed = nn.Linear(pixels, WIDTH)
        elif fault == "channels not moved":
            self.embed = nn.Linear(PATCH * PATCH, WIDTH)
        rows = {
            "one position row": 1,
            "rows shifted": TOKENS + 1,
            "positions lack the class token": TOKENS - 1,
        }
        batch = 8 if fault == "batch size in the tokens" else 1
        count = 49 if fault == "channels not moved" else TOKENS
        self.cls = nn.Parameter(torch.randn(batch, 1, WIDTH) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, rows.get(fault, count), WIDTH) * 0.02)
        self._hide()
        self._blocks()
        self.norm: nn.Module = nn.Identity() if fault == "no norm before the head" else nn.LayerNorm(WIDTH)
        self.head: nn.Module = nn.Linear(WIDTH, CLASSES)
        if fault == "two linear layers as head":
            self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES))
        if fault == "frozen by accident":
            self.embed.requires_grad_(False)
        if fault == "weights from N(0, 1)":
            for parameter in self.parameters():
                nn.init.normal_(parameter)

    def _hide(self) -> None:
        if self.fault == "positions in a list":
            self.tables = [torch.randn(1, TOKENS, WIDTH, requires_grad=True)]
            del self.positions
        if self.fault == "positions per image":
            self.positions = nn.Parameter(torch.randn(64, TOKENS, WIDTH) * 0.02)
        if self.fault == "a parameter moved to a device":
            del self.cls
            self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH)).to("cpu")

    def _blocks(self) -> None:
        fault = self.fault
        made = [self._block() for _ in range(DEPTH)]
        if fault == "blocks in a list":
            self.blocks = made
        elif fault == "the same block everywhere":
            self.blocks = nn.ModuleList([made[0]] * DEPTH)
        else:
            self.blocks = nn.ModuleList(made)
        if fault == "one block in a loop":
            self.blocks = nn.ModuleList(made[:1])

    def _block(self) -> Block:
        return Block(self.fault, attention=SequenceFirst() if self.fault == "sequence first" else None)

    def patches(self, images: Tensor) -> Tensor:
        b, n = len(images), GRID * GRID
        match self.fault:
            case "image.view into patches":
                return self.embed(images.view(b, n, -1))
            case "channels not moved":
                cut = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
                return self.embed(cut.reshape(b, 3 * n, PATCH * PATCH))
            case "rows and columns mixed":
                cut = images.view(b, 3, GRID, PATCH, GRID, PATCH)
                return self.embed(cut.permute(0, 3, 5, 2, 4, 1).reshape(b, n, -1))
            case "height and width swapped":
                cut = images.view(b, 3, GRID, PATCH, GRID, PATCH)
                return self.embed(cut.permute(0, 4, 2, 3, 5, 1).reshape(b, n, -1))
            case "convolution reshaped":
                return self.embed(images).reshape(b, n, WIDTH)
            case "last rows lost":
                return (
                    F.pad(self.embed(images[:, :, : SIZE - PATCH]), (0, 0, 0, 1)).flatten(2).transpose(1, 2)
                )
            case "one channel only":
                return self.embed(images[:, :1].expand(-1, 3, -1, -1)).flatten(2).transpose(1, 2)
        return self.embed(images).flatten(2).transpose(1, 2)

    def tokens(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        b = len(x)
        cls = self.cls if self.fault == "batch size in the tokens" else self.cls.expand(b, -1, -1)
        match self.fault:
            case "class token drawn in forward":
                cls = torch.randn(b, 1, WIDTH)
            case "class token appended":
                return torch.cat([x, cls], 1) + self.positions
            case "class token never used":
                return x + self.positions[:, 1:]
            case "class token repeated per image":
                cls = self.cls.repeat(b, 1, 1)
            case "positions never added":
                return torch.cat([cls, x], 1)
            case "positions dropped":
                x + self.positions[:, 1:]
                return torch.cat([cls, x], 1)
            case "positions in a list":
                return torch.cat([cls, x], 1) + self.tables[0]
            case "positions per image":
                return torch.cat([cls, x], 1) + self.positions[:b]
            case "positions by index":
                return torch.cat([cls, x], 1) + self.positions[:, 3]
            case "rows shifted":
                return torch.cat([cls, x], 1) + self.positions[:, 1:]
            case "positions lack the class token":
                return torch.cat([cls, x + self.positions], 1)
        return torch.cat([cls, x], 1) + self.positions[:, : x.shape[1] + 1]

    def forward(self, images: Tensor) -> Tensor:
        x = self.tokens(images)
        for _ in range(DEPTH if self.fault == "one block in a loop" else 1):
            for block in self.blocks:
                x = block(x)
        if self.fault == "output detached":
            x = x.detach()
        x = self.norm(x)
        x = x[:, -1] if self.fault == "last token read" else x[:, 0]
        logits = self.head(x)
        match self.fault:
            case "softmax before the loss":
                return logits.softmax(-1)
            case "tanh at the output":
                return logits.tanh()
            case "squeezed":
                return logits.squeeze()
            case "batch averaged":
                return logits - logits.mean(0)
        return logits


class ExamplesViT(nn.Module):
    """The mistakes of a well-known example, rewritten: tokens per batch slot, one row of positions, attention over the batch."""

    def __init__(self, batch: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.randn(batch, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(batch, 1, WIDTH))
        self.layers = nn.ModuleList(ExamplesLayer() for _ in range(DEPTH))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token, x], 1) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class ExamplesLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y)[0]
        return x + self.mlp(self.norm(x))


# Correct models in other layouts -----------------------------------------------------------


class PairsViT(nn.Module):
    """Blocks as pairs of modules whose residual is added in the model's forward; one linear layer makes patches."""

    def __init__(self, mean: bool = False, fused: bool = False) -> None:
        super().__init__()
        self.mean, self.fused = mean, fused
        self.embed = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, WIDTH), nn.LayerNorm(WIDTH))
        self.cls = nn.Parameter(torch.zeros(WIDTH))
        self.positions = nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.layers = nn.ModuleList()
        for _ in range(DEPTH):
            pre = nn.LayerNorm(WIDTH)
            attention = FusedAttention() if fused else Attention()
            mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH))
            self.layers.append(nn.ModuleList([pre, attention, mlp]))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        b, c, _, _ = images.shape
        x = images.view(b, c, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        x = x.reshape(b, GRID * GRID, -1)
        x = torch.cat([self.cls.expand(b, 1, -1), self.embed(x)], 1)
        x += self.positions
        for pre, attention, mlp in self.layers:
            x = attention(pre(x)) + x
            x = mlp(x) + x
        x = x.mean(1) if self.mean else x[:, 0]
        return self.head(self.norm(x))


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = (
            nn.Parameter(torch.randn(WIDTH, HEADS, WIDTH // HEADS) * WIDTH**-0.5) for _ in range(3)
        )
        self.wo = nn.Parameter(torch.randn(HEADS, WIDTH // HEADS, WIDTH) * WIDTH**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bnd,dhe->bhne", x, w) for w in (self.wq, self.wk, self.wv))
        scores = torch.einsum("bhqe,bhke->bhqk", q, k) / math.sqrt(WIDTH // HEADS)
        mixed = torch.einsum("bhqk,bhke->bqhe", torch.softmax(scores, dim=-1), v)
        return torch.einsum("bqhe,hed->bqd", mixed, self.wo)


class TorchEncoderViT(nn.Module):
    """nn.TransformerEncoder, batch first or sequence first."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = True, mean: bool = False) -> None:
        super().__init__()
        self.batch_first, self.mean = batch_first, mean
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 128, 0.1, "gelu", batch_first=batch_first, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(
            layer, DEPTH, nn.LayerNorm(WIDTH) if norm_first else None, enable_nested_tensor=False
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        x = self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.head(x.mean(1) if self.mean else x[:, 0])


class Float32Only(StudentViT):
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.float32:
            raise TypeError("float32 images, please")
        return super().forward(images)


def sine_table(rows: int, width: int) -> Tensor:
    angles = torch.arange(rows)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class SineViT(StudentViT):
    """A fixed table as a buffer, and mean pooling without a class token."""

    def __init__(self) -> None:
        super().__init__()
        del self.cls, self.positions
        self.register_buffer("table", sine_table(TOKENS - 1, WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images) + self.table
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class EinsumViT(StudentViT):
    def _block(self) -> Block:
        return Block(attention=EinsumAttention())


class ManyOutputs(StudentViT):
    """Returns a dict with more than logits."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"pixels": images, "logits": super().forward(images)}


CORRECT: dict[str, Callable[[], nn.Module]] = {
    "plain": StudentViT,
    "class token repeated": lambda: StudentViT("class token repeated per image"),
    "positions of patches alone": lambda: StudentViT("positions lack the class token"),
    "pairs of modules": PairsViT,
    "pairs, mean, fused": lambda: PairsViT(mean=True, fused=True),
    "encoder": TorchEncoderViT,
    "encoder, sequence first": lambda: TorchEncoderViT(batch_first=False),
    "encoder, post-norm": lambda: TorchEncoderViT(norm_first=False),
    "encoder, mean": lambda: TorchEncoderViT(mean=True),
    "float32 only": Float32Only,
    "sine table": SineViT,
    "einsum": EinsumViT,
    "dict": ManyOutputs,
}
