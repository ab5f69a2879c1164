"""The parameter count of a plain ViT of these sizes, next to the model's own."""

from torch import nn

from patchword.diagnosis.case import Case
from patchword.diagnosis.redraw import PRODUCTS


def count_line(case: Case) -> str:
    """One line: the count, the formula's, and what the difference may be. Without a repeated part, the count alone."""
    own = sum(p.numel() for p in case.build().parameters())
    sizes = _sizes(case, case.drawn)
    if sizes is None:
        return f"{own:,} parameters"
    dim, depth, tokens, pixels, hidden, classes = sizes
    block = 4 * dim * dim + 2 * dim * hidden + 9 * dim + hidden
    plain = dim * (pixels + 1) + dim + tokens * dim + depth * block + 2 * dim + classes * (dim + 1)
    form = f"plain ViT with width {dim}, {depth} blocks, {tokens} tokens, MLP {hidden}, {classes} outputs"
    if own == plain:
        return f"{own:,} parameters, as the formula for a {form}"
    gap = own - plain
    return f"{own:,} parameters; a {form} has {plain:,} ({gap:+,}{_reading(gap, dim, depth, tokens, block, classes)})"


def _reading(gap: int, dim: int, depth: int, tokens: int, block: int, classes: int) -> str:
    known = {
        -dim: ": no class token, or no position for it",
        -tokens * dim: ": no positions",
        -(tokens * dim + dim): ": neither class token nor positions",
        -(depth - 1) * block: ": one block for all",
        -depth * block: ": no weights of the blocks",
        dim * dim: ": one more square matrix",
        -2 * dim: ": no norm before the head",
        -depth * 3 * dim: ": no bias on q, k and v",
        -depth * 4 * dim: ": no norms in the blocks, or no biases in attention",
        -dim * dim * depth: ": one matrix per block is missing",
        -(dim * dim + dim) * depth: ": one linear layer per block is missing",
        dim * dim + dim: ": one more linear layer",
        -(tokens - 1) * dim: ": positions have one row",
    }
    return known.get(gap, "")


def _sizes(case: Case, module: nn.Module) -> tuple[int, int, int, int, int, int] | None:
    """Width, depth, tokens with the class token, values of a patch, MLP width and classes."""
    trunk = case.trunk
    if trunk is None:
        return None
    products = [op for op in trunk.ops(case.pass_) if op.name == "linear" and trunk.block_of(op) == 0]
    attention = next((a.op for a in case.pass_.attentions if a.op > trunk.entrance), None)
    after = [op for op in products if attention is not None and op.index > attention]
    hidden = max((op.output.shape[-1] for op in after), default=4 * trunk.width)
    embedding = [op for op in case.pass_.ops[: trunk.entrance + 1] if op.name in PRODUCTS]
    if not embedding or len(embedding[0].inputs) < 2:
        return None
    pixels = embedding[0].inputs[1][0].numel()
    patches = trunk.count - len(case.prefix)
    depth = len(trunk.entries) + len(case.left_out[1])
    return trunk.width, depth, patches + 1, pixels, hidden, case.pass_.logits.shape[1]
