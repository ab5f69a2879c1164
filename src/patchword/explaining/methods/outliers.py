"""Outlying patch tokens: a few with a norm far above the others, which hold no local information.

Source: Darcet et al. 2024 (arXiv 2309.16588), section 2. Their cut of 150 is one of their model; here it is relative.
"""

from torch import Tensor

from patchword.explaining.methods.base import Job, Maps, Method, chosen

# An outlier's norm exceeds this many times the median over the patches of its image.
CUT = 4.0


def outliers(job: Job) -> list[Maps]:
    """The norm of each patch token as it leaves the block, before the final norm, which would level them.

    facts: "outliers" counts norms above 4 times the median; "median", "largest".
    """
    vit = job.vit
    layers = chosen(job.settings.layers, vit.config.depth, "layer", vit.config.depth - 1)
    layout = vit.layout(job.images)
    found = []
    for layer, tokens in vit.encode(job.images, layers, normed=False).items():
        norms = vit.split(tokens, layout)["patches"].norm(dim=-1)
        flat = norms.flatten(1)
        facts = {
            "outliers": outlying(norms).flatten(1).sum(1).to(norms.dtype),
            "median": flat.median(1).values,
            "largest": flat.amax(1),
        }
        found.append(Maps(label=f"outliers, block {layer}", values=norms, facts=facts))
    return found


def outlying(norms: Tensor) -> Tensor:
    """Which norms [B, h, w] exceed the cut."""
    median = norms.flatten(1).median(1).values
    return norms > CUT * median[:, None, None]


METHOD = Method(
    name="outliers",
    title="norms of patch tokens, outliers counted",
    class_aware=False,
    scored=False,
    run=outliers,
    passes=lambda config, settings: 1,
    uses=frozenset({"layers"}),
)
