"""The memory and the processors that this process may use, within its limits and those of its control groups.

Control groups of version 1 and 2 are read, the process's own and all that contain it (Linux, admin-guide/cgroup-v1 and
admin-guide/cgroup-v2). `root` is the folder that contains `proc` and `sys`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from math import ceil, inf
from pathlib import Path

ROOT = Path("/")
#: Bytes from which on a limit of a control group of version 1 means that there is none.
UNLIMITED = 1 << 60
#: A worker's oom_score_adj (-1000 to 1000): if memory runs out, the kernel ends a worker and not the daemon.
WORKER_OOM_SCORE = 500
#: More threads for each CPU only cost time: 1024 on two CPUs need minutes to start.
MOST_THREADS_PER_CPU = 8
#: What makes waiting OpenMP threads sleep: of GNU's, LLVM's and Intel's library, which read it when they are loaded. On
#: contended cores, a spinning thread takes the time of those that it waits for. With GNU's library, which torch has on
#: Linux, threads first spin for some microseconds, because most waits of an iteration are shorter than it takes to wake
#: a thread.
BRIEF_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
#: Options of mallopt(3), and what `keep_freed_memory` sets: larger blocks than this are returned all the same.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = 1 << 30
#: What `ShortMemory` sets: blocks of this size and more are returned.
_RETURNED = 32 << 20
#: Texts by which oneDNN, CUDA and its libraries, onnxruntime, torch and decoders report a lack of memory.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "annot allocate memory",  # ENOMEM
    "failed to map segment",  # of a library
    "Failed to allocate memory",
    "Memory allocation error",
    "bad_alloc",
    "could not create a memory object",
    "could not create a primitive",
    "_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "out of memory",
    "Resource temporarily unavailable",  # no memory for the stack of a new thread
)


def lacks_memory(error: BaseException) -> bool:
    """True if this error of a library means a lack of memory."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def memory_limit(root: Path = ROOT) -> float:
    """Bytes that this process may have at most: of the machine, its control groups and its resource limits."""
    installed = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limits = [proc_bytes(root / "proc/meminfo").get("MemTotal", installed)]
    limits += [limit for limit, _ in _group_memory(root)]
    limits += [limit for limit, _ in _resource_limits(root)]
    return min(limits)


def free_memory(root: Path = ROOT) -> float:
    """Bytes that this process can still allocate. File caches count as free, because the kernel reclaims them."""
    left = [proc_bytes(root / "proc/meminfo").get("MemAvailable", inf)]
    left += [limit - used for limit, used in _group_memory(root)]
    left += [limit - used for limit, used in _resource_limits(root)]
    return max(0.0, min(left))


def usable_cpus(root: Path = ROOT) -> int:
    """The number of CPUs for this process: those it may run on, within the quotas of its control groups."""
    # macOS has no affinities.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares: list[float] = [own]
    for version, folder in _groups("cpu", root):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            if version == 1:
                quota = float((folder / "cpu.cfs_quota_us").read_text())
                period = float((folder / "cpu.cfs_period_us").read_text())
            else:
                quota, period = (float(n) for n in (folder / "cpu.max").read_text().split())
            if quota > 0:  # -1: no limit
                shares.append(quota / period)
    return max(1, ceil(min(shares)))


