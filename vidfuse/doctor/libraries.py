"""Checks of Python and of the libraries that vidfuse needs."""

from __future__ import annotations

import platform
import re
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, requires

from vidfuse.backbones import BACKBONES, place_of
from vidfuse.backbones.imports import installed_version, reinstall
from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import Probe
from vidfuse.errors import reason_of

IDENTITY = ("version", "package", "cuda", "hip", "threads")
OLDEST_PYTHON = (3, 11)
MINIMUM = re.compile(r"([\w.-]+)>=([\d.]+)$")


def python() -> Check:
    """The interpreter, the operating system, and vidfuse itself."""
    version = platform.python_version()
    system = f"{platform.system()} {platform.machine()}".strip()
    values = {
        "version": version,
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "vidfuse": installed_version("vidfuse"),
    }
    summary = f"{version} on {system}, vidfuse {values['vidfuse'] or 'run from its sources'}"
    if sys.version_info < OLDEST_PYTHON or sys.maxsize < 2**32:
        fix = "Install a 64-bit Python 3.11 or newer, and vidfuse in an environment made with it."
        return Check("python", "broken", summary, values, fix)
    return Check("python", "ok", summary, values)


def packages(found: Probe) -> Check:
    """The small libraries, and the versions of all."""
    if found.error:
        fix = reinstall(dependencies=True)
        return Check("packages", "broken", found.error, {"error": found.error}, fix)
    errors = found.values["errors"]
    oldest = requirements()
    old = {
        name: f"{version} is older than {minimum}"
        for name, minimum in oldest.items()
        if (version := installed_version(name)) and _numbers(version) < _numbers(minimum)
    }
    old.pop("torchvision", None)  # it goes with torch: see there
    values = {"versions": found.values["versions"], "errors": errors, "too_old": old}
    if not errors and not old:
        return Check("packages", "ok", _listed(values["versions"]), values)
    summary = "; ".join(f"{name}: {reason}" for name, reason in (errors | old).items())
    fixes = []
    if errors:
        fixes.append(f"Run: pip install --force-reinstall {' '.join(errors)}")
    if old:
        names = [f'"{name}>={oldest[name]}"' for name in old]
        names += ["torchvision"] if "torch" in old else []
        fixes.append(f"Run: pip install --upgrade {' '.join(names)}")
    return Check("packages", "broken", summary, values, "\n".join(fixes))


def torch(found: Probe) -> Check:
    """torch, and that it computes."""
    return _library("torch", found, "Run: pip install --force-reinstall torch torchvision")


def torchvision(found: Probe) -> Check:
    """torchvision, and that it fits torch."""
    return _library("torchvision", found, "Run: pip install --force-reinstall torch torchvision")


def _library(name: str, found: Probe, fix: str) -> Check:
    if found.error:
        version = installed_version(name)
        values = {"version": version, "error": found.error}
        return Check(name, "broken", found.error, values, found.hint or fix)
    values = {key: found.values[key] for key in IDENTITY if key in found.values}
    return Check(name, "ok", str(values["version"]), values)


def requirements() -> dict[str, str]:
    """The oldest version of each package that vidfuse asks for everywhere."""
    try:
        lines = requires("vidfuse") or []
    except PackageNotFoundError:  # it runs from its sources
        return {}
    found = (MINIMUM.match(line.replace(" ", "")) for line in lines)
    return {match[1]: match[2] for match in found if match}


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, for comparing."""
    release = re.match(r"[\d.]*", version)
    numbers = [int(part) for part in release[0].split(".") if part] if release else []
    return tuple(numbers + [0] * (4 - len(numbers)))


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def bundled_weights() -> Check:
    """The weights that come with the package: of the default network, and of the first edition."""
    bundled = {name: info.weights for name, info in BACKBONES.items() if info.bundled}
    values, problems, size = {}, [], 0
    for name, weights in bundled.items():
        assert weights is not None
        place = place_of(weights)
        values[name] = {"path": str(place), "sha256": None, "expected": weights.sha256}
        try:
            content = place.read_bytes()
        except OSError as error:
            problems.append(f"{place} cannot be read ({reason_of(error)})")
            continue
        size += len(content)
        values[name]["sha256"] = sha256(content).hexdigest()
        if values[name]["sha256"] != weights.sha256:
            problems.append(f"{place} is damaged: its checksum is another one")
    if problems:
        return Check("bundled weights", "broken", "; ".join(problems), values, reinstall())
    summary = f"{', '.join(bundled)}, {size / 1e6:.1f} MB, checksums right"
    return Check("bundled weights", "ok", summary, values)
