"""Apply each mutation of mutants.toml to a copy of the tree and run the tests that should catch it.

    python tests/mutants/run.py [--jobs N] [NAME ...]

Prints a row for each mutation: killed, and by which test, or survived. Exits with 1 if fewer than 90 % are killed, if a
mutation no longer matches the source, or if the tests fail without a mutation.
"""

import argparse
import importlib.util
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WANTED = 0.9
TIMEOUT_S = 900
# Not every hidden file: some are test data.
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__")
# Only in the root: `src/patchword/runs` is a package.
NOT_COPIED_FROM_ROOT = ("runs", "shared", "build")
MARKERS = "not slow and not proof and not browser and not peers and not gpu"
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", MARKERS)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`old` becomes `new` in src/patchword/`file`. breaks: what a user would see. tests: which should catch it."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...] = ("tests",)

    @property
    def path(self) -> Path:
        return Path("src/patchword") / self.file

    def misfit(self) -> str:
        """Return why it cannot be applied, or "" if it can."""
        if not (ROOT / self.path).is_file():
            return f"{self.path} does not exist"
        count = (ROOT / self.path).read_text(encoding="utf-8").count(self.old)
        missing = [test for test in self.tests if not (ROOT / test).exists()]
        if count != 1:
            return f"{self.path} contains the text {count} times"
        return f"{', '.join(missing)} does not exist" if missing else ""

    def apply(self, tree: Path) -> None:
        source = (ROOT / self.path).read_text(encoding="utf-8")
        self._write(tree / self.path, source.replace(self.old, self.new))

    def undo(self, tree: Path) -> None:
        self._write(tree / self.path, (ROOT / self.path).read_text(encoding="utf-8"))

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source, encoding="utf-8")
        # Python matches bytecode to source by second and length, and both may be unchanged.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def read_mutants() -> list[Mutant]:
    rows = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))["mutant"]
    return [Mutant(**{**row, "tests": tuple(row.get("tests", ("tests",)))}) for row in rows]


def run_tests(tree: Path, tests: tuple[str, ...]) -> str:
    """Run the tests; return the first that failed, or "" if all passed."""
    own = {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*PYTEST, *tests],
            cwd=tree,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"timed out after {TIMEOUT_S} s"
    if done.returncode == 0:
        return ""
    failed = FAILED.search(done.stdout)
    if failed is None:  # neither passed nor failed: the tests could not run
        raise SystemExit(f"pytest {' '.join(tests)} in {tree}:\n{done.stdout}{done.stderr}")
    return failed[1]


def copy_tree(tree: Path) -> Path:
    everywhere = shutil.ignore_patterns(*NOT_COPIED)

    def ignored(folder: str, names: list[str]) -> set[str]:
        return everywhere(folder, names) | (
            set(NOT_COPIED_FROM_ROOT) & set(names) if Path(folder) == ROOT else set()
        )

    shutil.copytree(ROOT, tree, ignore=ignored)
    return tree


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these mutations")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="how many at a time")
    chosen = parser.parse_args()
    mutants = [m for m in read_mutants() if not chosen.names or m.name in chosen.names]
    misfits = {m.name: why for m in mutants if (why := m.misfit())}
    for name, why in misfits.items():
        print(f"{name}: {why}")
    if misfits or not mutants:
        return 1
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(chosen.jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(chosen.jobs):
            trees.put(copy_tree(Path(place) / str(number)))
        every = sorted({test for m in mutants for test in m.tests})
        if broken := run_tests(copy_tree(Path(place) / "unmutated"), tuple(every)):
            print(f"{broken} fails without a mutation, so mutations cannot be judged")
            return 1

        def killer(mutant: Mutant) -> str:
            tree, start = trees.get(), time.monotonic()
            mutant.apply(tree)
            try:
                failed = run_tests(tree, mutant.tests)
            finally:
                mutant.undo(tree)
                trees.put(tree)
            what = f"killed by {failed}" if failed else f"SURVIVED: {mutant.breaks}"
            print(
                f"{mutant.name:<26} {mutant.file:<28} {time.monotonic() - start:4.0f} s  {what}", flush=True
            )
            return failed

        killed = sum(bool(failed) for failed in pool.map(killer, mutants))
    print(f"{killed} of {len(mutants)} killed ({killed / len(mutants):.0%}; goal: at least {WANTED:.0%})")
    return 0 if killed >= WANTED * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
