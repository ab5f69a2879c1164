"""The attention weights of the row that the head reads, by block and head."""

from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen
from patchword.explaining.methods.reading import final_row, over_patches, read_rows
from patchword.explaining.methods.record import Record
from patchword.model.kinds import AttentionPool


def attention(job: Job) -> list[Maps]:
    """One map per block and head; without `heads`, the mean of all heads.

    Only the read row of each block is kept. A model with an attention pool is read by the pool, so without `layers`
    the pool's weights are shown.
    """
    vit, settings = job.vit, job.settings
    depth = vit.config.depth
    record = job.recorded()
    rows = read_rows(vit, job.images, record)
    pools = isinstance(vit.config.head.pool, AttentionPool)
    if settings.layers is None and pools:
        places, heads = [depth], record.seen[depth].queries.shape[1]
    else:
        places = chosen(settings.layers, depth, "layer", depth - 1)
        heads = vit.config.attention.num_heads
    wanted = None if settings.heads is None else chosen(settings.heads, heads, "head", 0)
    found = []
    for place in places:
        weights = _row(record, place, rows, depth)
        where = "pool" if place == depth else f"block {place}"
        if wanted is None:
            found.append((f"attention, {where}", weights.mean(1)))
        else:
            found += [(f"attention, {where}, head {head}", weights[:, head]) for head in wanted]
    return [over_patches(vit, tokens, record.layout, label) for label, tokens in found]


def _row(record: Record, place: int, rows: dict[int, Tensor], depth: int) -> Tensor:
    """Weights [B, H, N] of the read row. The pool selects patches only, so its weights are spread over all tokens."""
    weights = record.seen[place].weights()
    if place < depth:
        row = final_row(rows)[:, None, None, : weights.shape[2]]
        return (row @ weights)[:, :, 0]
    spread = weights.new_zeros(*weights.shape[:2], record.layout.num_tokens)
    start = 0 if weights.shape[3] == record.layout.num_tokens else record.layout.num_prefix
    spread[:, :, start : start + weights.shape[3]] = weights[:, :, 0]
    return spread


METHOD = Method(
    name="attention",
    title="attention weights of the row that the head reads",
    class_aware=False,
    run=attention,
    passes=lambda config, settings: 1,
    uses=frozenset({"layers", "heads"}),
)
