"""The thirteen probes. To add one, write a file with NAME and probe(case), and add a line here: they run in this order.

A probe may read `case.known`, what earlier probes established, so that the consequences of one mistake are not reported as
others.
"""

from collections.abc import Callable, Iterator

from patchword.diagnosis.case import Case
from patchword.diagnosis.findings import Finding
from patchword.diagnosis.probes import (
    attention,
    batch,
    leaks,
    norms,
    patches,
    pixels,
    pooling,
    positions,
    randomness,
    registration,
    residual,
    statistics,
    training,
)

Probe = Callable[[Case], Iterator[Finding]]

PROBES: tuple[tuple[str, Probe], ...] = (
    (batch.NAME, batch.probe),
    (randomness.NAME, randomness.probe),
    (statistics.NAME, statistics.probe),
    (patches.NAME, patches.probe),
    (pixels.NAME, pixels.probe),
    (leaks.NAME, leaks.probe),
    (positions.NAME, positions.probe),
    (pooling.NAME, pooling.probe),
    (residual.NAME, residual.probe),
    (norms.NAME, norms.probe),
    (attention.NAME, attention.probe),
    (registration.NAME, registration.probe),
    (training.NAME, training.probe),
)
