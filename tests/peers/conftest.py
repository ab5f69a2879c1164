"""The peers are imported at the head of these files, so what is not to run is not collected either."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    unwanted = "not peers" in config.getoption("markexpr", "")
    return True if unwanted and collection_path.name.startswith("test_") else None
