"""torch.compile takes the whole model as one graph, on a CPU too."""

import torch

from patchword.model.config import HeadConfig
from patchword.model.kinds import AttentionPool, SinCos2d
from patchword.model.vit import ViT
from support.vit_configs import tiny


def test_the_model_compiles_without_a_graph_break() -> None:
    """`fullgraph` refuses any break. The backend runs the graph as it is, so no compiler is needed."""
    config = tiny(depth=1, positions=SinCos2d(), head=HeadConfig(pool=AttentionPool(), num_classes=5))
    model, x = ViT(config).eval(), torch.randn(2, 3, *config.image.size)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(x)
        assert torch.allclose(compiled, model(x), atol=1e-5)
