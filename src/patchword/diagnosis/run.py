"""Run all probes on one model."""

from collections.abc import Callable

from torch import nn

from patchword.diagnosis.case import Case, Factory, copier, make_case, quiet, seeded
from patchword.diagnosis.findings import LEVELS, Diagnosis, Finding
from patchword.diagnosis.formula import count_line
from patchword.diagnosis.inputs import find_input
from patchword.diagnosis.probes import PROBES
from patchword.diagnosis.reference import compared_line
from patchword.errors import UserError, is_out_of_memory

Progress = Callable[[str], None]
# Of several mistakes, the one that makes others pointless comes first.
_FIRST = (
    "the output does not depend on the image",
    "the model runs only with",
    "the output depends on the place",
)


def diagnose_model(
    build: Factory,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find mistakes in the model that `build` returns, a new one in each call, by running it on noise images.

    size: (rows, columns) of its images; None to find it. progress: called with the name of each probe.
    Raises: UserError if it does not build, or takes no images.
    """
    with quiet():
        case = _case(build, name, size, channels)
        known = case.trunk is not None
    findings: list[Finding] = []
    skipped: list[str] = []
    if not known:
        skipped.append("probes e to k: no softmax attention over tokens was found")
    for title, probe in PROBES:
        if progress:
            progress(title)
        try:
            with quiet():
                findings += list(probe(case))
        # The student's code runs here with inputs that it was not written for, and may raise anything.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [""])[0][:120]
            skipped.append(f"probe {title}: {type(error).__name__}: {reason}")
    if case.left_out[1]:
        first, last = case.left_out[1][0], case.left_out[1][-1]
        skipped.append(
            f"blocks {first} to {last} of {case.left_out[0]}: the model is slow, and blocks are mostly alike"
        )
    if case.slow:
        skipped.append("learning 16 images: the model is too slow for it")
    findings.sort(
        key=lambda f: (
            LEVELS.index(f.level),
            not f.title.startswith(_FIRST[0]),
            not f.title.startswith(_FIRST),
        )
    )
    with quiet():
        return Diagnosis(
            model=name,
            image_size=case.size,
            channels=case.channels,
            outputs=case.pass_.logits.shape[1],
            dtype=str(case.dtype).removeprefix("torch."),
            parameters=count_line(case),
            compared=compared_line(case),
            findings=tuple(findings),
            skipped=tuple(skipped),
            facts=_facts(case),
        )


def _case(build: Factory, name: str, size: tuple[int, int] | None, channels: int | None) -> Case:
    try:
        with seeded(0):
            module = build()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} cannot be built: {type(error).__name__}: {str(error).strip()[:200]}",
            "build it without an error first",
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} is {type(module).__name__}, not a torch module", "return an nn.Module")
    found, depth, batch = find_input(module, size, channels)
    only = batch != 5
    return make_case(build, found, depth, batch, only_batch=only)


def _facts(case: Case) -> dict[str, object]:
    trunk = case.trunk
    if trunk is None:
        return {}
    return {
        "blocks": len(trunk.entries),
        "blocks_path": trunk.path,
        "tokens": trunk.count,
        "width": trunk.width,
        "tokens_without_pixels": list(case.prefix),
    }


__all__ = ["copier", "diagnose_model"]
