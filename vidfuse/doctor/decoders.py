"""Checks of the decoders: which are found, and why each is or is not used."""

from __future__ import annotations

import platform
import sys

from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import Probe

# What decord has wheels for: the operating system as Python names it, and the processor.
DECORD_WHEELS = {("linux", "x86_64"), ("win32", "AMD64")}


def pyav(found: Probe) -> Check:
    """PyAV, which vidfuse cannot do without."""
    name = "decoder pyav"
    if found.error:
        problem = "not installed" if found.missing else f"cannot be imported: {found.error}"
        values = {"found": not found.missing, "used": False, "error": found.error}
        fix = "Run: pip install --force-reinstall av"
        return Check(name, "broken", f"{problem}; no video can be read without it", values, fix)
    codecs = found.values["libraries"].get("libavcodec", "?")
    use = "used first, for every video"
    values = {"found": True, "used": True, "why": use, **found.values}
    return Check(name, "ok", f"{found.values['version']} (libavcodec {codecs}), {use}", values)


def decord(found: Probe) -> Check:
    """decord, which reads what PyAV cannot."""
    name = "decoder decord"
    if not found.error:
        use = "used for videos that PyAV cannot read, and with --decoder decord"
        values = {"found": True, "used": True, "why": use, "version": found.values["version"]}
        return Check(name, "ok", f"{found.values['version']}, {use}", values)
    if not found.missing:
        why = f"not used, since it cannot be imported: {found.error}"
        fix = "Run: pip install --force-reinstall decord   (PyAV reads videos without it.)"
        values = {"found": True, "used": False, "why": why}
        return Check(name, "warning", why, values, fix)
    here = (sys.platform, platform.machine())
    if here in DECORD_WHEELS:
        why = "not used, since it is not installed"
        fix = "Run: pip install decord   (PyAV reads videos without it.)"
        return Check(name, "warning", why, {"found": False, "used": False, "why": why}, fix)
    why = f"not used, since it has no wheels for {' '.join(here)}; PyAV reads all videos"
    return Check(name, "ok", why, {"found": False, "used": False, "why": why})


def decord_gpu(found: Probe) -> Check:
    """decord on an NVIDIA GPU, which takes a build of one's own."""
    problem = found.values.get("gpu_error")
    if found.error:
        problem = "decord is not installed" if found.missing else "decord cannot be imported"
    if problem:
        why = f"not used: {problem}"
        values = {"found": False, "used": False, "why": why}
    else:
        why = "works, and is used with --decoder decord-gpu only"
        values = {"found": True, "used": False, "why": why}
    return Check("decoder decord-gpu", "ok", why, values)


def torchcodec(found: Probe) -> Check:
    """torchcodec, an extra, which needs FFmpeg's libraries on the system."""
    name = "decoder torchcodec"
    if found.missing:
        why = "not used, since the extra 'torchcodec' is not installed; nothing needs it"
        return Check(name, "ok", why, {"found": False, "used": False, "why": why})
    if found.error:
        why = f"not used: {found.error}"
        fix = found.hint or "Run: pip install --force-reinstall --no-deps torchcodec"
        return Check(name, "warning", why, {"found": True, "used": False, "why": why}, fix)
    why = "used with --decoder torchcodec only"
    values = {"found": True, "used": False, "why": why, **found.values}
    versions = f"{found.values['version']} (FFmpeg {found.values['ffmpeg']})"
    return Check(name, "ok", f"{versions}, {why}", values)


def torchcodec_cuda(found: Probe) -> Check:
    """torchcodec on an NVIDIA GPU (NVDEC)."""
    problem = found.values.get("gpu_error")
    if found.error:
        problem = "torchcodec is not installed" if found.missing else "torchcodec does not work"
    why = f"not used: {problem}" if problem else "used with --decoder torchcodec-cuda only"
    values = {"found": not problem, "used": False, "why": why}
    return Check("decoder torchcodec-cuda", "ok", why, values)
