"""What a head over several blocks reads, and in which order."""

import torch

from patchword.model.kinds import JoinedPool
from patchword.model.vit import ViT
from support.vit_configs import ALL


def test_a_joined_pool_reads_class_tokens_from_first_to_last_block_then_the_mean_of_the_patches() -> None:
    config = next(
        c
        for c in ALL.values()
        if isinstance(pool := c.head.pool, JoinedPool)
        and pool.class_layers == 2
        and pool.mean
        and not pool.interleaved
    )
    model = ViT(config, torch.Generator().manual_seed(0)).eval()
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, tokens: seen.append(tokens))
    size = config.image.size
    images = torch.rand(2, config.image.channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        embedding = model.embed(images)
        earlier, last = (model.norm(tokens) for tokens in seen[-2:])
        patches = model.layout(images).select(last, "patches")
        joined = torch.cat((earlier[:, 0], last[:, 0], patches.mean(1)), -1)
        torch.testing.assert_close(embedding, model.pooled_norm(joined))
