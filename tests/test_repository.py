"""What must hold for the repository as a whole: its documents agree with the program."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vidfuse
from vidfuse.backbones import BACKBONES
from vidfuse.cli.commands import COMMANDS
from vidfuse.data.layouts import LAYOUTS
from vidfuse.data.layouts.manifest import COLUMNS
from vidfuse.data.timelines import FORMATS
from vidfuse.heads.registry import HEADS

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")})
OPTION = re.compile(r"^  (?:-\w, )?(--[\w-]+)", re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_version_has_one_source():
    project = tomllib.loads(text("pyproject.toml"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "vidfuse/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|a\d+|b\d+|rc\d+)?", vidfuse.__version__)


def test_the_changelog_has_a_place_for_the_next_change():
    assert re.search(r"^## \[Unreleased\]\n\n### \w+\n\n- ", text("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "cache"])
def test_the_command_reference_names_every_option(command):
    words = [sys.executable, "-m", "vidfuse", command, "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    section = text("docs/commands.md").partition(f"## vidfuse {command}\n")[2].partition("\n## ")[0]
    assert OPTION.findall(section) == OPTION.findall(shown), (
        "renew it: python scripts/command_reference.py > docs/commands.md"
    )


def test_the_python_reference_is_current():
    words = [sys.executable, "scripts/api_reference.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    made = subprocess.run(words, capture_output=True, check=True, cwd=ROOT, env=environment).stdout
    assert made.decode("utf-8") == text("docs/api.md"), (
        "renew it: python scripts/api_reference.py > docs/api.md"
    )


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("README.md", HEADS),
        ("README.md", BACKBONES),
        ("README.md", LAYOUTS),
        ("docs/datasets.md", LAYOUTS),
        ("docs/datasets.md", COLUMNS),
        ("docs/timeline.md", FORMATS),
    ],
)
def test_documents_name_everything_in_the_tables(document, names):
    content = text(document)
    assert [n for n in names if not re.search(rf"[`#, ]{re.escape(n)}\b", content)] == []


def test_the_examples_of_sampling_are_computed():
    result = doctest.testfile(str(ROOT / "docs/sampling.md"), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_no_file_names_somebody_s_machine():
    kept = {".py", ".md", ".toml", ".sh", ".yaml", ".yml", ".cfg", ".txt", ".csv", ""}
    skipped = {".git", ".venv", "build", "dist", "runs", "__pycache__"}
    personal = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|scratch)/\w")
    found = []
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT).parts
        if not path.is_file() or path.suffix not in kept or skipped & set(inside):
            continue
        if any(part.startswith(".") and part.endswith("_cache") for part in inside):
            continue
        content = path.read_text("utf-8", errors="replace")
        found += [f"{path}: {match[0]}" for match in personal.finditer(content)]
    assert found == []


def test_scripts_are_executable_and_say_how_they_are_used():
    for path in [*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]:
        assert path.stat().st_mode & 0o111, path
        content = path.read_text("utf-8")
        assert content.startswith("#!/usr/bin/env bash\n")
        assert "set -euo pipefail" in content
