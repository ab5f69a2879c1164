"""Print the lower bounds of pyproject.toml as pip constraints, for `make test-oldest`."""

import re
import tomllib
from pathlib import Path


def lower_bounds(pyproject: Path) -> list[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    return [re.sub(r">=", "==", requirement) for requirement in wanted]


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(__file__).parents[1] / "pyproject.toml")))
