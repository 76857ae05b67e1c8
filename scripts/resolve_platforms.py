"""Show that vidfuse's requirements resolve on each platform, as wheels and nothing else.

python scripts/resolve_platforms.py [--extra test]

Asks uv (pip install uv), which can resolve for other machines than its own; users need no uv.
Prints the table of docs/platforms.md, and exits with 1 where something does not resolve. Nothing is
downloaded but what the index says of each package.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
# name → what uv calls it. Linux means glibc 2.28 or newer, and macOS 14 or newer: the wheels of
# current torch are built for these.
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux arm64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # which uv reads
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SHOWN = ("torch", "torchvision", "av", "decord")
# decord has wheels for these only; elsewhere PyAV reads everything.
WITH_DECORD = ("Linux x86-64", "Windows x86-64")


@dataclass(frozen=True)
class Resolution:
    """What a resolver found for one platform and Python.

    Attributes:
        platform: A key of ``PLATFORMS``.
        python: Version of Python.
        packages: Name → version; empty where nothing fits.
        error: Why nothing fits, or None.
    """

    platform: str
    python: str
    packages: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def row(self) -> list[str]:
        """Its line of the table."""
        number = str(len(self.packages)) if not self.error else ""
        versions = [self.packages.get(name, "–") for name in SHOWN]
        answer = "failed" if self.error else "resolved"
        return [self.platform, self.python, answer, number, *versions]


def main() -> None:
    """Resolve for all platforms and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], help="resolve an extra as well")
    extras = parser.parse_args().extra
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed. It is needed by this script alone: pip install uv")
    cases = [(platform, python) for platform in PLATFORMS for python in PYTHONS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: resolve(uv, case[0], case[1], extras), cases))
    print(table(found))
    for resolution in found:
        if resolution.error:
            where = f"{resolution.platform}, Python {resolution.python}"
            print(f"\n{where}:\n{resolution.error}", file=sys.stderr)
    sys.exit(any(resolution.error for resolution in found))


def resolve(uv: str, platform: str, python: str, extras: list[str]) -> Resolution:
    """Ask uv which packages an installation would take."""
    words = [uv, "pip", "compile", str(PROJECT), "--only-binary", ":all:", "--quiet"]
    words += ["--python-platform", PLATFORMS[platform], "--python-version", python]
    words += ["--no-header", "--no-annotate", "--no-python-downloads", "--no-config"]
    words += [word for extra in extras for word in ("--extra", extra)]
    done = subprocess.run(
        words,
        env=os.environ | MACOS,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        return Resolution(platform, python, error=done.stderr.strip())
    packages = read_pins(done.stdout)
    wanted = {name for name in SHOWN if name != "decord" or platform in WITH_DECORD}
    lacking = wanted - packages.keys()
    error = f"resolved without {', '.join(sorted(lacking))}" if lacking else None
    return Resolution(platform, python, packages, error)


def read_pins(text: str) -> dict[str, str]:
    """Names and versions from lines such as ``torch==2.6.0 ; python_version < '3.14'``."""
    lines = (line.partition(";")[0].partition("#")[0].strip() for line in text.splitlines())
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name}


def table(found: list[Resolution]) -> str:
    """The result as a table in Markdown."""
    header = ["platform", "Python", "", "packages", *SHOWN]
    rows = [header, ["---"] * len(header), *(resolution.row for resolution in found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
