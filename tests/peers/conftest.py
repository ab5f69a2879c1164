"""The peers are imported at the head of these files, so what is not to run is not collected either."""

import importlib.util
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not collection_path.name.startswith("test_"):
        return None
    chosen = config.getoption("markexpr", "")
    # `make proof` picks its own tests, in an environment without the peers.
    picks_others = chosen and "peers" not in chosen and "not " not in chosen
    installed = importlib.util.find_spec("timm") and importlib.util.find_spec("transformers")
    return True if "not peers" in chosen or (picks_others and not installed) else None