def threads_per_worker(
    workers: int = 1, environ: Mapping[str, str] | None = None, root: Path = ROOT
) -> int:
    """CPU threads of each of `workers` processes: OMP_NUM_THREADS if it is set, else an even share of the CPUs.

    Args:
        workers: Processes that share the CPUs.
        environ: The environment; this process's if None.
        root: See above.
    """
    wanted = (os.environ if environ is None else environ).get("OMP_NUM_THREADS", "")
    first = wanted.partition(",")[0].strip()  # a list has a number for each level of nesting
    if first.isdecimal() and int(first) > 0:
        return int(first)
    return max(1, usable_cpus(root) // max(1, workers))


def useful_threads(wanted: int, root: Path = ROOT) -> int:
    """`wanted` threads, or fewer if that is far more than there are CPUs for this process."""
    return min(wanted, MOST_THREADS_PER_CPU * usable_cpus(root))


def cpu_seconds(pid: int, root: Path = ROOT) -> float:
    """CPU time that a process has used; 0 if there is no such process."""
    try:
        # The name of the program, in brackets, may contain spaces.
        fields = (root / f"proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_briefly() -> None:
    """Make OpenMP threads of this process sleep if they wait for long, unless the environment says how to wait.

    OMP_WAIT_POLICY decides for every library, the other variables for one. Must be called before torch is imported.
    Child processes inherit it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in BRIEF_WAITING.items():
            os.environ.setdefault(name, value)


def end_first(score: int = WORKER_OOM_SCORE, file: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Raise this process's oom_score_adj, so that the kernel ends it before others; raising needs no privilege."""
    with suppress(OSError, ValueError):
        if int(file.read_text()) < score:
            file.write_text(str(score))


def limit_memory(limit: int) -> None:
    """Make allocations beyond `limit` bytes fail: an error that a process survives, unlike the kernel's killer.

    Not RLIMIT_AS, which also counts mapped files; and not for a GPU, whose driver maps all of its memory.

    Args:
        limit: 0 for what this process may have (`memory_limit`).
    """
    limit = limit or int(memory_limit())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


@cache
def _libc() -> ctypes.CDLL:
    """The C library."""
    return ctypes.CDLL(None)


def return_freed_memory(threshold: int = 1 << 16) -> None:
    """Let the C library return freed blocks of this many bytes or more to the system at once.

    Without this, glibc keeps blocks of up to 32 MiB for reuse after the first one was freed. (mallopt(3))
    """
    _set_options({_M_MMAP_THRESHOLD: threshold, _M_TRIM_THRESHOLD: threshold})


def keep_freed_memory() -> None:
    """Let the C library keep what is freed until `trim_heap`, for a process that paints: iterations allocate the same.

    Without this, glibc returns large blocks at once, and the system clears each page when it is used again: that took a
    seventh of the time of an iteration on a CPU. One arena, because another one has no block above 32 MiB.
    """
    _heap.keeps = True
    if not _heap.short:
        _set_options({_M_MMAP_THRESHOLD: _KEPT, _M_TRIM_THRESHOLD: _KEPT, _M_ARENA_MAX: 1})


class ShortMemory:
    """While an object of this class exists, freed memory is returned at once, for work that hardly fits.

    What is kept counts for the limit of the process, and large blocks do not fit into the holes between it. After the
    last such object, a process that kept freed memory (`keep_freed_memory`) does so again.
    """

    def __init__(self) -> None:
        _heap.short.add(id(self))
        weakref.finalize(self, _enough_memory, id(self))
        return_freed_memory(_RETURNED)
        trim_heap()


@dataclass
class _Heap:
    """`keeps`: the process keeps freed memory (`keep_freed_memory`); `short`: the numbers of all `ShortMemory`."""

    keeps: bool = False
    short: set[int] = field(default_factory=set)


_heap = _Heap()


def _enough_memory(number: int) -> None:
    """An object of `ShortMemory` is gone."""
    _heap.short.discard(number)
    if _heap.keeps:
        keep_freed_memory()


def _set_options(options: Mapping[int, int]) -> None:
    """Set options of mallopt(3), where the C library has it."""
    with suppress(AttributeError, OSError):
        for option, value in options.items():
            _libc().mallopt(option, value)


def trim_heap() -> None:
    """Return freed memory that the C library keeps to the operating system, where it can (glibc)."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


class _HeapFigures(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [(f"field_{i}", ctypes.c_size_t) for i in range(8)] + [
        ("free", ctypes.c_size_t), ("top", ctypes.c_size_t)
    ]  # fmt: skip


def _free_in_heap() -> int:
    """Bytes that the C library keeps for reuse; 0 where it does not say (not glibc, or older than 2.33)."""
    with suppress(OSError, AttributeError):
        figures = _libc().mallinfo2
        figures.restype = _HeapFigures
        return int(figures().free)
    return 0


def proc_bytes(file: Path) -> dict[str, float]:
    """The lines `Name: number kB` of a file in /proc, in bytes; empty if there is no such file."""
    found = {}
    with suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[name] = 1024.0 * int(value.split()[0])
    return found


def _resource_limits(root: Path) -> Iterator[tuple[float, float]]:
    """(limit, used) in bytes, for each resource limit of this process's memory; what its heap has free is not used."""
    status, free = proc_bytes(root / "proc/self/status"), _free_in_heap()
    for limited, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        limit, _ = resource.getrlimit(limited)
        if limit != resource.RLIM_INFINITY and used in status:
            yield limit, max(0.0, status[used] - free)


def _group_memory(root: Path) -> Iterator[tuple[float, float]]:
    """(limit, used without file caches) in bytes, for each control group that limits memory."""
    for version, folder in _groups("memory", root):
        names = ["memory.limit_in_bytes"] if version == 1 else ["memory.max", "memory.high"]
        usage = folder / ("memory.usage_in_bytes" if version == 1 else "memory.current")
        cached = ("total_inactive_file", "total_active_file")
        for name in names:
            with suppress(OSError, ValueError):  # no such file, or "max"
                limit = float((folder / name).read_text())
                if limit >= UNLIMITED:
                    continue  # the rest is read for every picture that is decoded
                used = float(usage.read_text())
                lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
                wanted = cached if version == 1 else ("inactive_file", "active_file")
                caches = sum(float(line[1]) for line in lines if line and line[0] in wanted)
                yield limit, max(0.0, used - caches)


def _groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of each control group of this process with a controller, and of all that contain it.

    In a container, the paths in /proc/self/cgroup may be the host's, and the group's own files are at the mount point.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [(2, base), (2, base / "unified")]
        elif controller in controllers.split(","):
            mounts = [(1, base / controllers), (1, base / controller)]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # outside of this namespace
            parts = []
        for version, mount in mounts:
            for depth in range(len(parts), -1, -1):
                yield version, mount.joinpath(*parts[:depth])
