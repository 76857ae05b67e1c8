"""A run that was cut off ends where it would have ended."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import vidfuse
from vidfuse.errors import UserError
from vidfuse.runs import latest_run
from vidfuse.training import steps
from vidfuse.training.examples import Examples
from vidfuse.training.fit import Fit

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
QUICK: dict[str, Any] = {
    **CHEAP,
    "workers": 1,
    "epochs": 6,
    "patience": 0,
    "head_options": {"hidden": 16},
}
# All that draws at random in training.
RANDOM: dict[str, Any] = {
    "sampling": "segment",
    "mirror": True,
    "views": 2,
    "frame_dropout": 0.3,
    "class_weights": "sampler",
}
# Draws what it looks at in training.
POLICY: dict[str, Any] = {"head": "policy", "head_options": {"hidden": 16, "max_looks": 3}}


class Killed(BaseException):
    """What no handler of the program expects, as if the process were gone."""


@pytest.fixture(autouse=True)
def state_after_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SECONDS_BETWEEN_STATES", -1.0)


def train(dataset: Path, cache: str, **settings: Any) -> dict[str, Any]:
    return vidfuse.train(dataset, **{**QUICK, "cache": cache, **settings}).to_dict()


def stop(
    patch: Any, error: type[BaseException], epoch: int, step: int = 0, *, done: int = 0
) -> None:
    """Let training stop in an epoch (from 1) after some of its steps; ``done`` epochs were before.

    Every step makes a batch, and the batches of an epoch hold as many clips as there are.
    """
    original = Examples.batch
    at = {"epoch": done + 1, "step": 0, "clips": 0}

    def hook(examples: Examples, indices: Any, device: Any, generator: Any = None) -> Any:
        if generator is not None:  # as in training alone
            if (at["epoch"], at["step"]) == (epoch, step):
                raise error
            at["step"] += 1
            at["clips"] += len(indices)
            if at["clips"] == len(examples):
                at.update(epoch=at["epoch"] + 1, step=0, clips=0)
        return original(examples, indices, device, generator)

    patch.setattr(Examples, "batch", hook)


def cut_off(
    dataset: Path,
    cache: str,
    error: type[BaseException],
    epoch: int,
    step: int = 0,
    **settings: Any,
) -> Path:
    """The run folder of a run that was cut off."""
    out = Path(settings.pop("out", "cut"))
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, error, epoch, step)
        with pytest.raises(error):
            train(dataset, cache, out=str(out), **settings)
    return out


def epochs(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": 0} for line in lines]


def same(one: Path, other: Path) -> None:
    mine, theirs = (load_file(run / "model.safetensors") for run in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert epochs(one) == epochs(other)
    facts = [vidfuse.load_model(run).metadata for run in (one, other)]
    for each in facts:
        for volatile in ("created", "config"):
            each.pop(volatile)
    assert facts[0] == facts[1]
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))


@pytest.mark.parametrize("settings", [{}, RANDOM, POLICY], ids=["plain", "random", "policy"])
@pytest.mark.parametrize(("error", "step"), [(Killed, 0), (Killed, 2), (KeyboardInterrupt, 2)])
def test_the_same_bits_and_metrics(
    dataset: Path, shared_cache: str, settings: Any, error: type[BaseException], step: int
) -> None:
    straight = train(dataset, shared_cache, out="straight", **settings)
    run = cut_off(dataset, shared_cache, error, 4, step, **settings)
    assert (run / "state.pt").exists()
    resumed = vidfuse.train(resume=run).to_dict()
    same(run, Path("straight"))
    for name in ("best_epoch", "epochs", "validation", "split", "protocol", "clips"):
        assert resumed[name] == straight[name]
    assert vidfuse.load_model(run).metadata.get("interrupted") is None


@pytest.mark.parametrize("settings", [{}, RANDOM], ids=["plain", "random"])
@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_cut_off_in_the_refit(
    dataset: Path, shared_cache: str, settings: Any, error: type[BaseException]
) -> None:
    straight = train(dataset, shared_cache, out="straight", **settings)
    best = straight["best_epoch"]
    assert straight["refitted"]
    logged = epochs(Path("straight"))
    assert [each.get("refit") for each in logged] == [None] * 6 + [True] * best
    assert [each["val_loss"] for each in logged[6:]] == [None] * best
    run = cut_off(dataset, shared_cache, error, 6 + best, 1, **settings)
    if error is KeyboardInterrupt:
        interrupted = vidfuse.load_model(run)
        assert interrupted.metadata["interrupted"]
        chosen = train(dataset, shared_cache, out="chosen", refit=False, **settings)
        assert chosen["best_epoch"] == best
        mine, theirs = (load_file(each / "model.safetensors") for each in (run, Path("chosen")))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    resumed = vidfuse.train(resume=run).to_dict()
    same(run, Path("straight"))
    assert resumed["validation"] == straight["validation"]


def test_a_refit_that_is_kept_goes_on(
    dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = train(dataset, shared_cache, out="straight")["best_epoch"]
    run = cut_off(dataset, shared_cache, Killed, 6 + best)
    begun = []
    once = Fit._run_epoch

    def counted(fit: Fit) -> Any:
        begun.append(fit.epoch + 1)
        return once(fit)

    monkeypatch.setattr(Fit, "_run_epoch", counted)
    vidfuse.train(resume=run)
    assert best > 1
    assert begun == [best], "of all epochs, the last one of the refit"
    same(run, Path("straight"))


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_a_quick_fit_is_kept_before_its_refit(
    dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(steps, "SECONDS_BETWEEN_STATES", 1e9)
    train(dataset, shared_cache, out="straight")
    run = cut_off(dataset, shared_cache, error, 7, 1)
    assert (run / "state.pt").exists()
    vidfuse.train(resume=run)
    same(run, Path("straight"))


def test_cut_off_twice(dataset: Path, shared_cache: str) -> None:
    train(dataset, shared_cache, out="straight")
    run = cut_off(dataset, shared_cache, Killed, 3)
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, KeyboardInterrupt, 5, 1, done=2)
        with pytest.raises(KeyboardInterrupt):
            vidfuse.train(resume=run)
    vidfuse.train(resume=run)
    same(run, Path("straight"))


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (4, 0)])
def test_without_a_state_it_starts_again(
    dataset: Path, shared_cache: str, error: type[BaseException], epoch: int, step: int
) -> None:
    """Cut off in the first epoch, or before the first state was written."""
    train(dataset, shared_cache, out="straight")
    run = cut_off(dataset, shared_cache, error, epoch, step)
    (run / "state.pt").unlink(missing_ok=True)
    (run / "model.safetensors").unlink(missing_ok=True)
    vidfuse.train(resume=run)
    same(run, Path("straight"))


def test_killed_between_the_log_and_the_state(dataset: Path, shared_cache: str) -> None:
    train(dataset, shared_cache, out="straight")
    run = cut_off(dataset, shared_cache, Killed, 4)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "torn')
    (run / "state.partial").write_bytes(b"PK")
    vidfuse.train(resume=run)
    same(run, Path("straight"))


def test_killed_after_the_model_was_written(dataset: Path, shared_cache: str) -> None:
    train(dataset, shared_cache, out="straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidfuse.runs.Run.drop_state", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(dataset, shared_cache, out="cut")
    assert Path("cut/model.safetensors").exists()
    vidfuse.train(resume="cut")
    same(Path("cut"), Path("straight"))


def test_resumed_in_runs_it_is_the_latest(dataset: Path, shared_cache: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, Killed, 3)
        with pytest.raises(Killed):
            train(dataset, shared_cache)
    assert latest_run() is None
    (run,) = Path("runs").iterdir()
    vidfuse.train(resume=run)
    assert latest_run() == run


def test_an_ended_run_and_what_is_no_run(dataset: Path, shared_cache: str, tmp_path: Path) -> None:
    train(dataset, shared_cache, epochs=1, out="ended")
    with pytest.raises(UserError, match="this run has ended") as error:
        vidfuse.train(resume="ended")
    assert "--model ended" in str(error.value.hint)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing", dataset, Path("ended/config.toml")):
        with pytest.raises(UserError, match="not a run folder that can be resumed"):
            vidfuse.train(resume=folder)
    (tmp_path / "empty" / "run.json").write_text("[1]")
    with pytest.raises(UserError, match="not a run folder"):
        vidfuse.train(resume=tmp_path / "empty")
    with pytest.raises(UserError, match="on its own dataset"):
        vidfuse.train(dataset, resume="ended")
    with pytest.raises(UserError, match="missing argument"):
        vidfuse.train()


def test_a_cross_validation_is_not_resumed_as_a_plain_run(dataset: Path, shared_cache: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, Killed, 3)
        with pytest.raises(Killed):
            train(dataset, shared_cache, folds=3, out="folds")
    with pytest.raises(UserError, match="a cross-validation cannot be resumed") as error:
        vidfuse.train(resume="folds")
    assert "--folds 3" in str(error.value.hint)


def test_only_the_machine_may_differ(dataset: Path, shared_cache: str, tmp_path: Path) -> None:
    train(dataset, shared_cache, out="straight")
    run = cut_off(dataset, shared_cache, Killed, 3)
    with pytest.raises(UserError, match="not with others for lr, head_options") as error:
        vidfuse.train(resume=run, lr=0.5, head="lstm", head_options={"hidden": 8}, workers=2)
    for name in ("workers", "time_limit", "memory", "device", "precision", "cache"):
        assert name in str(error.value.hint)
    again = shutil.copytree(run, tmp_path / "again")
    vidfuse.train(resume=run, workers=2, precision="fp32", epochs=6)
    same(run, Path("straight"))
    # Features made anew may differ in the last bit, with the batch that a frame falls into.
    other = str(tmp_path / "other cache")
    assert vidfuse.train(resume=again, cache=other).reused == 0
    mine, theirs = (load_file(run / "model.safetensors") for run in (again, Path("straight")))
    # AdamW makes steps of the same size of a tiny gradient, so a single weight may go its own way.
    for name, weights in theirs.items():
        assert (mine[name] - weights).abs().mean() <= 1e-4, name


def test_settings_that_were_edited(dataset: Path, shared_cache: str) -> None:
    settings: dict[str, Any] = {"head": "mean", "head_options": {}, "grid": "2"}
    run = cut_off(dataset, shared_cache, Killed, 3, **settings)
    config = run / "config.toml"
    original = config.read_text()
    config.write_text(original.replace("epochs = 6", "epochs = 7"))
    with pytest.raises(UserError, match="other settings") as error:
        vidfuse.train(resume=run)
    assert error.value.hint == "epochs: 6 then, 7 now"
    config.write_text(original.replace('grid = "2"', 'grid = "1"'))
    with pytest.raises(UserError, match="not what this run began with"):
        vidfuse.train(resume=run)
    config.write_text(original[:40])
    with pytest.raises(UserError):
        vidfuse.train(resume=run)


def swap_labels(data: Path) -> None:
    one, other = (sorted((data / name).iterdir())[0] for name in ("class0", "class1"))
    one.rename(data / "class1" / "new.mkv")
    other.rename(data / "class0" / "new.mkv")


def other_content(data: Path) -> None:
    for path in data.rglob("*.mkv"):
        path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        swap_labels,
        other_content,
        lambda data: shutil.rmtree(data / "class2"),
        lambda data: shutil.copytree(data / "class0", data / "class3"),
    ],
    ids=["labels", "content", "class removed", "class added"],
)
def test_a_dataset_that_changed(
    dataset: Path, shared_cache: str, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    run = cut_off(data, shared_cache, Killed, 3)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    change(data)
    with pytest.raises(UserError, match="not what this run began with") as error:
        vidfuse.train(resume=run)
    assert "start a new run" in str(error.value.hint)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_dataset_that_is_gone(dataset: Path, shared_cache: str, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    run = cut_off(data, shared_cache, Killed, 3)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="data"):
        vidfuse.train(resume=run)


def flipped(archive: bytes) -> list[int]:
    """A place within each of a few of its tensors."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        infos = [info for info in file.infolist() if "/data/" in info.filename]
    large = sorted(infos, key=lambda info: -info.file_size)[:3]
    # Behind the local header: 30 bytes, a name and padding.
    return [
        info.header_offset
        + 30
        + sum(struct.unpack_from("<HH", archive, info.header_offset + 26))
        + info.file_size // 2
        for info in large
    ]


