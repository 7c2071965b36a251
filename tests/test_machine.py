"""Memory and processors within control groups of both versions, from made-up trees of /proc and /sys."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from nst_daemon import machine
from nst_daemon.machine import (
    free_memory,
    memory_limit,
    threads_per_worker,
    usable_cpus,
    useful_threads,
)

GIB = 1 << 30
MEMINFO = (
    "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\nHugePages_Total: 0\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 16 GiB, 8 of them available, without control groups."""
    write(tmp_path, {"proc/meminfo": MEMINFO})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    """Write files below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V2 = {
    "proc/self/cgroup": "0::/system.slice/nst.service\n",
    "sys/fs/cgroup/system.slice/memory.max": "max\n",
    "sys/fs/cgroup/system.slice/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/system.slice/nst.service/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/system.slice/nst.service/memory.high": "max\n",
    "sys/fs/cgroup/system.slice/nst.service/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/system.slice/nst.service/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB}\n",
}
V1 = {
    "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n0::/system.slice\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": "cache 0\n",
    "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory/docker/memory.usage_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/docker/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\ntotal_active_file {GIB}\n",
}


def test_without_control_groups_the_machine_is_the_limit(root: Path) -> None:
    """The limit is what is installed and the free memory is what is available."""
    assert (memory_limit(root), free_memory(root)) == (16 * GIB, 8 * GIB)
    assert usable_cpus(root) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("files", [V1, V2])
def test_a_control_group_limits_memory(root: Path, files: dict[str, str]) -> None:
    """A group of 4 GiB (the process's own or one above it), of which 3 are used and 2 are file caches, leaves 3."""
    write(root, files)
    assert memory_limit(root) == 4 * GIB
    assert free_memory(root) == 3 * GIB


def test_the_smallest_of_nested_groups_counts(root: Path) -> None:
    """A slice of 2 GiB limits a service of 4, and `memory.high` counts like `memory.max`."""
    write(root, V2 | {"sys/fs/cgroup/system.slice/memory.max": f"{2 * GIB}"})
    write(root, {"sys/fs/cgroup/system.slice/memory.stat": ""})
    assert memory_limit(root) == 2 * GIB
    assert free_memory(root) == 0
    write(root, {"sys/fs/cgroup/system.slice/nst.service/memory.high": f"{GIB}"})
    assert memory_limit(root) == GIB


@pytest.mark.parametrize("path", ["/", "/docker/of-the-host", "/../elsewhere"])
def test_in_a_container_the_mount_point_is_the_group(root: Path, path: str) -> None:
    """The group's own files are found at the mount point, whatever path the kernel names."""
    write(root, {"proc/self/cgroup": f"0::{path}\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"})
    write(root, {"sys/fs/cgroup/memory.current": "0", "sys/fs/cgroup/memory.stat": ""})
    assert memory_limit(root) == GIB


def test_a_limit_of_the_process_counts() -> None:
    """Under `ulimit -v` of 2 GiB, the limit is 2 GiB and less than that is free."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30));"
        "from nst_daemon.machine import *; assert memory_limit() == 2 << 30 > free_memory() > 1 << 30"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"},
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"},
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        },
        {
            "proc/self/cgroup": "4:cpuacct,cpu:/a/b\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "20000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
        },
    ],
)
def test_a_quota_limits_the_cpus(root: Path, files: dict[str, str]) -> None:
    """A quota of one CPU or less, of the own group or of one above it, is one CPU."""
    write(root, files)
    assert usable_cpus(root) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"},
        {
            "proc/self/cgroup": "4:cpu:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
        },
        {"proc/self/cgroup": "nonsense"},
    ],
)
def test_no_quota_leaves_the_affinity(root: Path, files: dict[str, str]) -> None:
    """Without a quota, every CPU of the affinity may be used."""
    write(root, files)
    assert usable_cpus(root) == len(os.sched_getaffinity(0))


def test_threads_follow_the_environment_else_the_cpus(root: Path) -> None:
    """OMP_NUM_THREADS is the number for each worker; without it, or with nonsense, the CPUs are divided."""
    assert threads_per_worker(4, {"OMP_NUM_THREADS": "3"}, root) == 3
    assert threads_per_worker(1, {"OMP_NUM_THREADS": " 2,1"}, root) == 2
    for nonsense in ("", "0", "-1", "many"):
        assert threads_per_worker(1, {"OMP_NUM_THREADS": nonsense}, root) == usable_cpus(root)
    assert threads_per_worker(1000, {}, root) == 1


def test_absurd_numbers_of_threads_are_limited(root: Path) -> None:
    """Twice as many threads as CPUs are a wish, and a million is a slip."""
    cpus = usable_cpus(root)
    assert useful_threads(2 * cpus, root) == 2 * cpus
    assert useful_threads(1_000_000, root) == 8 * cpus


def test_the_oom_score_is_only_raised(tmp_path: Path) -> None:
    """A lower score is raised and a higher one is kept; a missing file is no error."""
    file = tmp_path / "oom_score_adj"
    for before, after in (("0\n", "500"), ("-900\n", "500"), ("800\n", "800\n")):
        file.write_text(before)
        machine.end_first(file=file)
        assert file.read_text() == after
    machine.end_first(file=tmp_path / "gone")


def test_a_process_can_raise_its_own_oom_score() -> None:
    """The kernel takes the score from the process itself."""
    code = (
        "from nst_daemon.machine import *; end_first();"
        "assert int(open('/proc/self/oom_score_adj').read()) >= 500"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc offers it")
def test_freed_memory_goes_back_to_the_machine() -> None:
    """Of 64 MB that were freed below a block in use, more than half leave the process."""

    def resident() -> float:
        return machine.proc_bytes(Path("/proc/self/status"))["VmRSS"]

    blocks = [bytearray(64_000) for _ in range(1000)]
    above = bytearray(64_000)
    blocks.clear()
    before = resident()
    machine.trim_heap()
    assert before - resident() > 32e6
    assert len(above) == 64_000


#: The beginning of programs that look at their own memory.
RESIDENT = """
import ctypes, resource
from pathlib import Path
from nst_daemon import machine
def resident(): return machine.proc_bytes(Path('/proc/self/status'))['VmRSS']
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc offers it")
def test_freed_memory_is_kept_and_counts_as_free() -> None:
    """A block of 200 MB that a painting process frees stays in it, counts as free, and leaves it when asked to."""
    code = (
        "machine.keep_freed_memory()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "start, free = resident(), machine.free_memory()\n"
        "block = bytearray(b'1') * 200_000_000\n"
        "above = ctypes.create_string_buffer(1 << 20)\n"
        "assert machine.free_memory() < free - 150e6\n"
        "del block\n"
        "assert resident() > start + 150e6, 'is kept'\n"
        "assert machine.free_memory() > free - 50e6, 'counts as free'\n"
        "machine.trim_heap()\n"
        "assert resident() < start + 50e6, 'is returned'\n"
    )
    subprocess.run([sys.executable, "-c", RESIDENT + code], check=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc offers it")
def test_freed_memory_is_returned_while_memory_is_short() -> None:
    """A process that keeps freed memory returns it as long as one of two `ShortMemory` exists, and no longer."""
    code = (
        "def kept():\n"
        "    machine.trim_heap()\n"
        "    start = resident()\n"
        "    block = ctypes.create_string_buffer(b'1' * 1000, 200_000_000)\n"
        "    ctypes.memset(block, 1, 200_000_000)\n"
        "    above = ctypes.create_string_buffer(1 << 20)\n"
        "    del block\n"
        "    return resident() > start + 150e6\n"
        "machine.keep_freed_memory()\n"
        "assert kept()\n"
        "one, other = machine.ShortMemory(), machine.ShortMemory()\n"
        "assert not kept()\n"
        "del one\n"
        "machine.keep_freed_memory()\n"
        "assert not kept(), 'the other one exists'\n"
        "del other\n"
        "assert kept()\n"
    )
    subprocess.run([sys.executable, "-c", RESIDENT + code], check=True)


@pytest.mark.parametrize("chosen", [{}, *({name: "1"} for name in machine.BRIEF_WAITING)])
def test_threads_wait_briefly_unless_the_environment_says_how(chosen: dict[str, str]) -> None:
    """A variable that is set is kept, and the others are added to it, except to OMP_WAIT_POLICY."""
    others = {k: v for k, v in os.environ.items() if k not in machine.BRIEF_WAITING}
    with mock.patch.dict(os.environ, others | chosen, clear=True):
        machine.wait_briefly()
        added = {} if "OMP_WAIT_POLICY" in chosen else machine.BRIEF_WAITING
        assert dict(os.environ) == others | added | chosen


def test_gnu_openmp_reads_how_to_wait() -> None:
    """The library that torch loads takes over the number of spins, although the policy is to sleep."""
    code = (
        "from nst_daemon import machine; machine.wait_briefly(); import torch; torch.ones(9).sum()"
    )
    others = {k: v for k, v in os.environ.items() if k not in machine.BRIEF_WAITING}
    shown = {"OMP_DISPLAY_ENV": "verbose"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=others | shown, check=True, capture_output=True, text=True
    )
    if "GOMP_SPINCOUNT" not in ended.stderr:
        pytest.skip("torch uses another OpenMP library")
    assert "GOMP_SPINCOUNT = '1000'" in ended.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in ended.stderr
