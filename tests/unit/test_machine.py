"""What the machine grants: threads beside others, quotas, memory."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patchword import machine
from patchword.machine import CpuSample


@pytest.mark.parametrize(
    ("cores", "hardware_threads", "busy", "threads"),
    [(2, 2, 0.0, 2), (2, 2, 0.4, 2), (2, 2, 1.0, 1), (2, 2, 2.0, 1), (4, 8, 1.0, 4), (4, 8, 7.0, 1)],
)
def test_threads_are_those_that_others_leave(
    cores: int, hardware_threads: int, busy: float, threads: int
) -> None:
    assert machine.threads_beside(cores, hardware_threads, busy) == threads


def test_our_own_work_is_not_somebody_elses() -> None:
    first = CpuSample(at_s=0.0, all_busy_s=10.0, own_busy_s=1.0)
    assert machine.busy_beside(first, CpuSample(at_s=2.0, all_busy_s=14.0, own_busy_s=3.0)) == pytest.approx(
        1.0
    )
    assert machine.busy_beside(first, CpuSample(at_s=2.0, all_busy_s=11.0, own_busy_s=3.0)) == 0.0


def test_the_users_own_choice_of_threads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert machine.granted_threads() == 3


def test_asking_for_threads_takes_no_time_once_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine.start_sampling()
    time.sleep(0.03)
    start = time.process_time()
    assert 1 <= machine.granted_threads() <= (os.cpu_count() or 1)
    assert time.process_time() - start < 0.03


def test_asking_again_at_once_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    machine.granted_threads()
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    machine.granted_threads()
    assert not slept


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_cgroup_quotas_of_both_versions_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_cgroup_folders", lambda controller: [tmp_path])
    assert machine._cpu_quota() == quota


def test_the_memory_limit_is_the_least_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1048576")
    monkeypatch.setattr(machine, "_cgroup_folders", lambda controller: [tmp_path])
    assert machine.memory_limit_bytes() == 1048576


def test_the_peak_is_that_of_this_process_alone() -> None:
    # The parent's peak must not show in a child that does next to nothing.
    ballast = bytearray(200 << 20)
    code = "from patchword.machine import peak_memory_bytes as p; print(p())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(child.stdout) < len(ballast) <= machine.peak_memory_bytes()


def test_the_allocator_is_tuned_where_it_is_glibcs() -> None:
    libc = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else None
    glibc = (libc or "").startswith("glibc")
    tuned = subprocess.run(
        [sys.executable, "-c", "from patchword.machine import tune_allocator as t; print(t())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuned.stdout.strip() == str(glibc)
