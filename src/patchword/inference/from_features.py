"""A model's outputs for a split from cached features: the head alone is computed."""

from collections.abc import Iterator

import torch

from patchword import machine
from patchword.data.dataset import Split
from patchword.errors import ImageError
from patchword.inference.engine import Output
from patchword.inference.model import Model
from patchword.probes.cache import FeatureCache
from patchword.probes.features import features


def head_on_features(model: Model, split: Split) -> Iterator[Output]:
    """The logits of each image in order. Features that the cache lacks are computed.

    Only for a model with one head, which reads what `head_input` returns.
    """
    vit = model.vit
    assert vit.head is not None and vit.head_distillation is None
    found = features(
        vit,
        model.preprocess,
        split,
        workers=machine.granted_cores(),
        device=model.device,
        cache=FeatureCache(),
    )
    with torch.inference_mode():
        values = torch.from_numpy(found.values).to(model.device, vit.head.weight.dtype)
        logits = vit.head(values).float().cpu().numpy()
    outputs = {
        index: Output(
            index=index,
            name=split.names[index],
            values=row,
            # Files that differ are different images, whatever their brightness.
            brightness=float(int.from_bytes(content[:6], "big")),
        )
        for index, row, content in zip(found.indices.tolist(), logits, found.contents, strict=True)
    }
    for failure in found.failures:
        error = ImageError(failure.reason, "fix or remove the image")
        outputs[failure.index] = Output(index=failure.index, name=failure.name, error=error)
    yield from (outputs[index] for index in sorted(outputs))
