"""The machine and this process on it: processor, memory, forks and Python's collector."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from vidfuse.rpc import OUT_OF_MEMORY

ARM = ("arm64", "aarch64")
X86 = ("x86_64", "amd64")
# Instruction set → the flags that the system or torch may know it by; all of a tuple are needed.
X86_SETS = {
    "AVX2": (("avx2",),),
    "AVX-512": (("avx512f",), ("avx512_f",)),
    "AVX512-BF16": (("avx512_bf16",),),
    "AMX": (("amx_tile", "amx_bf16"),),
}
ARM_SETS = {
    "NEON": (("asimd",), ("neon",)),
    "SVE": (("sve",),),
    "BF16": (("bf16",),),
}
# Of glibc's malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX (large blocks need the main arena).
MALLOC_OPTIONS = {-4: 0, -1: 2**30, -8: 1}
UNLIMITED = 2**60  # bytes; version 1 of control groups writes such a number for "no limit"
LEAST_SHARE, MOST_SHARE = 2**30, 2**32  # bytes of memory of a process beside others
WATCH_SECONDS = 0.05  # between two looks at what a process takes


def instruction_sets(
    machine: str, flags: frozenset[str], known: Mapping[str, bool]
) -> dict[str, bool | None]:
    """Instruction sets of the processor; None is not known.

    Args:
        machine: The processor's architecture.
        flags: What the operating system lists; empty where it lists nothing.
        known: What torch says, by name.
    """
    machine = machine.lower()
    sets = X86_SETS if machine in X86 else ARM_SETS if machine in ARM else {}
    answers: dict[str, bool | None] = {}
    for name, spellings in sets.items():
        told = [all(known[flag] for flag in s) for s in spellings if all(f in known for f in s)]
        if flags:
            answers[name] = any(set(spelling) <= flags for spelling in spellings)
        else:
            answers[name] = any(told) if told else None
    if "NEON" in answers:
        answers["NEON"] = True  # part of the architecture
    return answers


def cpu_flags() -> frozenset[str]:
    """The processor's features as the operating system lists them, in lower case."""
    try:
        if sys.platform == "darwin":
            words = ["sysctl", "hw.optional"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
            return mac_flags(done.stdout)
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].lower().split()) if found else frozenset()


def mac_flags(text: str) -> frozenset[str]:
    """Features in what ``sysctl hw.optional`` prints: ``hw.optional.arm.FEAT_BF16: 1``."""
    return frozenset(name.lower() for name in re.findall(r"FEAT_(\w+): 1$", text, re.MULTILINE))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores() -> int:
    """Number of cores this process can keep busy: more processes or threads only wait."""
    quota = cpu_quota()
    return usable_cores() if quota is None else min(usable_cores(), math.ceil(quota))


def keep_memory() -> None:
    """Have the C library keep large blocks that are freed.

    glibc hands them back to the system, and every forward pass, training step or decoded clip would
    get fresh pages: up to a third of the time on virtual machines. Other libraries are left alone.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        for parameter, value in MALLOC_OPTIONS.items():
            library.mallopt(parameter, value)


spare_imports = False
"""Whether what `no_collection` imports is spared from every later search, the last one at exit too.

Set by a process that is the program's own: objects of somebody else's would be spared with it, such
as open files in cycles, which then are not written to the end.
"""
_forked_with_torch = False


@contextmanager
def no_collection() -> Iterator[None]:
    """Make many objects that stay, such as those of a large library that is imported.

    Meanwhile Python's collector would look at all of them again and again and find nothing: an
    eighth of the time that importing torch takes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        if spare_imports and "triton" not in sys.modules:  # it would count what is left
            gc.freeze()


def _remember_torch() -> None:
    global _forked_with_torch
    _forked_with_torch = "torch" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_torch)


def compute_alone() -> None:
    """Have torch compute with one thread where this process was forked from one that had torch.

    The threads of its parent are not there. torch's OpenMP does not know, and waits for them for
    ever as soon as it wants several; with one thread it needs none of them. PyTorch's own
    ``DataLoader`` computes so in its processes.
    """
    if _forked_with_torch:
        import torch

        torch.set_num_threads(1)


@contextmanager
def one_thread(device: object) -> Iterator[None]:
    """On a CPU, have torch compute with one thread: for small work more of them only wait.

    It also makes the same numbers come out whatever the number of cores.
    """
    import torch

    before = torch.get_num_threads()
    if str(device) == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' time that the control group gives this process; None is no limit.

    Args:
        root: Where ``sys`` and ``proc`` are.
    """
    quotas = []
    # Version 2 says "200000 100000", or "max 100000"; version 1 has two files.
    for text in _groups(root, "cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        words = text.split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that the control group gives this process; None is no limit.

    Args:
        root: Where ``sys`` and ``proc`` are.
    """
    texts = _groups(root, "memory", ["memory.max"], ["memory.limit_in_bytes"])
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _groups(root: Path, controller: str, *alternatives: list[str]) -> list[str]:
    """Texts of files of the control groups that this process is in, up to the topmost.

    Args:
        root: Where ``sys`` and ``proc`` are.
        controller: Name of the controller, in version 1 of control groups.
        alternatives: Names of files that belong together; of each group those that there are first.
    """
    texts = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            _, names, group = [*line.split(":", 2), "", ""][:3]
            if names and controller not in names.split(","):
                continue
            top = root / "sys/fs/cgroup" / (controller if names else "")
            folder = top / group.strip("/")
            for place in [folder, *folder.parents][: len(folder.parts) - len(top.parts) + 1]:
                for files in alternatives:
                    with suppress(OSError):
                        found = [(place / name).read_text("utf-8", "replace") for name in files]
                        texts.append(" ".join(text.strip() for text in found))
                        break
    return texts


def memory() -> tuple[int, int]:
    """Bytes of memory in all, and bytes available."""
    import psutil

    found = psutil.virtual_memory()
    return int(found.total), int(found.available)


def free_memory() -> int:
    """Bytes of memory that a program may still take, at most."""
    return min(*memory(), memory_limit() or UNLIMITED)


def memory_share(processes: int) -> int:
    """Bytes for each of some processes side by side: half of the memory between them, but 1 to 4 GB
    each.
    """
    total = min(memory()[0], memory_limit() or UNLIMITED)
    return min(max(LEAST_SHARE, total // 2 // processes), MOST_SHARE)


def limit_memory(size: int, *, resident: bool = False) -> None:
    """Let this process take so many bytes beyond what it has now.

    On Linux its address space is limited, so that an allocation too many fails (``MemoryError``).
    Other systems have no such limit; there a thread watches what it takes, and ends it.

    Args:
        size: Bytes.
        resident: Watch what it takes on Linux too: drivers of GPUs reserve more address space than
            there is memory.
    """
    import psutil

    own = psutil.Process()
    if sys.platform == "linux" and not resident:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = min(own.memory_info().vms + size, sys.maxsize)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        return
    most = own.memory_info().rss + size

    def watch() -> None:
        while own.memory_info().rss <= most:
            time.sleep(WATCH_SECONDS)
        os._exit(OUT_OF_MEMORY)

    threading.Thread(target=watch, name="memory", daemon=True).start()
