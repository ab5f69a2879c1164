"""Which examples and random numbers tests draw, and how tests that run side by side share the processor.

`make test` draws the same examples each time, for what it decides (whether a change lands) must not hang on luck;
`make test-all` draws new ones, and a failure prints the example to keep as a test of its own.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# No clock decides: a busy machine is slow without being wrong.
NO_CLOCK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", NO_CLOCK, derandomize=True)
settings.register_profile("new", NO_CLOCK, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# One thread each: two that share a core with another's two take several times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Whatever ran before: which tests share a process is decided anew each time."""
    import torch

    torch.manual_seed(0)
