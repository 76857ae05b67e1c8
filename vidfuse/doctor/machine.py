"""Checks of the machine: GPU, instruction sets, cores, memory."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess

from vidfuse import machine as host
from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import Probe

START = "https://pytorch.org/get-started/locally/"
LITTLE_MEMORY = 1e9  # bytes; importing torch takes half of it


def nvidia_gpus() -> list[str]:
    """The NVIDIA GPUs that their driver knows of, whatever torch says."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line.partition(" (UUID")[0] for line in done.stdout.splitlines()]
    return [line.partition(": ")[2] for line in lines if line.startswith("GPU ")]


def gpu(found: Probe, present: list[str]) -> Check:
    """The GPUs that torch computes on, or why it uses none.

    Args:
        found: The result of importing torch.
        present: The GPUs that the NVIDIA driver lists.
    """
    gpus = found.values.get("gpus", [])
    build = found.values.get("cuda")
    values = {"cuda": build, "gpus": gpus, "mps": found.values.get("mps"), "driver": present}
    if found.error:
        return Check("gpu", "warning", "not known, since torch does not work", values)
    if gpus:
        names = ", ".join(f"{each['name']} ({each['bytes'] / 1e9:.0f} GB)" for each in gpus)
        return Check("gpu", "ok", f"{names}, CUDA {build or found.values.get('hip')}", values)
    if values["mps"]:
        return Check("gpu", "ok", "Apple's, by Metal (mps)", values)
    if not present:
        return Check("gpu", "ok", "none; networks run on the CPU", values)
    summary = f"{', '.join(present)}: not used, since "
    if build is None:
        fix = f"Install a build of torch with CUDA: {START}"
        return Check("gpu", "warning", f"{summary}torch was built without CUDA", values, fix)
    reason = found.values.get("gpu_error") or "torch does not see it (CUDA_VISIBLE_DEVICES?)"
    fix = f"Update the NVIDIA driver, or install torch for an older CUDA: {START}"
    return Check("gpu", "warning", summary + reason, values, fix)


def instructions(found: Probe, flags: frozenset[str] | None = None) -> Check:
    """The processor's instruction sets that matter to networks.

    Args:
        found: The result of importing torch.
        flags: Processor flags from the operating system; None asks it.
    """
    sets = host.instruction_sets(
        platform.machine(),
        host.cpu_flags() if flags is None else flags,
        found.values.get("instructions", {}),
    )
    used = found.values.get("capability")
    values = {"sets": sets, "torch": used, "processor": platform.machine()}
    have = ", ".join(name for name, there in sets.items() if there) or "none that is known"
    unknown = [name for name, there in sets.items() if there is None]
    summary = f"{have}; not known: {', '.join(unknown)}" if unknown else have
    summary += f"; torch uses {used}" if used else ""
    if sets.get("AVX2") is False:
        fix = "In a virtual machine, give it the processor model of its host."
        return Check("instructions", "warning", f"{summary}; slow without AVX2", values, fix)
    if sets.get("AVX2") and used in ("DEFAULT", "NO AVX"):
        fix = "Unset ATEN_CPU_CAPABILITY."
        return Check("instructions", "warning", f"{summary}, which is slow", values, fix)
    return Check("instructions", "ok", summary, values)


def cores(quota: float | None = None) -> Check:
    """The cores that this process may use.

    Args:
        quota: Cores that a container may use; None asks the system.
    """
    quota = host.cpu_quota() if quota is None else quota
    usable = host.usable_cores()
    threads = os.environ.get("OMP_NUM_THREADS")
    values = {
        "usable": usable,
        "logical": os.cpu_count(),
        "quota": quota,
        "OMP_NUM_THREADS": threads,
    }
    summary = f"{usable} usable" + (f" of {os.cpu_count()}" if usable != os.cpu_count() else "")
    summary += f", OMP_NUM_THREADS={threads}" if threads else ""
    if quota is not None and math.ceil(quota) < usable:
        summary += f", but this container gets the time of {quota:g}"
        if threads is None:
            few = math.ceil(quota)
            fix = f"Set OMP_NUM_THREADS={few}: more threads only wait."
            return Check("cores", "warning", summary, values, fix)
    return Check("cores", "ok", summary, values)


def memory() -> Check:
    """Memory, and how much of it is free."""
    total, available = host.memory()
    limit = host.memory_limit()
    if limit is not None:
        total, available = min(total, limit), min(available, limit)
    values = {"total_bytes": total, "available_bytes": available}
    summary = f"{available / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if available < LITTLE_MEMORY:
        fix = "Close other programs, or decode fewer clips at once (--workers 1)."
        return Check("memory", "warning", summary, values, fix)
    return Check("memory", "ok", summary, values)
