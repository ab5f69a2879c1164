"""The options of `patchword evaluate --probe`, and the lines that say what was fitted."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchword.cli.console import say
from patchword.cli.options import kept_option, kept_values
from patchword.errors import plural
from patchword.probes.kinds import PROBES, TRAINED

if TYPE_CHECKING:
    from patchword.inference.probe import ProbeRequest
    from patchword.probes.fit import ProbeReport

F = TypeVar("F", bound=Callable[..., Any])

_PROBE = "patchword.probe_options"
_PASSES = f"{', '.join(TRAINED[:-1])} or {TRAINED[-1]}"
_OPTIONS = (
    kept_option(
        _PROBE,
        "--probe",
        type=click.Choice(PROBES),
        help="Score a probe fitted to the features of DATA's training split, not MODEL's head. dino-knn, dino-linear and "
        "mae-linear are published protocols.",
    ),
    kept_option(
        _PROBE,
        "--k",
        type=click.IntRange(1),
        help="Neighbours of --probe knn. [default: 20; fewer in small classes]",
    ),
    kept_option(
        _PROBE,
        "--epochs",
        type=click.IntRange(1),
        help=f"Passes of --probe {_PASSES}. [default: as published; attentive: at least 20]",
    ),
    kept_option(_PROBE, "--seed", type=click.IntRange(0), help=f"Seed of --probe {_PASSES}. [default: 0]"),
    kept_option(_PROBE, "--no-cache", is_flag=True, help="Neither use nor store the features of --probe."),
)


def probe_options(command: F) -> F:
    """Add --probe and what belongs to it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen_probe() -> "ProbeRequest | None":
    """The probe that the running command was given. Raises: SettingsError for options without effect."""
    from patchword.inference.probe import probe_request

    given = kept_values(_PROBE)
    return probe_request(
        given["probe"], given["k"], not given["no_cache"], given["epochs"], given["seed"], say
    )


def probe_lines(probe: "ProbeReport") -> list[str]:
    """What was fitted, on what, how, and where the features came from."""
    if probe.kind == "linear":
        what = f"linear probe, L2 penalty {probe.penalty:.2g} chosen by folds of the training images"
    else:
        what = f"k-NN probe, k {probe.k}" if probe.kind == "knn" else f"{probe.name} probe"
    came = f"{probe.cached} of them from the cache" if probe.cached else "all computed"
    norm = f"norm: {probe.norm}"
    lines = [
        f"{what}, fitted to {plural(probe.images, 'training image')}",
        f"feature: {probe.feature}; {plural(probe.computed_of, 'image')}, {came}; {probe.seconds:.1f} s",
        f"layer: {probe.layer}; pooling: {probe.pooling}; {norm}",
    ]
    if probe.source:
        lines.append(f"protocol: {probe.source}")
    if probe.kind not in ("knn", "linear"):
        lines.append("; ".join(f"{name} {_number(value)}" for name, value in probe.settings.items()))
    return lines + [f"not as published: {text}" for text in probe.scaled]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
