"""A record of one forward pass of any module: every operation, every module call, every attention.

The module's source is never read. A torch function mode sees each operation on tensors. It does not reach inside torch's
own Python functions, so the functions that `nn.MultiheadAttention` calls there are replaced as long as the tape runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from patchword.diagnosis.walk import paths_of, tensors_in

Change = Callable[[Tensor], Tensor]
_INNER = ("softmax", "scaled_dot_product_attention", "linear")


@dataclass
class Op:
    """One operation. name: without underscores, so `x + y` and `torch.add` are both "add".

    calls: indices of the module calls around it, outermost first.
    """

    index: int
    name: str
    calls: tuple[int, ...]
    inputs: list[Tensor]
    outputs: list[Tensor]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    def argument(self, position: int, name: str) -> Any:
        if name in self.keywords:
            return self.keywords[name]
        return self.arguments[position] if position < len(self.arguments) else None


@dataclass
class Call:
    """One call of a module. start, stop: it ran the operations start ≤ index < stop."""

    index: int
    path: str
    module: nn.Module
    parents: tuple[int, ...]
    start: int
    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    stop: int = 0


@dataclass
class Attention:
    """One softmax over scores, or one fused attention.

    op: its index. axis: the axis of the keys, counted from the end. q, k, v [..., tokens, head width] if fused.
    replaced: whether the permutation of the tape took the place of its weights.
    """

    op: int
    path: str
    calls: tuple[int, ...]
    scores: Tensor
    axis: int
    fused: tuple[Tensor, Tensor, Tensor] | None
    replaced: bool


class Tape(TorchFunctionMode):
    """Record what runs inside `with tape.recording(module):`.

    changes: what takes the place of the output of the operation with this index.
    permutation: [N]; square attention weights over N tokens are replaced, so that token i reads token permutation[i] alone.
    """

    def __init__(self, changes: dict[int, Change] | None = None, permutation: Tensor | None = None) -> None:
        super().__init__()
        self.changes = changes or {}
        self.permutation = permutation
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.attentions: list[Attention] = []
        self.logits: Tensor = torch.empty(0)
        self.outputs: list[Tensor] = []
        self._open: list[int] = []
        self._inside = 0
        self._paths: dict[int, str] = {}
        self._holders: dict[int, list[tuple[list[Tensor], int]]] = {}

    # Recording ---------------------------------------------------------------------------

    @contextmanager
    def recording(self, module: nn.Module) -> Iterator["Tape"]:
        self._paths = paths_of(module)
        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        originals = {name: getattr(F, name) for name in _INNER}
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        for name, original in originals.items():
            setattr(F, name, self._seen(original))
        try:
            with self:
                yield self
        finally:
            for name, original in originals.items():
                setattr(F, name, original)
            torch.backends.mha.set_fastpath_enabled(fast)
            for hook in hooks:
                hook.remove()

    def _seen(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            # Outside torch's own functions the mode sees the call by itself.
            return self._run(original, args, kwargs) if self._inside else original(*args, **kwargs)

        return called

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._run(func, args, kwargs or {})

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._paths.get(id(module), type(module).__name__)
        call = Call(len(self.calls), path, module, tuple(self._open), len(self.ops), list(tensors_in(args)))
        self._hold(call.inputs)
        self.calls.append(call)
        self._open.append(call.index)

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        call = self.calls[self._open.pop()]
        call.stop, call.outputs = len(self.ops), list(tensors_in(result))
        self._hold(call.outputs)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = _name_of(func)
        inputs = list(tensors_in((args, kwargs)))
        if inputs and _in_place(func):
            self._preserve(inputs[0])
        self._inside += 1
        try:
            result = self._attend(name, func, args, kwargs)
        finally:
            self._inside -= 1
        outputs = list(tensors_in(result))
        if not outputs:
            return result
        index = len(self.ops)
        if index in self.changes and isinstance(result, Tensor):
            result = self.changes[index](result)
            outputs = [result]
        self.ops.append(Op(index, name, tuple(self._open), inputs, outputs, args, kwargs))
        self._hold(inputs)
        self._hold(outputs)
        return result

    # An operation in place changes tensors that are already on the tape: they are copied first.

    def _hold(self, tensors: list[Tensor]) -> None:
        for position, tensor in enumerate(tensors):
            self._holders.setdefault(id(tensor), []).append((tensors, position))

    def _preserve(self, tensor: Tensor) -> None:
        holders = self._holders.pop(id(tensor), [])
        if not holders:
            return
        copy = tensor.clone()
        for tensors, position in holders:
            tensors[position] = copy
        self._holders[id(copy)] = holders

    # Attention ---------------------------------------------------------------------------

    def _attend(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "scaled_dot_product_attention":
            q, k, v = (_argument(args, kwargs, i, n) for i, n in enumerate(("query", "key", "value")))
            scale = kwargs.get("scale")
            with torch.no_grad():
                scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
            mix = self._mixes(scores, -1) and v.shape[:-2] == q.shape[:-2]
            self._attended(scores, -1, (q, k, v), mix)
            if mix and self.permutation is not None:
                return v[..., self.permutation, :]
        elif name == "softmax":
            scores = _argument(args, kwargs, 0, "input")
            dim = _argument(args, kwargs, 1, "dim")
            if dim is None:  # torch's old rule
                dim = 0 if scores.ndim == 3 else 1
            if scores.ndim >= 3 and isinstance(dim, int):
                axis = dim if dim < 0 else dim - scores.ndim
                mix = self._mixes(scores, axis)
                self._attended(scores, axis, None, mix)
                if mix and self.permutation is not None:
                    chosen = torch.eye(len(self.permutation), dtype=scores.dtype)[self.permutation]
                    return chosen.expand(scores.shape).clone()
        return func(*args, **kwargs)

    def _mixes(self, scores: Tensor, axis: int) -> bool:
        size = -1 if self.permutation is None else len(self.permutation)
        return axis >= -2 and scores.shape[-1] == scores.shape[-2] == size

    def _attended(
        self, scores: Tensor, axis: int, fused: tuple[Tensor, Tensor, Tensor] | None, replaced: bool
    ) -> None:
        path = self.calls[self._open[-1]].path if self._open else ""
        self.attentions.append(
            Attention(len(self.ops), path, tuple(self._open), scores, axis, fused, replaced)
        )

    # Questions ---------------------------------------------------------------------------

    def path(self, op: Op) -> str:
        """The innermost module around an operation."""
        return self.calls[op.calls[-1]].path if op.calls else ""

    def producer(self, tensor: Tensor, before: int | None = None) -> Op | None:
        """The last operation (before another) whose output is this very tensor."""
        for op in reversed(self.ops[:before]):
            if any(output is tensor for output in op.outputs):
                return op
        return None

    def readers(self, tensor: Tensor, after: int) -> Iterator[Op]:
        """Later operations that read this very tensor, in order."""
        for op in self.ops[after + 1 :]:
            if any(given is tensor for given in op.inputs):
                yield op


def _argument(args: Sequence[Any], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return kwargs[name] if name in kwargs else args[position] if position < len(args) else None


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # x.T, x.data
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    name = name.strip("_")
    short = {"iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul", "multiply": "mul"}
    more = {"itruediv": "div", "truediv": "div", "divide": "div", "rmatmul": "matmul", "concat": "cat"}
    return {**short, **more}.get(name, name)


def _in_place(func: Any) -> bool:
    name = str(getattr(func, "__name__", ""))
    if name.startswith("__"):
        return name == "__setitem__" or (
            name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
        )
    return name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
