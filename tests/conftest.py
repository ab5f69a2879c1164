"""Fix the examples and random numbers that tests draw, and the threads of parallel tests.

`make test` draws the same examples each time, because whether a change is accepted must not depend on luck.
`make test-all` draws new ones; a failure prints the example, which should become a test.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# No deadlines: a busy machine is slow, not wrong.
NO_CLOCK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", NO_CLOCK, derandomize=True)
settings.register_profile("new", NO_CLOCK, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# One thread each: processes with two threads on a shared core take several times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed torch for each test, because the tests that share a process vary between runs."""
    import torch

    torch.manual_seed(0)
