"""Where a detector's queries look, for each object that it found.

- DETR: the last cross-attention of the object's query over the cells of the encoder, mean of the heads; and the relevance of
  those cells for the class that was found, which follows attention and its gradient through all layers.
- YOLOS: the last attention of the object's detection token over the patches, mean of the heads.
- The detector on a plain ViT reads a few points of its maps; the last layer's points with their weights.

Shapes: Q queries, N cells of h rows and w columns, P points. Source of relevance: Chefer, Gur and Wolf 2021, "Generic
Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers" (arXiv 2103.15679), section 3.2.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from patchword.data.loader import Named
from patchword.errors import DataError, ImageError
from patchword.images.geometry import Size
from patchword.images.prepare import read_pixels, read_sized
from patchword.images.preprocess import Preprocess
from patchword.inference.detections import Found, found_in, name_of
from patchword.inference.detector import Detector
from patchword.inference.failures import Failures
from patchword.model.detr.model import DETR
from patchword.model.detr.transformer import DecoderLayer, DetrAttention, EncoderLayer
from patchword.model.yolos import YOLOS

Map = NDArray[np.float32]
ATTENTION, RELEVANCE, POINTS = "attention", "relevance", "points"
DEFAULT_OBJECTS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """An object, and where its query looked.

    box: left, top, right, bottom in pixels of the upright image. maps: by method, [h, w] over the model's input, not negative;
    "attention" sums to 1. points [P, 3]: x and y in pixels of the model's input, and the weight; the weights sum to 1.
    """

    name: str
    id: int
    score: float
    box: NDArray[np.float64]
    query: int
    maps: dict[str, Map] = field(default_factory=dict)
    points: NDArray[np.float64] | None = None

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        left, top, right, bottom = self.box.round(2).tolist()
        found: dict[str, Any] = {"class": self.name, "id": self.id, "score": self.score, "query": self.query}
        found |= {"left": left, "top": top, "right": right, "bottom": bottom}
        found |= {method: one.astype(np.float64).round(6).tolist() for method, one in self.maps.items()}
        if self.points is not None:
            found[POINTS] = self.points.round(4).tolist()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Looked:
    """An image and what was found in it, the highest score first.

    pixels: the model's input as an image [H, W, C] uint8. size: (h, w) of the upright image. more: objects beyond those.
    """

    name: str
    pixels: NDArray[np.uint8]
    size: Size
    preprocess: Preprocess
    looks: tuple[Look, ...]
    more: int = 0

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        height, width = self.size
        objects = [look.numbers() for look in self.looks]
        return {"file": self.name, "width": width, "height": height, "more": self.more, "objects": objects}


def look_each(
    detector: Detector,
    sources: Sequence[Named],
    *,
    conf: float,
    objects: int = DEFAULT_OBJECTS,
    preprocess: Preprocess | None = None,
    max_pixels: int,
    failures: Failures | None = None,
) -> Iterator[Looked]:
    """Yield each image with where the queries of its surest objects looked.

    conf: the lowest score of an object. objects: at most so many of an image. preprocess: None for the detector's own.
    failures: takes unreadable images; without it, the first of them is raised.
    Raises: ImageError, DataError.
    """
    preprocess = preprocess or detector.preprocess
    for item in sources:
        try:
            source = item.fetch()
            image, size = read_sized(source, preprocess, name=item.name, max_pixels=max_pixels)
            if hasattr(source, "seek"):
                source.seek(0)
            pixels = read_pixels(source, preprocess, name=item.name, max_pixels=max_pixels)
        except (ImageError, DataError) as error:
            if failures is None:
                raise
            failures.add(item.name, error)
            continue
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
        batch = torch.from_numpy(image)[None].to(detector.device, detector.dtype)
        with torch.no_grad():
            values = detector.outputs(batch)[0].float().cpu().numpy()
        found = found_in(values, preprocess, size, one_class_each=detector.one_class_each)
        found = found.taken(found.scores >= conf)
        looks = _looks(detector, batch, found.taken(slice(objects)))
        yield Looked(
            name=item.name,
            pixels=pixels,
            size=size,
            preprocess=preprocess,
            looks=looks,
            more=max(len(found.labels) - objects, 0),
        )


def _looks(detector: Detector, image: Tensor, found: Found) -> tuple[Look, ...]:
    """image [1, C, H, W]."""
    model, queries = detector.model, found.queries.tolist()
    maps: list[dict[str, Map]] = [{} for _ in queries]
    points: list[NDArray[np.float64] | None] = [None] * len(queries)
    if queries and isinstance(model, DETR):
        attention, relevance = detr_maps(model, image, list(zip(queries, found.labels.tolist(), strict=True)))
        maps = [{ATTENTION: a, RELEVANCE: r} for a, r in zip(attention, relevance, strict=True)]
    elif queries and isinstance(model, YOLOS):
        maps = [{ATTENTION: one} for one in yolos_maps(model, image, queries)]
    elif queries:
        points = list(sampled_points(model, image, queries))
    rows = zip(queries, found.labels, found.scores.tolist(), found.boxes, maps, points, strict=True)
    return tuple(
        Look(
            name=name_of(detector.classes[label]),
            id=detector.classes[label].id,
            score=score,
            box=box,
            query=query,
            maps=by_method,
            points=places,
        )
        for query, label, score, box, by_method, places in rows
    )


def detr_maps(model: DETR, image: Tensor, chosen: Sequence[tuple[int, int]]) -> tuple[list[Map], list[Map]]:
    """Attention and relevance [h, w] of each chosen (query, class) in one image [1, C, H, W].

    Attention: of the last decoder layer, mean of the heads. Relevance: with Ā the mean over heads of attention times its gradient
    of the class's logit, negative values set to 0, and R starting from the identity (cells, queries) or zeros (queries to
    cells): each encoder layer R_ii += Ā R_ii; each decoder layer R_qq += Ā R_qq, R_qi += Ā R_qi, then
    R_qi += norm(R_qq)ᵀ Ā_cross norm(R_ii), where norm(R) = I + (R - I) with rows that sum to 1 (rows of zeros stay zeros).
    """
    with torch.no_grad():
        features, _ = model.features(image)
    grid = features.shape[-2], features.shape[-1]
    with _recorded(model) as reads, torch.enable_grad():
        memory, positions = model.encode(features.detach().requires_grad_(), None)
        logits = model.heads(model.decode(memory, positions, None)).logits[-1, 0]
        steps = [reads[module] for module in _attentions(model)]
        raw = steps[-1].weights.mean(0)
        attention = [_as_map(raw[query], grid) for query, _ in chosen]
        relevance = []
        for query, label in chosen:
            gradients = torch.autograd.grad(
                logits[query, label], [step.output for step in steps], retain_graph=True
            )
            cams = [step.cam(gradient) for step, gradient in zip(steps, gradients, strict=True)]
            of_cells = _relevance(cams, len(model.encoder.layers), model.config.num_queries)
            relevance.append(_as_map(of_cells[query], grid))
    return attention, relevance


def _attentions(model: DETR) -> list[nn.Module]:
    """Those of the encoder; then, of each decoder layer, that of the queries and that over the cells."""
    order: list[nn.Module] = []
    for layer in model.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        order.append(layer.attention)
    for layer in model.decoder.layers:
        assert isinstance(layer, DecoderLayer)
        order += [layer.attention, layer.cross_attention]
    return order


def _relevance(cams: Sequence[Tensor], encoder_layers: int, queries: int) -> Tensor:
    """R_qi [Q, N] from Ā of every attention, in the order of the layers.

    Kept without the identity, R = I + E, because E may be too small next to 1 for float32.
    """
    of_encoder, of_decoder = cams[:encoder_layers], cams[encoder_layers:]
    like = of_decoder[-1]
    cell_cell = like.new_zeros(like.shape[1], like.shape[1])
    for cam in of_encoder:
        cell_cell = cell_cell + cam + cam @ cell_cell
    query_query, query_cell = like.new_zeros(queries, queries), torch.zeros_like(like)
    normed = _normed(cell_cell)
    for own, cross in zip(of_decoder[::2], of_decoder[1::2], strict=True):
        query_query, query_cell = query_query + own + own @ query_query, query_cell + own @ query_cell
        query_cell = query_cell + _normed(query_query).T @ (cross @ normed)
    return query_cell


def _normed(rest: Tensor) -> Tensor:
    """I + E with the rows of E scaled to sum to 1."""
    total = rest.sum(-1, keepdim=True)
    scaled = torch.where(total > 0, rest / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
    return torch.eye(len(rest), device=rest.device, dtype=rest.dtype) + scaled


@dataclass(frozen=True)
class _Read:
    """One attention while the model ran. weights, values: [H, n, N] and [H, N, d], apart from the graph; output [1, n, D]: the
    joined heads before their projection, in the graph.
    """

    weights: Tensor
    values: Tensor
    output: Tensor

    def cam(self, gradient: Tensor) -> Tensor:
        """Ā [n, N]. The output is weights times values, so the gradient of the weights is that of the output times valuesᵀ."""
        heads, _, width = self.values.shape
        split = gradient[0].view(-1, heads, width).transpose(0, 1)
        of_weights = split @ self.values.transpose(-2, -1)
        return (self.weights * of_weights).clamp(min=0).mean(0)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[dict[nn.Module, _Read]]:
    """Record every attention of a DETR while it runs, with its fused kernel."""
    reads: dict[nn.Module, _Read] = {}
    parts: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = []
    for module in model.modules():
        if not isinstance(module, DetrAttention):
            continue

        def begin(attention: nn.Module, inputs: tuple[Any, ...]) -> None:
            assert isinstance(attention, DetrAttention)
            with torch.no_grad():
                parts[attention] = attention.weights_and_values(*inputs)

        def end(proj: nn.Module, inputs: tuple[Any, ...], attention: nn.Module = module) -> tuple[Any, ...]:
            weights, values = parts.pop(attention)
            # The first queries depend on weights alone, which may be frozen.
            output = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            reads[attention] = _Read(weights[0], values[0], output)
            return (output,)

        hooks += [module.register_forward_pre_hook(begin), module.proj.register_forward_pre_hook(end)]
    try:
        yield reads
    finally:
        for hook in hooks:
            hook.remove()


def yolos_maps(model: YOLOS, image: Tensor, queries: Sequence[int]) -> list[Map]:
    """The attention of detection tokens over the patches [h, w] in the last block, mean of the heads; each map sums to 1."""
    vit = model.backbone
    with torch.no_grad():
        _, layout = vit.embed_tokens(image)
        weights = vit.attention_maps(image, layers=[-1])
        rows = next(iter(weights.values()))[0].mean(0)[-model.config.num_queries :]
        # Tokens in the order of the model: prefix, patches, detection tokens.
        patches = vit.split(rows.T[None], layout)["patches"][0]
    return [_shares(patches[..., query].cpu().numpy()) for query in queries]


def sampled_points(model: Any, image: Tensor, queries: Sequence[int]) -> list[NDArray[np.float64]]:
    """The points [P, 3] that each query reads in the last layer, of all heads and maps: x and y in pixels of the input, weight."""
    cross, seen = model.layers[-1].cross, []
    hook = cross.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[:2]))
    try:
        with torch.no_grad():
            model(image)
    finally:
        hook.remove()
    x, boxes = (part[0, list(queries)].float() for part in seen[-1])
    shape = (len(queries), cross.heads, cross.maps, cross.points)
    with torch.no_grad():
        offsets = cross.offset(x).view(*shape, 2)
        weights = cross.weight(x).view(*shape[:2], -1).softmax(-1).view(shape) / cross.heads
    centre, sides = boxes[:, None, None, None, :2], boxes[:, None, None, None, 2:]
    # An offset of 1 is half of the box's side.
    places = (centre + 0.5 * offsets * sides) * torch.tensor(image.shape[:1:-1], device=image.device)
    joined = torch.cat((places, weights[..., None]), -1).flatten(1, 3)
    return list(joined.double().cpu().numpy())


def _as_map(values: Tensor, grid: Size) -> Map:
    found: Map = values.detach().float().view(grid).cpu().numpy()
    return found


def _shares(values: NDArray[Any]) -> Map:
    shares: Map = (values / max(float(values.sum()), np.finfo(np.float32).tiny)).astype(np.float32)
    return shares
