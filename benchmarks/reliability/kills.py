"""Processes that are killed at random moments, and the same command once more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from judge import SAME, Finding, crashes, read_records, wrong_records
from lab import CLASSES, Lab, Moment, Run, Words, end, tree
from safetensors.numpy import load_file

PART = "kills"
COUNT = 10  # of each kind
TRAIN = ("--epochs", "40", "--patience", "0", "--frames", "8", "--head", "lstm")
COMPARE = ("--heads", "mean,gru", "--seeds", "1", "--folds", "3", "--epochs", "6", "--frames", "8")
STABLE = ("name", "accuracy", "macro_f1", "accuracy_by_seed", "chosen")  # no times


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Each kind of kill so many times, as far as its name was asked for."""
    kinds: dict[str, Callable[[Lab, int], Iterator[Finding]]] = {
        "extract": kill_extract,
        "train": kill_train,
        "compare": kill_compare,
        "decode processes": kill_decoding,
    }
    chosen = [kind for name, kind in kinds.items() if lab.only.split(" #")[0] in name]
    for kind in chosen:
        yield from (finding for finding in kind(lab, count) if lab.only in finding.name)


def all_at_once(process: psutil.Process) -> None:
    """As when the machine's memory is short, or a job's time is over."""
    end(tree(process))


def main_alone(process: psutil.Process) -> None:
    """The decode processes have to notice by themselves."""
    end([process])


def one_decode_process(rng: np.random.Generator) -> Callable[[psutil.Process], None]:
    def kill(process: psutil.Process) -> None:
        workers = [child for child in tree(process)[1:] if is_decoding(child)]
        if workers:
            end([workers[int(rng.integers(len(workers)))]])

    return kill


def is_decoding(process: psutil.Process) -> bool:
    try:
        return "vidfuse.video.worker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def moments(lab: Lab, kind: int, number: int, whole: Run) -> list[Moment]:
    """One kill, at any time of a run that takes as long as another one did."""
    rng = np.random.default_rng([lab.seed, kind, number])
    kill = all_at_once if rng.random() < 0.5 else main_alone
    return [(float(rng.uniform(0.05, 1) * whole.seconds), kill)]


def kill_extract(lab: Lab, count: int) -> Iterator[Finding]:
    clips = many_clips(lab, 60)
    words: Words = ("extract", clips, "--precision", "fp32")
    clean = lab.place("clean")
    whole = lab.expect_success(words, cache=clean)
    for number in range(count):
        cache = lab.place("killed")
        killed = lab.run(words, cache=cache, moments=moments(lab, 0, number, whole))
        failures = left_behind(killed)
        verified = lab.run(("cache", "verify"), cache=cache)
        failures += crashes(lab, verified, (0,))
        done = len(entries(cache))
        again = lab.run(words, cache=cache)
        failures += crashes(lab, again, (0,)) + different_entries(clean, cache)
        if set(entries(cache)) != set(entries(clean)):
            failures.append("entries are missing")
        happened = state(killed) + (", entries kept" if done else ", no entries yet")
        what = "`extract` killed, verified, run again"
        yield Finding(PART, what, happened, failures, f"extract #{number}", killed)


def kill_train(lab: Lab, count: int) -> Iterator[Finding]:
    cache = lab.place("kept")
    words: Words = ("train", lab.dataset(8), *TRAIN)
    lab.expect_success((*words, "--out", lab.place("runs") / "first"), cache=cache)
    whole = lab.expect_success((*words, "--out", lab.folder / "runs" / "whole"), cache=cache)
    wanted = load_file(lab.folder / "runs" / "whole" / "model.safetensors")
    for number in range(count):
        out = lab.folder / "runs" / str(number)
        killed = lab.run(
            (*words, "--out", out), cache=cache, moments=moments(lab, 1, number, whole)
        )
        failures, again, how = left_behind(killed), killed, ""
        if killed.code != 0:
            again, how = lab.run(("train", "--resume", out), cache=cache), ", resumed"
        if again.code == 2:  # it was killed before there was anything to go on with
            how = ", begun anew"
            failures += crashes(lab, again)
            again = lab.run((*words, "--out", out), cache=cache)
        failures += crashes(lab, again, (0,))
        if again.code == 0:
            failures += different_tensors(wanted, load_file(out / "model.safetensors"))
        what = "`train` killed, then `--resume`: same weights to the bit"
        happened = f"{state(killed)}{how}"
        yield Finding(PART, what, happened, failures, f"train #{number}", killed)
        shutil.rmtree(out, ignore_errors=True)


