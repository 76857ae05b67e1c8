"""The garbage collector is kept away from imports, and from nothing else."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import vidfuse
from vidfuse.machine import no_collection

NOTES = """
class Log:
    def __init__(self):
        self.file = open("log.txt", "w")
        self.itself = self  # so only the collector can end it

    def __del__(self):
        self.file.close()

log = Log()
log.file.write("kept")
"""
PROGRAM = """
from vidfuse import api
from vidfuse.cli.app import main

def heads(names, **options):
    import_torch()
    import notes  # as a head of somebody's own
    return []

api.list_heads = heads
sys.argv = ["vidfuse", "heads", "--format", "json"]
main()
"""
LIBRARY = """
import notes
import_torch()
"""


@pytest.mark.parametrize("code", [PROGRAM, LIBRARY], ids=["program", "library"])
def test_a_file_in_a_reference_cycle_is_written_to_the_end(tmp_path: Path, code: str) -> None:
    (tmp_path / "notes.py").write_text(NOTES)
    package = str(Path(vidfuse.__file__).parents[1])
    begin = f"import sys; sys.path[:0] = [{package!r}, '.']"
    begin += "\nfrom vidfuse.backbones.imports import import_torch"
    subprocess.run(
        [sys.executable, "-c", f"{begin}\n{code}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert (tmp_path / "log.txt").read_text() == "kept"


def test_it_collects_again_afterwards_and_spares_nothing_of_a_caller() -> None:
    before = gc.get_freeze_count()
    with no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