class TestDamagedState:
    @pytest.fixture
    def run(self, dataset: Path, shared_cache: str) -> Path:
        return cut_off(dataset, shared_cache, Killed, 3)

    def refused(self, run: Path) -> None:
        with pytest.raises(UserError, match=r"state\.pt: damaged") as error:
            vidfuse.train(resume=run)
        assert "Remove it" in str(error.value.hint)

    def test_torn_or_with_flipped_bits(self, run: Path) -> None:
        whole = (run / "state.pt").read_bytes()
        for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"not a state"):
            (run / "state.pt").write_bytes(damaged)
            self.refused(run)
        for place in flipped(whole):
            bits = bytearray(whole)
            bits[place] ^= 64
            (run / "state.pt").write_bytes(bits)
            self.refused(run)
        (run / "state.pt").unlink()
        assert vidfuse.train(resume=run).epochs == 6

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (MemoryError(), (MemoryError, None)),
            (RuntimeError("can't allocate memory"), (MemoryError, "can't allocate memory")),
            (OSError(5, "Input/output error"), (UserError, "cannot be read .Input/output")),
        ],
        ids=["memory", "torch's memory", "disk"],
    )
    def test_what_is_no_fault_of_the_state(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: Any
    ) -> None:
        def fail(*_arguments: Any, **_more: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(told[0], match=told[1]):
            vidfuse.train(resume=run)

    def test_little_that_becomes_much(self, run: Path) -> None:
        """Compressed parts could grow a thousandfold; torch compresses nothing."""
        whole = (run / "state.pt").read_bytes()
        with (
            zipfile.ZipFile(io.BytesIO(whole)) as old,
            zipfile.ZipFile(run / "state.pt", "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in old.namelist():
                new.writestr(name, old.read(name))
        self.refused(run)

    @pytest.mark.parametrize("state", [{}, [1], {"data": 1}, "text"])
    def test_something_else(self, run: Path, state: object) -> None:
        torch.save(state, run / "state.pt")
        with pytest.raises(UserError):
            vidfuse.train(resume=run)

    def test_parts_that_do_not_fit(self, run: Path) -> None:
        whole = torch.load(run / "state.pt", weights_only=True)
        for part, value in (
            *(("head", {}), ("optimizer", {"state": {}}), ("best_score", None), ("best_state", {})),
            *(("epoch", "2"), ("epoch", 10**9), ("best_epoch", 5), ("stale", None), ("step", 1.5)),
        ):
            torch.save({**whole, "fit": {**whole["fit"], part: value}}, run / "state.pt")
            self.refused(run)

    def test_nothing_in_it_is_executed(self, run: Path, tmp_path: Path) -> None:
        trap = tmp_path / "trap"

        class Evil:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(trap),)

        for save in (torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))):
            save(Evil(), run / "state.pt")
            self.refused(run)
            assert not trap.exists()
        pickle.loads(pickle.dumps(Evil()))
        assert trap.exists(), "the trap itself works"


