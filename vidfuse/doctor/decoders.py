"""Checks of the decoders: which are found, and why each is or is not used."""

from __future__ import annotations

import platform
import sys
from typing import Any

from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import Probe
from vidfuse.video.backends import BACKENDS, POLICIES

_, AUTO = POLICIES["auto"]
NOT_NEEDED = "PyAV reads videos without it."


def decoder(backend: str, found: Probe) -> Check:
    """Check one decoder.

    Args:
        backend: A key of ``BACKENDS``.
        found: The result of importing its module.
    """
    name, known = f"decoder {backend}", BACKENDS[backend]
    if known.gpu:
        return _on_gpu(backend, found)
    use = _use(backend)
    if not found.error:
        values = {"found": True, "used": backend in AUTO, "why": use, **found.values}
        return Check(name, "ok", f"{_versions(found.values)}, {use}", values)
    values = {"found": not found.missing, "used": False}
    # What an extra brings fits the torch that is there, which is not to be installed again.
    options = "--force-reinstall --no-deps" if known.extra else "--force-reinstall"
    repair = f"Run: pip install {options} {known.package}"
    if backend == AUTO[0]:  # which vidfuse cannot do without
        problem = "not installed" if found.missing else f"cannot be imported: {found.error}"
        summary = f"{problem}; no video can be read without it"
        return Check(name, "broken", summary, values | {"error": found.error}, repair)
    if not found.missing:
        why = f"not used: {found.error}"
        return Check(
            name, "warning", why, values | {"why": why}, found.hint or f"{repair}   ({NOT_NEEDED})"
        )
    if known.extra:
        why = f"not used, since the extra '{known.extra}' is not installed; nothing needs it"
        return Check(name, "ok", why, values | {"why": why})
    if not known.has_wheels:
        here = f"{sys.platform} {platform.machine()}"
        why = f"not used, since it has no wheels for {here}; PyAV reads all videos"
        return Check(name, "ok", why, values | {"why": why})
    why = "not used, since it is not installed"
    fix = f"Run: pip install {known.package}   ({NOT_NEEDED})"
    return Check(name, "warning", why, values | {"why": why}, fix)


def _on_gpu(backend: str, found: Probe) -> Check:
    """Check a decoder that runs on an NVIDIA GPU, which few machines can have."""
    problem = found.values.get("gpu_error")
    if found.error:
        package = BACKENDS[backend].package
        problem = f"{package} {'is not installed' if found.missing else 'does not work'}"
    why = f"not used: {problem}" if problem else _use(backend)
    values = {"found": not problem, "used": False, "why": why}
    return Check(f"decoder {backend}", "ok", why, values)


def _use(backend: str) -> str:
    if backend == AUTO[0]:
        return "used first, for every video"
    if backend in AUTO:
        return f"used for videos that PyAV cannot read, and with --decoder {backend}"
    return f"used with --decoder {backend} only"


def _versions(values: dict[str, Any]) -> str:
    """The version of a decoder, with that of the FFmpeg in it."""
    if "libraries" in values:
        return f"{values['version']} (libavcodec {values['libraries'].get('libavcodec', '?')})"
    if "ffmpeg" in values:
        return f"{values['version']} (FFmpeg {values['ffmpeg']})"
    return str(values["version"])
