"""Resources available to this process (threads, memory, devices), and allocator tuning.

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
# Shorter intervals contain too few kernel ticks (100 per second) to distinguish busy from idle.
_MIN_INTERVAL_S = 0.025
# Predicting one image after another must not wait for a new measurement each time.
_CACHED_FOR_S = 0.5


@dataclass(frozen=True, kw_only=True)
class CpuSample:
    """CPU seconds spent so far on our usable cores, by all processes and by this one."""

    at_s: float
    all_busy_s: float
    own_busy_s: float


_first_sample: CpuSample | None = None
_last_result: int | None = None


def start_sampling() -> None:
    """Start measuring how busy the machine is, so that `granted_threads` need not wait.

    The command calls this first; importing torch then takes a second or more, which is the interval measured.
    """
    global _first_sample
    _first_sample = _sample()


def granted_threads() -> int:
    """Compute threads to use now: the cores granted, minus those that other processes keep busy.

    Affinity, the cgroup quota and OMP_NUM_THREADS limit the cores granted. Two hardware threads of one core
    count once, as in torch. Other processes are measured since `start_sampling()`, or for 25 ms.
    One thread too many costs more than one too few: each parallel region waits for its slowest thread,
    which waits for the other process.
    """
    global _first_sample, _last_result
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = granted_cores()
    first = _first_sample or _sample()
    if first is None:
        return cores
    passed = time.monotonic() - first.at_s
    if _last_result is not None and passed < _CACHED_FOR_S:
        return min(_last_result, cores)
    if passed < _MIN_INTERVAL_S:
        time.sleep(_MIN_INTERVAL_S - passed)
    last = _sample()
    _first_sample = last
    assert last is not None
    _last_result = threads_beside(cores, len(_usable_cpus()), busy_beside(first, last))
    return _last_result


def busy_beside(first: CpuSample, last: CpuSample) -> float:
    """Cores that other processes kept busy between two samples."""
    passed = max(last.at_s - first.at_s, 1e-3)
    others = (last.all_busy_s - first.all_busy_s) - (last.own_busy_s - first.own_busy_s)
    return max(others / passed, 0.0)


def hardware_threads() -> int:
    """Number of threads that can run at once on the CPUs granted."""
    return len(_usable_cpus())


def threads_beside(cores: int, hardware_threads: int, busy: float) -> int:
    """Cores left if `busy` of the hardware threads are in use; half a core counts as free."""
    return max(1, min(cores, int(hardware_threads - busy + 0.5)))


def granted_cores() -> int:
    """Cores this process may use if nothing else runs: affinity and cgroup quota."""
    cpus = _usable_cpus()
    cores = len({_siblings(cpu) for cpu in cpus}) or 1
    quota = _cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota + 0.5)))


def _usable_cpus() -> frozenset[int]:
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """The hardware threads that share a core with `cpu`; only `cpu` if the system does not report them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _sample() -> CpuSample | None:
    """CPU times so far, or None on a system without /proc."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    # Work of lower priority than ours yields to us, so it costs us nothing.
    niced_counts = os.nice(0) > 0
    usable = {f"cpu{cpu}" for cpu in _usable_cpus()}
    ticks = 0
    for name, user, nice, system, _idle, _waiting, irq, soft_irq, steal, *_ in lines:
        if name in usable:
            ticks += int(user) + int(system) + int(irq) + int(soft_irq) + int(steal)
            ticks += int(nice) if niced_counts else 0
    return CpuSample(at_s=time.monotonic(), all_busy_s=ticks / ticks_per_s, own_busy_s=time.process_time())


def _cpu_quota() -> float | None:
    """The smallest CPU quota of this process's cgroups and their parents, in cores."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (
                (folder / "cpu.max").read_text().split()
            )  # version 2; "max" means unlimited and fails int()
            quotas.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()  # version 1; -1 means unlimited
            if int(quota) > 0:
                quotas.append(int(quota) / int((folder / "cpu.cfs_period_us").read_text()))
    return min(quotas, default=None)


def find_device(name: "str | torch.device | None" = None) -> "torch.device":
    """The device with this name; None and "auto" select a CUDA GPU if available, else the CPU.

    Raises: SettingsError for an unavailable device; the message lists the available ones.
    """
    import torch

    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    try:
        device = torch.device(name)
        # "meta" tensors have no values, so nothing could be read back.
        works = device.type != "meta" and torch.empty(0, device=device).device.type == device.type
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError):
        works = False
    if not works:
        raise SettingsError(
            f"device {str(name)!r} is not available; this machine has: {', '.join(available)}",
            f"use --device {available[-1]}",
        )
    return device


def memory_limit_bytes() -> int:
    """Memory this process may use: the machine's, or less if a cgroup or `ulimit` limits it."""
    limits = [_physical_memory_bytes()]
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min([*limits, *_process_limits()])


def most_memory_left_bytes() -> int:
    """Upper bound on the memory this process can still get: the limit plus all swap, minus what it holds."""
    swap = _kilobytes(Path("/proc/meminfo"), "SwapTotal") or 0
    held = _kilobytes(Path("/proc/self/status"), "VmRSS") or 0
    granted = memory_limit_bytes()
    if not _process_limits() or granted < min(_process_limits()):
        granted += swap
    return max(granted - held, 0)


def device_memory_left_bytes(device: "torch.device") -> int:
    """Memory that this process can still get on the device."""
    if device.type != "cuda":
        return most_memory_left_bytes()
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _process_limits() -> list[int]:
    """The limits of `ulimit` as resident memory, since an address space also contains mapped code that is never read."""
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
    """The value of a line "Field:  123 kB", in bytes; None if it is not available."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroup_folders(controller: str) -> list[Path]:
    """The folders of this process's cgroups with `controller`, and all their parents."""
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
        # In a container this is the host's path and may not exist; the root is then our cgroup.
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
    """Peak memory of this process; 0 if the system does not report it."""
    # getrusage would include the peak of the program that started this one.
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
    """Make glibc keep freed buffers for the next batch. Returns whether glibc accepted the settings.

    By default, each buffer over a threshold is a separate mapping that is returned to the
    system when freed, so every batch pays for fresh, zeroed pages. This affects only glibc's
    malloc; other allocators (musl, macOS, preloaded jemalloc) are unchanged.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # parameter numbers from malloc.h
    with contextlib.suppress(ValueError, OSError, AttributeError):
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
        # 32 MiB is the largest mmap threshold that glibc accepts.
        accepted = mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 512 << 20)
        # Buffers are filled in decoding threads and freed in others. By default each of many arenas (8 a core) grows
        # to the size of all, over many epochs.
        accepted = accepted and mallopt(arena_max, max(granted_cores(), 2))
        return bool(accepted)
    return False
