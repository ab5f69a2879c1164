"""Probe l: every weight is registered once, trained and used."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case, seeded
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.tape import Tape
from patchword.diagnosis.walk import hidden_tensors, modules_in, weights_in
from patchword.errors import plural

NAME = "l registration"
_finding = partial(Finding, probe=NAME, learn=steps.MISTAKES)


def probe(case: Case) -> Iterator[Finding]:
    yield from _hidden_modules(case)
    yield from _hidden_tensors(case)
    yield from _lost_on_a_device(case)
    yield from _shared(case)
    yield from _equal_starts(case)
    yield from _gradients(case)
    yield from _frozen(case)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# Hidden from torch -------------------------------------------------------------------------


def _hidden_modules(case: Case) -> Iterator[Finding]:
    hidden = [
        path
        for path, module, registered in modules_in(case.drawn)
        if not registered and list(module.parameters())
    ]
    outer = [path for path in hidden if not any(path.startswith(f"{other}.") for other in hidden)]
    if outer:
        yield _finding(
            level="mistake",
            title="modules are not registered",
            module=outer[0],
            did="looked for modules in lists, dicts and attributes",
            got=f"{_shown(outer)}: model.parameters() does not have their weights",
            expected="nn.ModuleList or nn.ModuleDict",
            cure="write nn.ModuleList([…]); else the optimiser never trains them and .to(device) leaves them behind",
        )


def _hidden_tensors(case: Case) -> Iterator[Finding]:
    with seeded(7):
        module = case.build()
    wrong, fixed = [], []
    for path, tensor in hidden_tensors(module):
        if tensor.requires_grad:
            wrong.append(path)
        elif tensor.is_floating_point() and tensor.numel() > 1:
            fixed.append(path)
    if wrong:
        yield _finding(
            level="mistake",
            title="a tensor that should be trained is not a parameter",
            module=wrong[0],
            did="looked for tensors in lists, dicts and attributes",
            got=f"{_shown(wrong)} requires a gradient, but model.parameters() does not have it",
            expected="nn.Parameter, as an attribute or in nn.ParameterList",
            cure="self.name = nn.Parameter(tensor), with nothing after it such as .to(device)",
        )
    if fixed:
        yield _finding(
            level="note",
            title="a constant tensor is a plain attribute",
            module=fixed[0],
            did="looked for tensors in lists, dicts and attributes",
            got=f"{_shown(fixed)} will not follow .to(device) and is not saved",
            expected="register_buffer for constants, nn.Parameter for what is trained",
            cure="self.register_buffer(name, tensor)",
        )


class _Moving(TorchFunctionMode):
    """As on a GPU: .to(device) and .cuda() return a new tensor, which is no longer a Parameter."""

    def __torch_function__(
        self,
        func: object,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {})) if getattr(func, "__name__", "") != "cuda" else args[0]  # type: ignore[operator]
        if (
            getattr(func, "__name__", "") in ("to", "cuda")
            and isinstance(args[0], nn.Parameter)
            and isinstance(result, Tensor)
        ):
            return args[0].clone()
        return result


def _lost_on_a_device(case: Case) -> Iterator[Finding]:
    """Build once more as if the device were a GPU: `nn.Parameter(…).to(device)` is then not a parameter."""
    with seeded(7):
        usual = case.build()
        try:
            with _Moving():
                moved = case.build()
        except Exception:
            return
    before = {name for name, _ in usual.named_parameters()}
    lost = [path for path, tensor in hidden_tensors(moved) if path in before and tensor.requires_grad]
    if lost:
        yield _finding(
            level="mistake",
            title="a parameter stops being one on a GPU",
            module=lost[0],
            did="built the model as if .to(device) moved to another device",
            got=f"{_shown(lost)} becomes a plain tensor",
            expected="a parameter on every device",
            cure="write nn.Parameter(tensor) and move the complete model: model.to(device)",
        )


# One weight in two places ------------------------------------------------------------------


def _shared(case: Case) -> Iterator[Finding]:
    shared: set[str] = set()
    for path, holder, _ in modules_in(case.drawn):
        if isinstance(holder, nn.ModuleList | nn.Sequential):
            lists = [(path, list(holder))]
        else:
            lists = [
                (f"{path}.{n}" if path else n, v)
                for n, v in vars(holder).items()
                if isinstance(v, list) and v
            ]
        for name, entries in lists:
            weighty = [e for e in entries if isinstance(e, nn.Module) and any(True for _ in e.parameters())]
            if len(weighty) > len({id(e) for e in weighty}):
                shared.add(name)
                yield _finding(
                    level="mistake",
                    title="all blocks are the same block"
                    if len({id(e) for e in weighty}) == 1
                    else "a list has one module several times",
                    module=name,
                    did="compared the modules of each list",
                    got=f"{plural(len(weighty), 'entry', 'entries')}, {plural(len({id(e) for e in weighty}), 'module')}",
                    expected="a module of its own in each place",
                    cure="nn.ModuleList([Block() for _ in range(depth)]), not [block] * depth",
                )
    yield from _tied(case, shared)
    yield from _reused(case, shared)


def _tied(case: Case, known: set[str]) -> Iterator[Finding]:
    names: dict[int, list[str]] = {}
    for name, parameter in case.drawn.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    several = [n for n in names.values() if len(n) > 1 and not any(n[0].startswith(k) for k in known)]
    if several:
        known.update(name.rpartition(".")[0] for names in several for name in names)
        yield _finding(
            level="departure",
            title="one weight has several names",
            module=several[0][0].rpartition(".")[0],
            did="compared all parameters",
            got=f"{_shown(several[0])} are one tensor",
            expected="a weight of its own in each place",
            cure="create a module for each place that uses one",
        )


def _reused(case: Case, known: set[str]) -> Iterator[Finding]:
    """A module that runs several times in one pass, at different places."""
    times: dict[int, int] = {}
    for call in case.pass_.calls:
        if any(True for _ in call.module.parameters()):
            times[id(call.module)] = times.get(id(call.module), 0) + 1
    paths = [path for path, module, _ in modules_in(case.drawn) if times.get(id(module), 0) > 1]
    outer = [p for p in paths if not any(p != q and p.startswith(f"{q}.") for q in paths)]
    outer = [p for p in outer if not any(p.startswith(k) for k in known)]
    if outer:
        count = max(times[id(m)] for p, m, _ in modules_in(case.drawn) if p in outer)
        yield _finding(
            level="departure",
            title="one module serves several places",
            module=outer[0],
            did="counted the calls of each module in one pass",
            got=f"{_shown(outer)} runs {count} times",
            expected="a norm, an attention and an MLP of its own for each place",
            cure="create one module for each place: norm1 and norm2, a new block for each layer",
        )


def _equal_starts(case: Case) -> Iterator[Finding]:
    """Blocks of their own that start as copies of one, as in nn.TransformerEncoder."""
    trunk = case.trunk
    if trunk is None or len(trunk.entries) < 2:
        return
    modules = {path: module for path, module, _ in modules_in(case.original)}
    one, two = (modules.get(calls[0].path) for calls in trunk.entries[:2])
    if one is None or two is None or one is two:
        return
    pairs = [(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=False) if a.ndim > 1]
    drawn = [(a, b) for a, b in pairs if float(a.detach().std()) > 0]
    if drawn and all(a is not b and a.shape == b.shape and bool((a == b).all()) for a, b in drawn):
        yield _finding(
            level="note",
            title="all blocks start with equal weights",
            module=trunk.path,
            did="compared the weights that the first two blocks start with",
            got="they are copies",
            expected="weights drawn anew for each block",
            cure="initialise each block; nn.TransformerEncoder copies one layer",
        )


# Gradients ---------------------------------------------------------------------------------


def _gradients(case: Case) -> Iterator[Finding]:
    module = case.fresh()
    tape = case.tape(module, case.images())
    used = [t for t in tape.outputs if t.requires_grad]
    if not used:
        case.known.add("detached")
        yield _cut(tape, "the output has no gradient")
        return
    torch.stack([(t * case.noise(t)).sum() for t in used]).sum().backward()  # type: ignore[no-untyped-call]
    unused = [
        n
        for n, w in weights_in(module).items()
        if w.requires_grad and w.is_floating_point() and w.grad is None
    ]
    weights = weights_in(module)
    if [n for n in unused if "mask" not in n] and (cut := _cut_op(tape)):
        yield _cut(tape, f"{len(unused)} of {len(weights)} weights get none", cut)
        return
    yield from _unused(unused)
    if not case.known & {"ignored"}:
        yield from _rows(case, weights)


def _cut_op(tape: Tape) -> str | None:
    """The module in which a tensor with a gradient becomes one without."""
    for op in tape.ops:
        if (
            op.output.is_floating_point()
            and not op.output.requires_grad
            and any(t.requires_grad for t in op.inputs)
        ):
            return tape.path(op) or "forward"
    return None


def _cut(tape: Tape, got: str, place: str | None = None) -> Finding:
    place = place or _cut_op(tape) or ""
    return _finding(
        level="mistake",
        title="the gradient is cut",
        module="" if place == "forward" else place,
        did="took the gradient of the output with respect to every weight",
        got=f"{got}; it stops in {place or 'forward'}",
        expected="a gradient for every weight",
        cure="remove .detach(), .data and torch.no_grad() from forward",
    )


def _unused(unused: list[str]) -> Iterator[Finding]:
    masks = [name for name in unused if "mask" in name.rpartition(".")[2]]
    others = [name for name in unused if name not in masks]
    if others:
        yield _finding(
            level="mistake",
            title="weights are declared but never used",
            module=others[0],
            did="took the gradient of the output with respect to every weight",
            got=f"none for {_shown(others)}",
            expected="every weight takes part in forward",
            cure="use it in forward, or delete it",
        )
    if masks:
        yield _finding(
            level="note",
            title="a mask token is not used here",
            module=masks[0],
            did="took the gradient of the output with respect to every weight",
            got=f"none for {_shown(masks)}",
            expected="used in pre-training alone",
            cure="none needed",
        )


def _rows(case: Case, weights: dict[str, Tensor]) -> Iterator[Finding]:
    """Tables that are added to tokens: rows that never matter."""
    for name, weight in weights.items():
        if (
            case.trunk is None
            or weight.shape[-1:] != (case.trunk.width,)
            or weight.grad is None
            or case.used.get(name, ("",))[0] != "added"
            or weight.ndim < 2
            or weight.shape[-2] < 2
        ):
            continue
        rows = weight.grad.abs().amax(dim=-1).flatten(0, -1).reshape(-1, weight.shape[-2]).amax(0) == 0
        if bool(rows.any()) and not bool(rows.all()):
            idle = torch.nonzero(rows).flatten().tolist()
            yield _finding(
                level="note",
                title=f"{plural(len(idle), 'row')} of a table {'is' if len(idle) == 1 else 'are'} never used",
                module=name,
                did="took the gradient of the output with respect to every row",
                got=f"zero in {'row' if len(idle) == 1 else 'rows'} {', '.join(map(str, idle[:5]))} of {weight.shape[-2]}",
                expected="one row per token, the class token included",
                cure="join the class token before adding positions, or make the table one row smaller",
                learn=steps.POSITIONS,
            )


def _frozen(case: Case) -> Iterator[Finding]:
    frozen = [n for n, p in case.drawn.named_parameters() if not p.requires_grad]
    learned = [n for n in frozen if case.used.get(n, ("added",))[0] != "added"]
    if learned:
        yield _finding(
            level="departure",
            title="weights are frozen",
            module=learned[0].rpartition(".")[0],
            did="looked at requires_grad",
            got=f"False for {_shown(learned)}",
            expected="True: training changes every weight",
            cure="remove requires_grad = False, unless only a part is to be trained",
        )
    elif frozen:
        yield _finding(
            level="note",
            title="a table is fixed",
            module=frozen[0],
            did="looked at requires_grad",
            got=f"False for {_shown(frozen)}",
            expected="fine for sine-cosine positions, a mistake for learned ones",
            cure="leave requires_grad at True if it should be learned",
        )
