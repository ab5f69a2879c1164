"""One model under test: built anew for every probe, with images, tapes and its repeated part."""

import contextlib
import copy
import functools
import io
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from patchword.diagnosis.redraw import Role, redraw, roles
from patchword.diagnosis.tape import Change, Tape
from patchword.diagnosis.trunk import Trunk, changed_tokens, find_trunk
from patchword.diagnosis.walk import convert_hidden, hidden_tensors, modules_in, tensors_in

Factory = Callable[[], nn.Module]
_SEED = 7
_DRAWN = 11
# Seconds of one pass over the usual images, from which on probes look at fewer tokens and no training is tried.
_SLOW = 0.5
_ALL_TOKENS = 80


@dataclass(eq=False)
class Case:
    """A model and how to run it.

    build: returns a new model each time. size: (rows, columns) of its images. batch: images per pass. only_batch: the
    model runs with this number of images alone. known: what earlier probes established, so that later ones do not report
    its consequences. left_out: the path of a list of blocks, and those that are not run because the model is slow. dtype: float64 wherever the model runs in it; tolerance: relative.
    """

    build: Factory
    size: tuple[int, int]
    channels: int
    batch: int = 5
    only_batch: bool = False
    dtype: torch.dtype = torch.float64
    used: dict[str, Role] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    left_out: tuple[str, tuple[int, ...]] = ("", ())

    @property
    def tolerance(self) -> float:
        return 1e-9 if self.dtype == torch.float64 else 2e-5

    # Models ------------------------------------------------------------------------------

    def fresh(
        self, *, drawn: bool = True, train: bool = False, dtype: torch.dtype | None = None
    ) -> nn.Module:
        """A new model. drawn: with weights drawn to unit gain (`redraw.py`), else with those that it starts with."""
        with seeded(_SEED):
            module = self.build()
        self._shorten(module)
        module.to(dtype or self.dtype)
        convert_hidden(module, dtype or self.dtype)
        for _, part, _ in modules_in(module):
            part.train(train)
        if drawn:
            redraw(module, self.used, _DRAWN)
        return module

    def _shorten(self, module: nn.Module) -> None:
        path, indices = self.left_out
        if indices:
            blocks = module.get_submodule(path)
            assert isinstance(blocks, nn.ModuleList | nn.Sequential)
            for index in sorted(indices, reverse=True):
                del blocks[index]

    @functools.cached_property
    def drawn(self) -> nn.Module:
        return self.fresh()

    @functools.cached_property
    def original(self) -> nn.Module:
        return self.fresh(drawn=False)

    # Images ------------------------------------------------------------------------------

    def images(self, count: int | None = None, seed: int = 0) -> Tensor:
        """Noise images [count, channels, rows, columns] with mean 0 and deviation 1."""
        generator = torch.Generator().manual_seed(1000 + seed)
        shape = (self.batch if count is None else count, self.channels, *self.size)
        return torch.randn(shape, generator=generator).to(self.dtype)

    def noise(self, like: Tensor, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(2000 + seed)
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    # Passes ------------------------------------------------------------------------------

    def logits(self, module: nn.Module, images: Tensor, seed: int = _SEED) -> Tensor:
        """Logits [B, outputs] without a gradient."""
        with torch.no_grad(), seeded(seed):
            return logits_of(module(images))

    def tape(
        self,
        module: nn.Module,
        images: Tensor,
        *,
        changes: dict[int, Change] | None = None,
        permutation: Tensor | None = None,
        seed: int = _SEED,
    ) -> Tape:
        """Record one pass, with a gradient unless torch.no_grad() is active."""
        tape = Tape(changes, permutation)
        with seeded(seed), tape.recording(module):
            result = module(images)
        tape.outputs, tape.logits = list(tensors_in(result)), logits_of(result)
        return tape

    @functools.cached_property
    def pass_(self) -> Tape:
        """The pass of the re-drawn model over the usual images, with gradients with respect to the images."""
        return self.tape(self.drawn, self.images().requires_grad_())

    @functools.cached_property
    def trunk(self) -> Trunk | None:
        return find_trunk(self.pass_, self.drawn, self.batch)

    @functools.cached_property
    def slow(self) -> bool:
        start = time.process_time()  # of this process: other programs do not count
        self.logits(self.drawn, self.images())
        return time.process_time() - start > _SLOW

    def from_tokens(self, module: nn.Module, tokens: Tensor, *, permutation: Tensor | None = None) -> Tape:
        """Record a pass in which `tokens` enter the first block, whatever the images are."""
        assert self.trunk is not None
        changes: dict[int, Change] = {self.trunk.entrance: lambda _: tokens.clone()}
        return self.tape(module, self.images(), changes=changes, permutation=permutation)

    @functools.cached_property
    def prefix(self) -> tuple[int, ...]:
        """The tokens at the entrance that do not change with the image."""
        if self.trunk is None:
            return ()
        trunk = self.trunk
        with torch.no_grad():
            other = self.tape(self.drawn, self.images(seed=1)).ops[trunk.entrance].output
        changed = changed_tokens(trunk.tokens.detach(), other, trunk.token_axis, self.tolerance)
        return tuple(i for i in range(trunk.count) if i not in changed)

    @functools.cached_property
    def supports(self) -> dict[int, Tensor]:
        """For patch tokens at the entrance: the values [channels, rows, columns] that they depend on. Of many tokens, eight."""
        if self.trunk is None:
            return {}
        images = self.images().requires_grad_()
        tokens = self.tape(self.drawn, images).ops[self.trunk.entrance].output
        if not tokens.requires_grad:
            return {}
        patches = [i for i in range(self.trunk.count) if i not in self.prefix]
        if len(patches) > _ALL_TOKENS:
            side, last = math.isqrt(len(patches)), len(patches) - 1
            chosen = {0, 1, 2, side, last // 2, last // 2 + 1, last - 1, last}
            patches = [patches[i] for i in sorted(chosen)]
        found: dict[int, Tensor] = {}
        weights = self.noise(tokens[:, 0] if self.trunk.token_axis else tokens[0])
        for index in patches:
            one = tokens.select(self.trunk.token_axis, index)
            (given,) = torch.autograd.grad(
                (one * weights).sum(), images, retain_graph=True, allow_unused=True
            )
            found[index] = (
                torch.zeros_like(images[0], dtype=torch.bool) if given is None else (given != 0).any(0)
            )
        return found


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what the student's code prints and warns of: it runs a hundred times."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class NoLogits(TypeError):
    """The model runs, but returns no tensor [batch, outputs]."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The student's own random parts repeat; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def logits_of(result: object) -> Tensor:
    """The first tensor [B, outputs] of what a model returns: itself, or in a tuple, dict or object.

    Raises: NoLogits if there is none.
    """
    named = result.get("logits") if isinstance(result, dict) else getattr(result, "logits", None)
    for tensor in [*tensors_in(named), *tensors_in(result)]:
        if tensor.ndim == 2 and tensor.is_floating_point():
            return tensor
    raise NoLogits(f"returns {_shapes(result)}")


def _shapes(result: object) -> str:
    found = list(tensors_in(result))
    return "tensors " + ", ".join(str(list(t.shape)) for t in found) if found else type(result).__name__


def copier(module: nn.Module) -> Factory:
    """Build by copying a module. Tensors that are results of a computation, which Python refuses to copy, are detached."""

    def build() -> nn.Module:
        memo: dict[int, object] = {}
        for _, tensor in hidden_tensors(module):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return copy.deepcopy(module, memo)

    return build


def make_case(build: Factory, size: tuple[int, int], channels: int, batch: int, *, only_batch: bool) -> Case:
    """Choose float64 where the model runs in it, and learn how its weights are used."""
    case = Case(build, size, channels, batch, only_batch)
    for dtype in (torch.float64, torch.float32):
        case.dtype = dtype
        try:
            module = case.fresh(drawn=False)
            tape = case.tape(module, case.images())
            if tape.logits.dtype != dtype:
                raise TypeError(f"returns {tape.logits.dtype}")
        except Exception:
            if dtype == torch.float32:
                raise
            continue
        case.used = roles(tape, module)
        return _shorter(case) if case.slow else case
    return case


def _shorter(case: Case) -> Case:
    """Of a slow model: two images, and of many blocks the first two and the last."""
    if not case.only_batch:
        case = replace(case, batch=2)
    trunk = case.trunk
    modules = {path: module for path, module, _ in modules_in(case.drawn)}
    blocks = modules.get(trunk.path) if trunk else None
    if trunk is None or not isinstance(blocks, nn.ModuleList | nn.Sequential):
        return case
    if (
        len(blocks) != len(trunk.entries)
        or len(blocks) < 4
        or len({id(block) for block in blocks}) < len(blocks)
    ):
        return case
    short = replace(case, left_out=(trunk.path, tuple(range(2, len(blocks) - 1))))
    try:
        module = short.fresh(drawn=False)
        short.used = roles(short.tape(module, short.images()), module)
    # A model may count its blocks itself.
    except Exception:
        return case
    return short
