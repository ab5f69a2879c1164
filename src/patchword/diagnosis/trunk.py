"""Find the repeated part of a Vision Transformer on a tape: where tokens enter it, and where they leave it.

No class is searched by name. The repeated part is the list of modules whose entries contain attention; without such a
list, modules of one type side by side, or one module that is called again and again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patchword.diagnosis.tape import Call, Op, Tape
from patchword.diagnosis.walk import modules_in

_ADDING = ("add", "addcmul", "addcdiv")
_ON_THE_WAY = ("mul", "div", "dropout", "contiguous", "to", "float", "type_as")


@dataclass
class Trunk:
    """The repeated part in one pass.

    path: its list or module. entries: the calls of each block. entrance, exit: operations whose output are the tokens
    [batch, tokens, width], or [tokens, batch, width] if token_axis is 0. exit is of the last block that all tokens leave
    (the last of all may compute only what the head reads, so that complete is False); None if there is no such block.
    exits: the same for each block.
    """

    path: str
    entries: list[list[Call]]
    entrance: int
    exit: int | None
    complete: bool
    tokens: Tensor
    token_axis: int
    inner: frozenset[int]
    exits: tuple[int | None, ...]

    @property
    def count(self) -> int:
        """Number of tokens at the entrance."""
        return self.tokens.shape[self.token_axis]

    @property
    def batch_axis(self) -> int:
        return 1 - self.token_axis

    @property
    def width(self) -> int:
        return self.tokens.shape[-1]

    def ops(self, tape: Tape) -> list[Op]:
        """The operations between entrance and exit."""
        last = self.exit
        if last is None or not self.complete:
            last = max((call.stop for calls in self.entries for call in calls), default=len(tape.ops)) - 1
        return tape.ops[self.entrance + 1 : last + 1]

    def block_of(self, op: Op) -> int | None:
        """The index of the block in which an operation runs."""
        for index, calls in enumerate(self.entries):
            if any(call.start <= op.index < call.stop for call in calls):
                return index
        return None


def find_trunk(tape: Tape, module: nn.Module, batch: int) -> Trunk | None:
    """The repeated part. None if there is no attention, or nothing like tokens enters it."""
    path, entries = _entries(tape, module)
    if not entries:
        return None
    entries = _with_norm_in_front(tape, entries)
    first = min((call for calls in entries for call in calls), key=lambda call: call.index)
    tokens = next((t for t in [*first.inputs, *_read_in(tape, first)] if _like_tokens(t)), None)
    entrance = None if tokens is None else tape.producer(tokens, first.start or None)
    if tokens is None or entrance is None:
        return None
    token_axis = 0 if tokens.shape[1] == batch and tokens.shape[0] != batch else 1
    inner = frozenset(call.index for calls in entries for call in calls)
    exits = _exits(tape, entries, tokens)
    last = next((found for found in reversed(exits) if found is not None), None)
    complete = last is not None and last == exits[-1]
    return Trunk(path, entries, entrance.index, last, complete, tokens, token_axis, inner, tuple(exits))


def _like_tokens(tensor: Tensor) -> bool:
    return tensor.ndim == 3 and tensor.is_floating_point()


def _read_in(tape: Tape, call: Call) -> Iterator[Tensor]:
    for op in tape.ops[call.start : call.stop]:
        yield from op.inputs


# Which modules -----------------------------------------------------------------------------


def _entries(tape: Tape, module: nn.Module) -> tuple[str, list[list[Call]]]:
    """The path of the repeated part, and the outermost calls of each of its entries, in order."""
    attended = [set(attention.calls) for attention in tape.attentions]
    by_module: dict[int, list[Call]] = {}
    for call in tape.calls:
        by_module.setdefault(id(call.module), []).append(call)

    def reached(entry: nn.Module) -> set[int]:
        """Which attentions run inside this entry."""
        inside = {c.index for m in _within(entry) for c in by_module.get(id(m), [])}
        return {i for i, calls in enumerate(attended) if calls & inside}

    best: tuple[tuple[int, int, int], str, list[nn.Module]] | None = None
    for order, (path, entries) in enumerate(_lists(module)):
        with_attention = [reached(entry) for entry in entries]
        hits = [index for index, found in enumerate(with_attention) if found]
        if not hits or (len(hits) == 1 and len(entries) > 1):
            continue
        covered = len(set().union(*with_attention))
        key = (covered, len(hits), -order)
        if best is None or key > best[0]:
            best = key, path, entries[hits[0] : hits[-1] + 1]
    if best is not None and (len(best[2]) > 1 or not _several_calls(tape, attended)):
        return best[1], _calls_of(best[2], by_module)
    return _without_list(tape, attended)


def _within(entry: nn.Module) -> Iterator[nn.Module]:
    for _, module, _ in modules_in(entry):
        yield module


def _lists(module: nn.Module) -> Iterator[tuple[str, list[nn.Module]]]:
    """Lists of modules, registered or not, and modules of one type side by side; outermost first."""
    for path, holder, _ in modules_in(module):
        if isinstance(holder, nn.ModuleList | nn.Sequential):
            yield path, list(holder)
            continue
        if isinstance(holder, nn.ModuleDict):
            yield path, list(holder.values())
            continue
        for name, value in vars(holder).items():
            if isinstance(value, list | tuple) and value and all(isinstance(v, nn.Module) for v in value):
                yield f"{path}.{name}" if path else name, list(value)
        kinds: dict[type, list[nn.Module]] = {}
        for child in holder.children():
            kinds.setdefault(type(child), []).append(child)
        for kind, same in kinds.items():
            if len(same) > 1:
                yield f"{path}.{kind.__name__}" if path else kind.__name__, same


def _calls_of(entries: Sequence[nn.Module], by_module: dict[int, list[Call]]) -> list[list[Call]]:
    """The outermost calls inside each entry. An entry that is listed several times has its calls one by one."""
    found: list[list[Call]] = []
    used: dict[int, int] = {}
    times: dict[int, int] = {}
    for entry in entries:
        times[id(entry)] = times.get(id(entry), 0) + 1
    for entry in entries:
        calls = sorted((c for m in _within(entry) for c in by_module.get(id(m), [])), key=lambda c: c.index)
        inside = {call.index for call in calls}
        outermost = [call for call in calls if not inside & set(call.parents)]
        if times[id(entry)] > 1 and len(outermost) == times[id(entry)]:
            turn = used.get(id(entry), 0)
            used[id(entry)] = turn + 1
            outermost = outermost[turn : turn + 1]
        found.append(outermost)
    return [calls for calls in found if calls]


def _several_calls(tape: Tape, attended: list[set[int]]) -> bool:
    """Whether one module with attention is called several times."""
    counts: dict[int, int] = {}
    for index in set().union(*attended) if attended else set():
        key = id(tape.calls[index].module)
        counts[key] = counts.get(key, 0) + 1
    return any(count > 1 for count in counts.values())


def _without_list(tape: Tape, attended: list[set[int]]) -> tuple[str, list[list[Call]]]:
    """The outermost calls with attention that take and return tokens: one per block."""
    indices = sorted(set().union(*attended)) if attended else []
    takers = [
        tape.calls[i]
        for i in indices
        if tape.calls[i].inputs and _like_tokens(tape.calls[i].inputs[0]) and tape.calls[i].outputs
    ]
    if not takers:
        return "", []
    counts: dict[int, int] = {}
    for call in takers:
        counts[id(call.module)] = counts.get(id(call.module), 0) + 1
    repeated = [call for call in takers if counts[id(call.module)] > 1] or takers
    own = {call.index for call in repeated}
    outermost = [call for call in repeated if not own & set(call.parents)]
    return outermost[0].path, [[call] for call in outermost]


def _with_norm_in_front(tape: Tape, entries: list[list[Call]]) -> list[list[Call]]:
    """Add the norm whose output is what the first entry takes, if it was listed elsewhere: [norm, attention] as two lists."""
    first = entries[0][0]
    if not first.inputs or first.index == 0:
        return entries
    before = tape.calls[first.index - 1]
    feeds = before.outputs and before.outputs[0] is first.inputs[0] and before.parents == first.parents
    if (
        feeds
        and "norm" in type(before.module).__name__.lower()
        and len(entries[0]) == 1
        and _loose(tape, first)
    ):
        return [[before, *entries[0]], *entries[1:]]
    return entries


def _loose(tape: Tape, call: Call) -> bool:
    """Whether the residual is added outside this call: something outside adds its output to another tensor."""
    return bool(call.outputs) and _sum_with(tape, call.outputs[0], call.stop - 1) is not None


# Where tokens leave ------------------------------------------------------------------------


def _exits(tape: Tape, entries: list[list[Call]], tokens: Tensor) -> list[int | None]:
    """For each block, the operation whose output are the tokens that leave it, if all of them do."""
    return [_exit(tape, calls, tokens) for calls in entries]


def _exit(tape: Tape, calls: list[Call], tokens: Tensor) -> int | None:
    last = max(calls, key=lambda call: call.stop)
    result = next((t for t in last.outputs if t.shape == tokens.shape), None)
    if result is None:
        return None
    op = tape.producer(result, last.stop)
    if op is None:
        return None
    added = _sum_with(tape, result, last.stop - 1)
    return op.index if added is None else added.index


def _sum_with(tape: Tape, tensor: Tensor, after: int) -> Op | None:
    """The addition outside modules that joins a branch to the residual stream."""
    for _ in range(4):
        op = next(tape.readers(tensor, after), None)
        if op is None or op.output.shape != tensor.shape:
            return None
        if op.name in _ADDING and sum(_like_tokens(t) for t in op.inputs) > 1:
            return op if all(t.shape[0] == tensor.shape[0] for t in op.inputs) else None
        if op.name not in _ON_THE_WAY:
            return None
        tensor, after = op.output, op.index
    return None


def changed_tokens(before: Tensor, after: Tensor, token_axis: int, tolerance: float) -> set[int]:
    """Which tokens differ between two tensors [·, ·, width] by more than `tolerance` of the usual value."""
    if before.shape != after.shape:
        return set(range(before.shape[token_axis]))
    apart = (before - after).abs().amax(dim=tuple(a for a in range(before.ndim) if a != token_axis))
    limit = tolerance * max(float(before.abs().mean()), 1e-12)
    return {int(i) for i in torch.nonzero(~(apart <= limit))}
