"""Shared by the benchmarks: interleaved rounds, intervals for ratios, machine facts, dated results.

Systems are compared only within one process or one round. Machine speed drifts by more than the
differences we measure, so each round runs every system once, in a newly drawn order, and a ratio
is computed within its round.
"""

import compileall
import datetime
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SOURCE = Path(__file__).parents[1] / "src"
PACKAGES = ("patchword", "torch", "numpy", "pillow", "safetensors", "timm", "transformers", "torchvision")


def interleave(
    systems: Mapping[str, Callable[[], Any]],
    rounds: int,
    seed: int = 0,
    *,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Measure the seconds of each system in each round; the order within a round is drawn anew.

    `warm_up` rounds run first and are not counted. Entry i of every list belongs to round i, so
    lists can be divided element by element. Garbage is collected between calls, not during them.
    clock: `time.process_time` for the time of the processor, on a machine that is busy with other work.
    """
    order = list(systems)
    drawn = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for round_index in range(-warm_up, rounds):
        drawn.shuffle(order)
        for name in order:
            gc.collect()
            start = clock()
            systems[name]()
            took = clock() - start
            if round_index >= 0:
                seconds[name].append(took)
    return seconds


def ratio_interval(
    ours: Sequence[float], theirs: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return how many times as long they take: the median of theirs/ours by round, and its 95 % interval.

    Above 1 we are faster. The interval is the percentile bootstrap of the median over rounds.
    Raises: ValueError if the lists have different lengths.
    """
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    drawn = random.Random(seed)
    medians = sorted(statistics.median(drawn.choices(ratios, k=len(ratios))) for _ in range(draws))
    return statistics.median(ratios), medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1]


def compile_source() -> None:
    """Compile the source to bytecode, as pip did for the peers; a package run from source may not be compiled."""
    compileall.compile_dir(SOURCE, quiet=1)


def machine_facts() -> dict[str, Any]:
    """Return what a timing depends on: processor, cores, memory, system, versions, commit and load."""
    with open("/proc/loadavg", encoding="ascii") as file:
        load = file.read().split()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores_granted": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
        "load_average": float(load),
    }


def write_result(name: str, payload: Mapping[str, Any], table_markdown: str) -> Path:
    """Write `results/DATE-name.json` and `.md`; return the path of the markdown.

    An existing name (a second run on the same day) gets a number appended.
    """
    RESULTS.mkdir(exist_ok=True)
    facts = machine_facts()
    stem = f"{facts['date'][:10]}-{name}"
    path = next(p for p in _numbered(stem) if not p.exists())
    machine = (
        f"{facts['processor']}, {facts['cores_granted']} of {facts['cores']} cores, "
        f"{facts['memory_gib']} GiB, {facts['system']}, python {facts['python']}; "
        + ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
        + f"; commit {facts['commit']}; load {facts['load_average']} when written"
    )
    path.write_text(f"# {name}, {facts['date']}\n\n{machine}\n\n{table_markdown.strip()}\n", encoding="utf-8")
    result = {"machine": facts, **payload}
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def _numbered(stem: str) -> Any:
    yield RESULTS / f"{stem}.md"
    number = 2
    while True:
        yield RESULTS / f"{stem}-{number}.md"
        number += 1


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    here = Path(__file__).parent
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"
