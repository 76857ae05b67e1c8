"""Where vidfuse is attacked: a folder, a small model, and a way to run commands and watch them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_DATA = ROOT / "sample_data"
CLASSES = ("blink", "bounce", "wave")
VIDFUSE = (sys.executable, "-m", "vidfuse")
GAP = 0.05  # seconds between two looks at the processes
Words = tuple[str | bytes | Path, ...]
Moment = tuple[float, Callable[[psutil.Process], None]]  # seconds after the start, what is done


@dataclass(frozen=True)
class Run:
    """A command that has ended, or was ended.

    Attributes:
        line: The command, to be repeated in a shell.
        code: Its exit code, or minus the signal that ended it.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        seconds: How long it took.
        memory_mb: The most that it and its processes had together: resident sizes added up.
        hung: Whether it had to be ended because the time was over.
        left_behind: Processes of it that were still there afterwards.
    """

    line: str
    code: int
    out: bytes
    err: str
    seconds: float
    memory_mb: float
    hung: bool
    left_behind: int


@dataclass
class Lab:
    """A folder with everything that attacks need.

    Attributes:
        folder: All files are made in it; home, cache and working folder of the commands too.
        clips: The user's own clips to damage besides those that are made here.
        seed: Of all that is random.
        limit_s: A command that takes longer hangs.
        bound_mb: A command that takes more memory takes too much.
        only: Names of attacks must have this in them.
        answers: Class and score of the sound clips, by path.
    """

    folder: Path
    clips: list[Path]
    seed: int
    limit_s: float
    bound_mb: float
    only: str = ""
    answers: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """A trained model's run folder."""
        return self.folder / "model"

    @property
    def warm(self) -> Path:
        """A cache with the features of ``dataset(8)``, 8 frames each, and of the sound clips."""
        return self.folder / "warm"

    @property
    def sound(self) -> list[Path]:
        """Two clips that must always be answered."""
        return [self.folder / "sound" / f"{i}.mp4" for i in range(2)]

    def prepare(self) -> None:
        """Train the model, and ask it once for the answers that are the right ones from then on."""
        for name in ("home", "tmp", "work", "sound"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for path, name in zip(self.sound, CLASSES, strict=False):
            shutil.copyfile(SAMPLE_DATA / name / "g12_1.mp4", path)
        words: Words = (
            "train",
            self.dataset(8),
            "--out",
            self.model,
            "--epochs",
            "3",
            "--frames",
            "8",
        )
        self.expect_success(words, cache=self.warm)
        self.expect_success(("extract", *self.sound), cache=self.warm)
        words = ("predict", *self.sound, "--model", self.model, "--format", "jsonl")
        for line in self.expect_success(words).out.splitlines():
            record = json.loads(line)
            self.answers[record["path"]] = (record["label"], record["score"])

    def dataset(self, clips: int) -> Path:
        """A folder of three classes with so many clips each."""
        folder = self.folder / f"dataset{clips}"
        for name in CLASSES:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for clip in sorted((SAMPLE_DATA / name).glob("*.mp4"))[:clips]:
                shutil.copyfile(clip, folder / name / clip.name)
        return folder

    def place(self, name: str) -> Path:
        """An empty folder."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def expect_success(self, words: Words, **options: Any) -> Run:
        """Run what is needed before anything can be attacked."""
        run = self.run(words, **options)
        if run.code:
            raise SystemExit(f"{run.line}\nended with {run.code}: {run.err}")
        return run

    def run(
        self,
        words: Words,
        *,
        shell: str = 'exec "$@"',
        env: Mapping[str, str] | None = None,
        cache: Path | None = None,
        moments: Sequence[Moment] = (),
    ) -> Run:
        """Run `vidfuse WORDS` and watch it.

        Args:
            words: Its arguments.
            shell: Line of bash around it; ``"$@"`` is the command.
            env: Environment variables besides the usual ones.
            cache: Its feature cache; without one it has a new one, removed afterwards.
            moments: What is done to it, and when; what is left when it has ended is not done.
        """
        own = None if cache else self.place("cache")
        variables = self.environment(cache or self.folder / "cache") | dict(env or {})
        command: Words = ("bash", "-c", shell, "bash", *VIDFUSE, *words)
        out, err = self.folder / "stdout", self.folder / "stderr"
        waiting = sorted(moments, key=lambda moment: moment[0])
        seen: dict[int, psutil.Process] = {}
        memory, hung = 0.0, False
        began = time.monotonic()
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=to_out,
                stderr=to_err,
                cwd=self.folder / "work",
                env=variables,
                start_new_session=True,
            )
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                passed = time.monotonic() - began
                while waiting and waiting[0][0] <= passed:
                    waiting.pop(0)[1](watched)
                found = tree(watched)
                seen |= {each.pid: each for each in found}
                memory = max(memory, sum(map(resident_mb, found)))
                hung = hung or passed > self.limit_s
                if hung or memory > 2 * self.bound_mb:  # the machine is needed
                    end(found)
                time.sleep(min([GAP, *(max(0, at - passed) for at, _ in waiting[:1])]))
        seconds = time.monotonic() - began
        _, left = psutil.wait_procs(seen.values(), timeout=5)
        end(left)
        if own:
            shutil.rmtree(own, ignore_errors=True)
        short = b" ".join(map(os.fsencode, words))[:100].decode(errors="backslashreplace")
        print(
            f"{seconds:5.1f} s {memory:5.0f} MB, exit code {process.returncode}: {short!r}",
            file=sys.stderr,
            flush=True,
        )
        return Run(
            line=self.line(command, variables),
            code=process.returncode,
            out=out.read_bytes(),
            err=err.read_bytes().decode(errors="backslashreplace"),
            seconds=seconds,
            memory_mb=memory,
            hung=hung,
            left_behind=len(left),
        )

    def environment(self, cache: Path) -> dict[str, str]:
        """Variables of a command: a home of its own, decode processes of 1 GB, this checkout."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("VIDFUSE_")
        }
        home = self.folder / "home"
        return kept | {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "TORCH_HOME": str(home / "torch"),
            "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "VIDFUSE_CACHE": str(cache),
            "VIDFUSE_WORKERS": "2",
            "VIDFUSE_MEMORY": "1G",
            "VIDFUSE_TIME_LIMIT": "40",
        }

    def line(self, command: Words, variables: Mapping[str, str]) -> str:
        """A command as one types it."""
        news = {name: value for name, value in variables.items() if os.environ.get(name) != value}
        words = [f"{name}={value}" for name, value in news.items()]
        return shlex.join(["env", *words, *map(os.fsdecode, command)])


def tree(process: psutil.Process) -> list[psutil.Process]:
    """A process and all that came from it."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident_mb(process: psutil.Process) -> float:
    """Megabytes of a process in memory, 0 if it has ended."""
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def end(processes: Sequence[psutil.Process]) -> None:
    """Kill processes that were started here."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue  # it has ended meanwhile
