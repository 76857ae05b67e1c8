"""Standard streams that are closed, full, or that nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import PATIENCE, TINY, environment

pytestmark = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs a shell and /dev/full"
)
NOWHERE = ("2>&-", "2>/dev/full", "2>pipe")  # what may become of standard error


@pytest.fixture
def shell(feature_cache, trained, tmp_path):
    """Runs ``vidfuse`` with redirections; the program ``unread`` makes a pipe without a reader."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        read, write = os.pipe()
        os.close(read)
        program = f"{sys.executable} -m vidfuse"
        words = line.replace("vidfuse", program, 1).replace("pipe", f"&{write}")
        try:
            return subprocess.run(
                ["bash", "-c", words],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                pass_fds=[write],
                env=environment(feature_cache, {"VIDFUSE_MODEL": str(trained.run)}),
                timeout=PATIENCE,
                check=False,
            )
        finally:
            os.close(write)

    return run


@pytest.mark.parametrize("errors", [*NOWHERE, "--debug 2>pipe"])
def test_results_come_whatever_becomes_of_messages(shell, clips, errors):
    done = shell(f"vidfuse predict {clips[0]} missing.mp4 --format jsonl {errors}")
    assert done.returncode == 1
    assert [line[:8] for line in done.stdout.splitlines()] == ['{"path":'] * 2


@pytest.mark.parametrize("errors", NOWHERE[::2])
def test_an_error_keeps_its_exit_code_whatever_becomes_of_messages(shell, errors):
    assert shell(f"vidfuse train nowhere {errors}").returncode == 2


@pytest.mark.parametrize("lost", ["2>pipe >&2", "2>/dev/full >&-"])
def test_training_leaves_its_model_although_nobody_listens(shell, dataset, tmp_path, lost):
    done = shell(f"vidfuse train {dataset} {' '.join(TINY)} --out run {lost}")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["predict -q CLIP", "--help"])
def test_a_closed_standard_output_is_as_one_that_leads_nowhere(shell, clips, command):
    done = shell(f"vidfuse {command.replace('CLIP', str(clips[0]))} >&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["--help", "predict -q CLIP"])
def test_a_full_standard_output_is_named(shell, clips, command):
    done = shell(f"vidfuse {command.replace('CLIP', str(clips[0]))} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: standard output cannot be written (No space left on device)\n"
        "Check that the disk of the file that it leads to has room.\n"
    )


def test_files_do_not_take_the_number_of_a_closed_stream(shell, dataset, tmp_path):
    # Else what a library prints would go into the model or the cache.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os\natexit.register(lambda: os.write(1, b'x') + os.write(2, b'y'))\n"
    )
    line = f"vidfuse inspect {dataset} --no-read <&- >&- 2>&-"
    done = shell(f"PYTHONPATH={tmp_path}:$PYTHONPATH {line}")
    assert done.returncode == 0


def test_a_bar_on_a_terminal_that_goes_away_does_not_end_the_work(feature_cache, dataset, tmp_path):
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vidfuse", "train", str(dataset), *TINY, "--out", "run"],
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=tmp_path,
        env=environment(feature_cache, {"TERM": "xterm"}),
        start_new_session=True,
    )
    os.close(slave)
    os.read(master, 1)  # it has begun to say something
    os.close(master)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"run/model.safetensors\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_text_is_too_odd_for_a_stream(encoding):
    lines = r"for text in ('é', 'caf\udce9', 'a\ud800', '\udce9\ud800'): print(text, file=stream)"
    program = "from vidfuse import streams; import sys; streams.protect()\n"
    program += f"for stream in (sys.stdout, sys.stderr):\n  {lines}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        check=True,
    )
    assert done.stdout == done.stderr
    name = b"caf\xe9" if encoding == "utf-8" else rb"caf\udce9"
    assert done.stdout.splitlines()[1:] == [name, rb"a\ud800", rb"\udce9\ud800"]