def kill_compare(lab: Lab, count: int) -> Iterator[Finding]:
    cache = lab.place("kept")
    words: Words = ("compare", lab.dataset(8), *COMPARE, "--format", "json", "--jobs", "2")
    lab.expect_success(("extract", lab.dataset(8), "--frames", "8"), cache=cache)
    whole = lab.expect_success((*words, "--out", lab.place("compared") / "whole"), cache=cache)
    for number in range(count):
        out = lab.folder / "compared" / str(number)
        killed = lab.run(
            (*words, "--out", out), cache=cache, moments=moments(lab, 2, number, whole)
        )
        again = lab.run((*words, "--out", out), cache=cache)
        failures = left_behind(killed) + crashes(lab, again, (0,))
        if again.code == 0 and results(again) != results(whole):
            failures.append("results differ from an uninterrupted comparison's")
        what = "`compare` killed, then the same again: same results"
        yield Finding(PART, what, state(killed), failures, f"compare #{number}", killed)
        shutil.rmtree(out, ignore_errors=True)


def kill_decoding(lab: Lab, count: int) -> Iterator[Finding]:
    clips = sorted(many_clips(lab, 60).glob("*.mp4"))
    words: Words = ("predict", *clips, *lab.sound, "--model", lab.model, "--format", "jsonl")
    whole = lab.expect_success(words)
    for number in range(count):
        rng = np.random.default_rng([lab.seed, 3, number])
        times = np.sort(rng.uniform(0.1, 1, 3)) * whole.seconds
        kill = one_decode_process(rng)
        run = lab.run(words, moments=[(float(at), kill) for at in times])
        failures = crashes(lab, run, (0,)) + wrong_records(lab, run, [*clips, *lab.sound])
        if not failures and not same_answers(read_records(whole), read_records(run)):
            failures.append("answers differ")
        what = "`predict` while three decode processes are killed: same answers"
        happened = f"exit code {run.code}"
        name = f"decode processes #{number}"
        yield Finding(PART, what, happened, failures, name, run)


def same_answers(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether records say the same; batches of other sizes may change a score's last digits."""
    pairs = zip(ones, others, strict=True)
    return all(
        one["label"] == other["label"] and abs(one["score"] - other["score"]) <= SAME
        for one, other in pairs
    )


def many_clips(lab: Lab, count: int) -> Path:
    """A folder of clips, each with a content of its own."""
    folder = lab.folder / f"clips{count}"
    if folder.exists():
        return folder
    folder.mkdir()
    dataset = lab.dataset(8)
    originals = [sorted((dataset / name).glob("*.mp4")) for name in CLASSES]
    for number in range(count):
        clips = originals[number % len(originals)]
        content = clips[number // len(originals) % len(clips)].read_bytes()
        (folder / f"{number:03}.mp4").write_bytes(content + number.to_bytes(8, "big"))
    return folder


def state(run: Run) -> str:
    return "killed" if run.code == -9 else f"ended before with {run.code}"


def left_behind(run: Run) -> list[str]:
    return [f"{run.left_behind} processes left behind"] if run.left_behind else []


def entries(cache: Path) -> dict[str, Path]:
    """Files of a feature cache by name: spec, and key of the content and segment."""
    found = cache.glob("*/??/*.safetensors")
    return {str(path.relative_to(cache)): path for path in found}


def different_entries(clean: Path, cache: Path) -> list[str]:
    """Entries whose features are not those of a clean extraction of the content in their name."""
    right = entries(clean)
    wrong = []
    for name, path in entries(cache).items():
        if name not in right:
            continue
        one, other = load_file(right[name])["features"], load_file(path)["features"]
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-2, atol=1e-2):
            wrong.append(f"the entry {name} holds the features of another content")
    return wrong


def different_tensors(wanted: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> list[str]:
    if wanted.keys() != got.keys():
        return ["other tensors"]
    bad = [name for name in wanted if wanted[name].tobytes() != got[name].tobytes()]
    return [f"other weights: {', '.join(bad[:3])}"] if bad else []


def results(run: Run) -> list[dict[str, object]]:
    """What a comparison found, without times."""
    heads = json.loads(run.out)["heads"]
    return [{name: head[name] for name in STABLE} for head in heads]
