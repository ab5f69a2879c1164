"""What this machine really grants: threads, memory, and an allocator that keeps what it frees.

Nothing here runs on import; the commands and `patchword.load` call it. The measurements
behind each choice are in docs/decisions/0006-threads-and-allocator.md.
"""

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.errors import SettingsError

if TYPE_CHECKING:
    import torch

_CGROUPS = Path("/sys/fs/cgroup")
# Shorter looks see too few of the kernel's ticks (100 a second) to tell busy from idle.
_SHORTEST_LOOK_S = 0.025
# One picture predicted after the other must not wait for a look each time.
_ANSWER_HOLDS_S = 0.5


@dataclass(frozen=True, kw_only=True)
class CpuSample:
    """CPU seconds spent so far on the cores we may use, by anybody and by this process."""

    at_s: float
    all_busy_s: float
    own_busy_s: float


_first_look: CpuSample | None = None
_last_answer: int | None = None


def start_sampling() -> None:
    """Begin to watch how busy the machine is, so that `granted_threads` need not wait.

    The command calls this first; importing torch then gives a second or more of watching.
    """
    global _first_look
    _first_look = _look()


def granted_threads() -> int:
    """Threads that compute can use now: the cores granted, less what other processes take.

    Granted is affinity, cgroup quota and OMP_NUM_THREADS, two hardware threads of one core
    counting once, as torch counts. Other processes are watched since `watch()`, or for 25 ms. A
    thread more than the machine has room for costs more than a thread too few: each
    parallel region ends with its slowest thread, which waits for the other process's turn.
    """
    global _first_look, _last_answer
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = granted_cores()
    first = _first_look or _look()
    if first is None:
        return cores
    passed = time.monotonic() - first.at_s
    if _last_answer is not None and passed < _ANSWER_HOLDS_S:
        return min(_last_answer, cores)
    if passed < _SHORTEST_LOOK_S:
        time.sleep(_SHORTEST_LOOK_S - passed)
    last = _look()
    _first_look = last
    assert last is not None
    _last_answer = threads_beside(cores, len(_usable_cpus()), busy_beside(first, last))
    return _last_answer


def busy_beside(first: CpuSample, last: CpuSample) -> float:
    """Cores that other processes kept busy between two looks."""
    passed = max(last.at_s - first.at_s, 1e-3)
    others = (last.all_busy_s - first.all_busy_s) - (last.own_busy_s - first.own_busy_s)
    return max(others / passed, 0.0)


def hardware_threads() -> int:
    """How many threads can run at once on the processors granted."""
    return len(_usable_cpus())


def threads_beside(cores: int, hardware_threads: int, busy: float) -> int:
    """Cores left when `busy` of the hardware threads are taken; half a core counts as free."""
    return max(1, min(cores, int(hardware_threads - busy + 0.5)))


def granted_cores() -> int:
    """Cores this process may use when nobody else runs: affinity and cgroup quota."""
    cpus = _usable_cpus()
    cores = len({_siblings(cpu) for cpu in cpus}) or 1
    quota = _cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota + 0.5)))


def _usable_cpus() -> frozenset[int]:
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """The hardware threads of the core of `cpu`; itself where the system does not say."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _look() -> CpuSample | None:
    """None where the system does not tell (no /proc)."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    # Work of lower priority than ours gives way to us, so it takes nothing from us.
    niced_counts = os.nice(0) > 0
    usable = {f"cpu{cpu}" for cpu in _usable_cpus()}
    ticks = 0
    for name, user, nice, system, _idle, _waiting, irq, soft_irq, steal, *_ in lines:
        if name in usable:
            ticks += int(user) + int(system) + int(irq) + int(soft_irq) + int(steal)
            ticks += int(nice) if niced_counts else 0
    return CpuSample(at_s=time.monotonic(), all_busy_s=ticks / ticks_per_s, own_busy_s=time.process_time())


def _cpu_quota() -> float | None:
    """The least CPU quota over this process's cgroups and those above, in cores."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()  # version 2; "max" is no number
            quotas.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()  # version 1; -1 is none
            if int(quota) > 0:
                quotas.append(int(quota) / int((folder / "cpu.cfs_period_us").read_text()))
    return min(quotas, default=None)


def find_device(name: "str | torch.device | None" = None) -> "torch.device":
    """The device of that name to compute on; None and "auto" take a CUDA GPU where there is one, else the CPU.

    Raises: SettingsError for a device that this machine has not, with those that it has.
    """
    import torch

    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(name)
        # Nothing can be read back from "meta", where torch makes tensors without values.
        works = device.type != "meta" and torch.empty(0, device=device).device.type == device.type
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError):
        works = False
    if not works:
        raise SettingsError(
            f"no device {str(name)!r}; this machine has: {', '.join(there)}", f"give --device {there[-1]}"
        )
    return device


def memory_limit_bytes() -> int:
    """Memory this process may take: the machine's, or less if a cgroup or `ulimit` says so."""
    limits = [_physical_memory_bytes()]
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min([*limits, *_process_limits()])


def most_memory_left_bytes() -> int:
    """More than this the process cannot get, whatever others give back: the limit and all swap, less what it holds."""
    swap = _kilobytes(Path("/proc/meminfo"), "SwapTotal") or 0
    held = _kilobytes(Path("/proc/self/status"), "VmRSS") or 0
    granted = memory_limit_bytes()
    if not _process_limits() or granted < min(_process_limits()):
        granted += swap
    return max(granted - held, 0)


def _process_limits() -> list[int]:
    """What `ulimit` leaves, as resident memory: an address space also holds code that is mapped and never read."""
    if sys.platform == "win32":
        return []
    import resource

    held = _kilobytes(Path("/proc/self/status"), "VmRSS") or 0
    found = []
    for kind, field in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit, _ = resource.getrlimit(kind)
        used = _kilobytes(Path("/proc/self/status"), field)
        if limit != resource.RLIM_INFINITY and used is not None:
            found.append(max(limit - used, 0) + held)
    return found


def _kilobytes(file: Path, field: str) -> int | None:
    """The value of a line "Field:  123 kB", in bytes; None if the system does not tell."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup_folders(controller: str) -> list[Path]:
    """The folders of this process's cgroups that hold `controller`, and all above them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        # Inside a container the path is the host's and may not be there; the root then is ours.
        place = root / inside.lstrip("/")
        folders += [place, *(p for p in place.parents if p.is_relative_to(root))]
    return [folder for folder in folders if folder.is_dir()]


def _physical_memory_bytes() -> int:
    if sys.platform == "win32":
        return _windows_memory_bytes()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _windows_memory_bytes() -> int:
    import ctypes

    kilobytes = ctypes.c_ulonglong()
    kernel = ctypes.CDLL("kernel32")
    kernel.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))
    return kilobytes.value * 1024


def peak_memory_bytes() -> int:
    """The most memory that this process has held; 0 where the system does not tell."""
    # getrusage would carry over the peak of the program that started this one.
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tune_allocator() -> bool:
    """Have glibc keep freed buffers for the next batch; whether it took it.

    By default each buffer over a threshold is a mapping of its own that goes back to the
    system when freed, so every batch pays for fresh, zeroed pages. Only glibc's malloc is
    concerned; others (musl, macOS, jemalloc preloaded) are left as they are.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # names of the parameters in malloc.h
    with contextlib.suppress(ValueError, OSError, AttributeError):
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
        # 32 MiB is the most that glibc takes as threshold of mappings.
        taken = mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 512 << 20)
        return bool(taken)
    return False