HASTY = """
from vidfuse.cli.app import main
from vidfuse.training import steps
steps.SECONDS_BETWEEN_STATES = 0.1
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_was_killed(dataset: Path, shared_cache: str, tmp_path: Path) -> None:
    settings = {**QUICK, **RANDOM, "epochs": 100}
    train(dataset, shared_cache, **{**settings, "out": "straight"})
    options = [
        *("--backbone", "resnet18", "--weights", "random", "--layer", "layer1", "--size", "32"),
        *("--frames", "4", "--workers", "1", "--epochs", "100", "--patience", "0"),
        *("--head-option", "hidden=16", "--sampling", "segment", "--mirror"),
        *("--views", "2"),
        *("--frame-dropout", "0.3", "--class-weights", "sampler"),
    ]
    environment = os.environ | {
        "VIDFUSE_CACHE": shared_cache,
        "PYTHONPATH": str(Path(vidfuse.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, "-m", "vidfuse", "train"]
    # On a fast machine all epochs may end before a second has passed.
    hasty = [sys.executable, "-c", HASTY, "train"]
    run = tmp_path / "killed"
    process = subprocess.Popen(
        [*hasty, str(dataset), *options, "--out", str(run)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while not (run / "state.pt").exists() and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
    assert not (run / "model.safetensors").exists()
    done = torch.load(run / "state.pt", weights_only=True)["fit"]["epoch"]
    assert 0 < done < 100
    resumed = subprocess.run(
        [*program, "--resume", str(run), "--workers", "2"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"Resuming after epoch {done}" in resumed.stderr
    assert resumed.stdout == f"{run / 'model.safetensors'}\n"
    same(run, Path("straight"))
