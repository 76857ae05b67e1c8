"""The script that resolves the requirements for each platform, with a stand-in for uv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "resolve_platforms.py"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
STAND_IN = """#!{python}
import sys
words = sys.argv[1:]
platform = words[words.index("--python-platform") + 1]
if platform in {failing!r}:
    sys.exit("error: no solution")
print("av==18.1.0\\ntorch==2.15.0\\ntorchvision==0.29.2")
if "aarch64" not in platform:
    print("decord==0.6.0 ; sys_platform == 'linux'")
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with #!")


def lonely_python(tmp_path: Path) -> Path:
    """A Python with no program beside it."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    return python


def resolve(tmp_path: Path, failing: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script with a stand-in for uv first on the PATH."""
    python = lonely_python(tmp_path)
    uv = python.with_name("uv")
    uv.write_text(STAND_IN.format(python=sys.executable, failing=failing))
    uv.chmod(0o755)
    words = [str(python), str(SCRIPT)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_table_has_a_row_for_each_platform_and_python(tmp_path):
    answer = resolve(tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    rows = answer.stdout.splitlines()
    assert len(rows) == 2 + 4 * 4
    assert "| Linux x86-64 | 3.11 | resolved | 4 | 2.15.0 | 0.29.2 | 18.1.0 | 0.6.0 |" in rows
    assert "| macOS arm64 | 3.14 | resolved | 3 | 2.15.0 | 0.29.2 | 18.1.0 | – |" in rows


def test_what_does_not_resolve_is_told_and_fails(tmp_path):
    answer = resolve(tmp_path, ("x86_64-pc-windows-msvc",))
    assert answer.returncode == 1
    assert answer.stdout.count("failed") == 4
    assert "Windows x86-64, Python 3.12:\nerror: no solution" in answer.stderr


def test_without_uv_it_says_how_to_get_it(tmp_path):
    words = [str(lonely_python(tmp_path)), str(SCRIPT)]
    empty = os.environ | {"PATH": str(tmp_path)}
    answer = subprocess.run(words, env=empty, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "pip install uv" in answer.stderr


def test_the_document_shows_its_table():
    document = (ROOT / "docs" / "platforms.md").read_text("utf-8")
    rows = [line.split(" | ") for line in document.splitlines() if " | resolved | " in line]
    platforms = {row[0].removeprefix("| ") for row in rows}
    assert len(platforms) == 4
    assert {(f"| {name}", python) for name in platforms for python in PYTHONS} == {
        (row[0], row[1]) for row in rows
    }
    assert all(f'"{name}"' in SCRIPT.read_text("utf-8") for name in platforms)
