"""Probe a: the output for an image depends on neither its place in the batch, nor the other images, nor their number."""

from collections.abc import Iterator
from functools import partial

import torch

from patchword.diagnosis import steps
from patchword.diagnosis.case import Case
from patchword.diagnosis.compare import apart, first_difference, first_unequal_slots, relative
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.walk import weights_in

NAME = "a batch"
_finding = partial(Finding, probe=NAME, learn=steps.MISTAKES, level="mistake")


def probe(case: Case) -> Iterator[Finding]:
    if case.only_batch:
        case.known.add("fixed batch")
        name = _batch_sized(case)
        yield _finding(
            title=f"the model runs only with batches of {case.batch} images",
            module=name,
            did="run batches of other sizes",
            got=f"every other size fails; {name or 'something'} has {case.batch} rows, one per image",
            expected="any number of images",
            cure="give tokens and positions the shape [1, tokens, width] and expand them to the batch in forward",
        )
    else:
        yield from _sizes(case)
    yield from _slots(case)
    yield from _mates(case)


def _batch_sized(case: Case) -> str:
    names = [name for name, w in weights_in(case.original).items() if w.ndim > 1 and w.shape[0] == case.batch]
    added = [name for name in names if case.used.get(name, ("",))[0] == "added"]
    return next(iter(added + names), "")


def _sizes(case: Case) -> Iterator[Finding]:
    counts = [1, 2] if case.slow else [1, 2, 4, 32]
    failed: dict[int, str] = {}
    for count in counts:
        try:
            found = case.logits(case.drawn, case.images(count))
            if len(found) != count:
                failed[count] = f"{len(found)} rows of logits"
        except Exception as error:
            failed[count] = str(error).strip().splitlines()[0][:150] if str(error) else type(error).__name__
    if failed:
        case.known.add("fixed batch")
        numbers = ", ".join(map(str, failed))
        one = "squeeze() without an axis removes a batch of one; " if list(failed) == [1] else ""
        name = _batch_sized_up_to(case, min(failed))
        yield _finding(
            title=f"the model fails with batches of {numbers}",
            module=name,
            did=f"run batches of {', '.join(map(str, counts))} images",
            got=f"{numbers}: {next(iter(failed.values()))}",
            expected="any number of images",
            cure=f"{one}let no parameter and no reshape contain the batch size",
        )


def _batch_sized_up_to(case: Case, failing: int) -> str:
    if failing == 1:
        return ""
    for name, weight in weights_in(case.original).items():
        if (
            weight.ndim == 3
            and case.batch <= weight.shape[0] < failing
            and case.used.get(name, ("",))[0] == "added"
        ):
            return name
    return ""


def _slots(case: Case) -> Iterator[Finding]:
    images = case.images(1).expand(case.batch, -1, -1, -1).clone()
    with torch.no_grad():
        tape = case.tape(case.drawn, images)
        again = case.tape(case.drawn, images, seed=1)
    if apart(tape.logits, again.logits, case.tolerance):
        return  # random: probe b
    if not apart(tape.logits, tape.logits[:1].expand_as(tape.logits), case.tolerance):
        return
    case.known.add("slots")
    op = first_unequal_slots(tape, case.batch, case.tolerance)
    path = tape.path(op) if op else ""
    yield _finding(
        title="the output depends on the place of an image in the batch",
        module=path,
        did=f"ran one image {case.batch} times in one batch",
        got=f"logits differ by {relative(tape.logits[:1], tape.logits):.1e}"
        + (f", first after {op.name} in {path or 'forward'}" if op else ""),
        expected="equal logits",
        cure="a parameter has one row per image of the batch: give it the shape [1, tokens, width]",
    )


def _mates(case: Case) -> Iterator[Finding]:
    images, mates = case.images(), case.images(seed=1)
    mates[0] = images[0]
    with torch.no_grad():
        tape, other = case.tape(case.drawn, images), case.tape(case.drawn, mates)
        again = case.tape(case.drawn, images, seed=1)
    if case.batch < 2 or apart(tape.logits, again.logits, case.tolerance):
        return
    one, two = tape.logits[0], other.logits[0]
    op = first_difference(tape, other, case.tolerance, case.batch)
    attends = _attention_over_batch(case)
    if not apart(one, two, case.tolerance) and not attends:
        return
    case.known.add("mates")
    path = attends or (tape.path(op) if op else "")
    yield _finding(
        title="the output for an image depends on the other images of the batch",
        module=path,
        did="changed the other images of a batch",
        got=f"the logits of the first image change by {relative(one, two):.1e}, first in {path or 'forward'}"
        if apart(one, two, case.tolerance)
        else f"the keys in {path} are the images of the batch",
        expected="no change",
        cure="torch's attention and encoder layers take [tokens, batch, width] unless batch_first=True"
        if attends
        else "let softmax, norms and attention run over one image at a time",
    )


def _attention_over_batch(case: Case) -> str:
    """The module whose softmax runs over the images: its keys grow with the batch."""
    if not case.pass_.attentions:
        return ""
    if case.only_batch:  # the number of images cannot vary: as many keys as images, but not as many as tokens
        tokens = None if case.trunk is None else case.trunk.count
        events = [a for a in case.pass_.attentions if a.scores.shape[a.axis] == case.batch != tokens]
        return events[0].path if events else ""
    more = case.batch + 2
    try:
        with torch.no_grad():
            other = case.tape(case.drawn, case.images(more))
    except Exception:
        return ""
    for one, two in zip(case.pass_.attentions, other.attentions, strict=False):
        if (one.scores.shape[one.axis], two.scores.shape[two.axis]) == (case.batch, more):
            return one.path
    return ""
