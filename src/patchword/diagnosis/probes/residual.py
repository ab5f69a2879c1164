"""Probe i: with every branch silent, tokens pass through the blocks unchanged, and a norm comes before the head."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.tape import Tape
from patchword.diagnosis.trunk import Trunk
from patchword.diagnosis.walk import modules_in, weights_in

NAME = "i residual"
_finding = partial(Finding, probe=NAME, learn=steps.RESIDUAL_STREAM)
_NORM_PARTS = frozenset(("mean", "var", "std", "sub", "pow", "square", "var_mean", "mul"))
_SAME = 1e-3  # norms divide by sqrt(variance + eps)


def probe(case: Case) -> Iterator[Finding]:
    trunk = case.trunk
    if trunk is None or case.known & {"random"}:
        return
    weights = _weights_of(case, trunk)
    with torch.no_grad():
        silent = case.fresh()
        silence(silent, weights)
        one, two = (_streams(case, silent, seed) for seed in (0, 1))
        alive = (
            apart(one.logits, two.logits, _SAME)
            if not trunk.complete
            else apart(_out(one, trunk), _out(two, trunk), _SAME)
        )
        if not alive:
            yield _broken(case, trunk, weights, one, two)
            return
        yield from _norms(case, trunk, silent)


def _weights_of(case: Case, trunk: Trunk) -> set[str]:
    """Names of the matrices and biases in the trunk: what makes a branch speak. Gains stay."""
    modules = {id(case.pass_.calls[i].module) for i in trunk.inner}
    inside: set[str] = set()
    for path, module, _ in modules_in(case.drawn):
        if id(module) in modules:
            inside |= {f"{path}.{name}" if path else name for name in weights_in(module)}
    return {name for name in inside if case.used.get(name, ("gain", 0))[0] != "gain"}


@torch.no_grad()
def silence(module: nn.Module, names: set[str]) -> None:
    for name, weight in weights_in(module).items():
        if name in names:
            weight.zero_()


def _streams(case: Case, module: nn.Module, seed: int, scale: float = 1.0) -> Tape:
    assert case.trunk is not None
    return case.from_tokens(module, scale * case.noise(case.trunk.tokens, seed))


def _out(tape: Tape, trunk: Trunk) -> Tensor:
    assert trunk.exit is not None
    return tape.ops[trunk.exit].output


def _broken(case: Case, trunk: Trunk, weights: set[str], one: Tape, two: Tape) -> Finding:
    """Name the block and the branch whose residual is missing."""
    block, number = "", 0
    for index, calls in enumerate(trunk.entries):
        results = [(one.calls[c.index].outputs, two.calls[c.index].outputs) for c in calls[-1:]]
        if results and results[0][0] and not apart(results[0][0][0], results[0][1][0], _SAME):
            block, number = calls[0].path, index
            break
    attention = {name for name in weights if _with_attention(case, name)}
    lost = [
        what
        for what, names in (("attention", attention), ("MLP", weights - attention))
        if names and _dies(case, trunk, names)
    ]
    branch = " and ".join(lost) or "a branch"
    case.known.add("residual")
    return _finding(
        level="mistake",
        title=f"the residual connection around {branch} is missing",
        module=block or trunk.path,
        did="set all matrices in the blocks to zero, so that every branch adds nothing",
        got=f"the tokens are lost in block {number}",
        expected="the tokens that entered",
        cure="write x = x + attention(norm(x)) and x = x + mlp(norm(x))",
    )


def _dies(case: Case, trunk: Trunk, names: set[str]) -> bool:
    silent = case.fresh()
    silence(silent, names)
    one, two = (_streams(case, silent, seed) for seed in (0, 1))
    if not trunk.complete:
        return not apart(one.logits, two.logits, _SAME)
    return not apart(_out(one, trunk), _out(two, trunk), _SAME)


def _with_attention(case: Case, name: str) -> bool:
    """Whether a weight belongs to the innermost module around a softmax, or lies next to it under the same parent."""
    return any(name.startswith(f"{attention.path}.") for attention in case.pass_.attentions if attention.path)


def _norms(case: Case, trunk: Trunk, silent: nn.Module) -> Iterator[Finding]:
    one, big = _streams(case, silent, 0), _streams(case, silent, 0, 7.0)
    entered = one.ops[trunk.entrance].output
    kept = trunk.exit is not None and not apart(_out(one, trunk), entered, _SAME)
    if trunk.exit is not None and not kept and not apart(_out(one, trunk), _out(big, trunk), _SAME * 10):
        case.known.add("post-norm")
        yield _after_norm(case, trunk)
        return
    if trunk.exit is not None and not kept:
        case.known.add("changed stream")
        yield _finding(
            level="departure",
            title="a silent block does not return its input",
            module=_first_changed(trunk, one),
            did="set all matrices in the blocks to zero",
            got="the tokens come out changed",
            expected="the tokens that entered",
            cure="add each branch to the tokens themselves, without a factor on the residual",
        )
        return
    if apart(one.logits, big.logits, 10 * _SAME) and not case.known & {"ignored", "batch statistics"}:
        case.known.add("no final norm")
        yield _finding(
            level="departure",
            title="no norm before the head",
            module="",
            did="made the tokens seven times larger, with silent branches",
            got="other logits",
            expected="the same logits: a pre-norm ViT ends with a norm",
            cure="apply nn.LayerNorm(width) after the last block",
        )


def _first_changed(trunk: Trunk, silent: Tape) -> str:
    """The first block whose output is not what entered the blocks."""
    entered = silent.ops[trunk.entrance].output
    for calls, index in zip(trunk.entries, trunk.exits, strict=True):
        if index is not None and apart(silent.ops[index].output, entered, _SAME):
            return calls[0].path
    return trunk.path


def _after_norm(case: Case, trunk: Trunk) -> Finding:
    """Norms on the stream itself: after the sum (post-norm), or before the residual is taken."""
    entered = case.pass_.ops[trunk.entrance].output
    readers = list(case.pass_.readers(entered, trunk.entrance))
    # With post-norm the tokens that enter are added to a branch; else a norm alone reads them.
    alone = bool(readers) and all("norm" in op.name or op.name in _NORM_PARTS for op in readers)
    if not alone:
        return _finding(
            level="note",
            title="post-norm blocks: the norm comes after the sum",
            module=trunk.path,
            did="set all matrices in the blocks to zero",
            got="the tokens come out normalised",
            expected="the tokens that entered: a ViT has pre-norm blocks",
            cure="use x + branch(norm(x)); in nn.TransformerEncoderLayer, norm_first=True",
            learn=steps.PRE_AND_POST_NORM,
        )
    case.known.add("residual")
    return _finding(
        level="mistake",
        title="the residual is taken after the norm",
        module=trunk.path,
        did="set all matrices in the blocks to zero",
        got="the tokens come out normalised, and nothing reads them but the norm",
        expected="the tokens that entered",
        cure="keep x before the norm: x = x + branch(norm(x)), not x = norm(x); x = x + branch(x)",
        learn=steps.PRE_AND_POST_NORM,
    )
