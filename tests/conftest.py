"""Which examples the property tests draw.

`make test` draws the same ones each time, for what it decides (whether a change lands) must not hang on luck;
`make test-all` draws new ones, and a failure prints the example to keep as a test of its own.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.register_profile("new", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
