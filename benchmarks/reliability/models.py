"""Model files that say what is not so."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from judge import Finding, crashes, wrong_records
from lab import Lab
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

PART = "models"
COUNT = 100
Manifest = dict[str, Any]
Tensors = dict[str, NDArray[Any]]
VALUES: list[Any] = [
    None, True, False, -1, 0, 10**9, 2**63, 10**30, 1.5, 1e308, float("nan"), float("inf"), "",
    "x" * 1000, "../../etc/passwd", [], [[]], [1, 2, 3], {}, {"a": {}}, "\x1b[31m",
]  # fmt: skip


@dataclass(frozen=True)
class Tampered:
    """A change of a good model.

    Attributes:
        name: What is changed.
        change: Changes its manifest or its tensors.
        codes: Exit codes that are right.
    """

    name: str
    change: Callable[[Manifest, Tensors], object]
    codes: tuple[int, ...] = (2,)


def at(*keys: str | int, value: object) -> Callable[[Manifest, Tensors], object]:
    """Puts a value into the manifest."""

    def change(manifest: Manifest, _tensors: Tensors) -> None:
        place: Any = manifest
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def weights(value: float) -> Callable[[Manifest, Tensors], object]:
    """Puts a number into each tensor of the head."""

    def change(_manifest: Manifest, tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.startswith("head.") and tensor.dtype.kind == "f":
                tensor.flat[0] = value

    return change


def each(form: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Manifest, Tensors], object]:
    """Gives each tensor another form."""

    def change(_manifest: Manifest, tensors: Tensors) -> None:
        for name in tensors:
            tensors[name] = np.ascontiguousarray(form(tensors[name]))

    return change


ALL = [
    Tampered("10^9 frames", at("features", "frames", value=10**9)),
    Tampered("10^9 cached frames", at("cached_frames", value=10**9)),
    Tampered("10^5 pixels", at("features", "size", value=10**5)),
    Tampered("minus one pixel", at("features", "size", value=-1)),
    Tampered("10^6 classes", at("classes", value=[str(i) for i in range(10**6)])),
    Tampered("no classes", at("classes", value=[])),
    Tampered("classes are a number", at("classes", value=3)),
    Tampered("classes are numbers", at("classes", value=[1, 2, 3])),
    Tampered("classes are all the same", at("classes", value=["a", "a", "a"])),
    Tampered("hidden 10^5", at("head", "settings", "hidden", value=10**5)),
    Tampered("hidden 10^12", at("head", "settings", "hidden", value=10**12)),
    Tampered("hidden is a text", at("head", "settings", "hidden", value="x")),
    Tampered("hidden is negative", at("head", "settings", "hidden", value=-5)),
    Tampered("an unknown setting", at("head", "settings", "unknown", value=1)),
    Tampered("settings are a list", at("head", "settings", value=[])),
    Tampered("10^6 layers", at("head", "settings", "layers", value=10**6)),
    Tampered("10^9 channels", at("head", "channels", value=10**9)),
    Tampered("channels are a text", at("head", "channels", value="512")),
    Tampered("grid 10^6", at("head", "grid", value=10**6)),
    Tampered("an unknown head", at("head", "name", value="nothing")),
    Tampered("head is a number", at("head", value=1)),
    Tampered("format is a text", at("format", value="1")),
    Tampered("format 10^9", at("format", value=10**9)),
    Tampered("an unknown backbone", at("backbone", "name", value="nothing")),
    Tampered("another backbone", at("backbone", "name", value="resnet50")),
    Tampered("backbone is said to be in the file", at("backbone", "included", value=True)),
    Tampered("an unknown sampling", at("sampling", value="nothing")),
    Tampered("stride 10^30", at("sampling", value="stride:1" + "0" * 30), (0, 2)),
    Tampered("features are a list", at("features", value=[])),
    Tampered("seen is a list", at("seen", value=[1])),
    Tampered("seen holds numbers", at("seen", value={"train": 3})),
    Tampered("not a number in the weights", weights(float("nan"))),
    Tampered("infinity in the weights", weights(float("inf"))),
    Tampered("10^38 in the weights", weights(3e38), (1, 2)),
    Tampered("no tensors", lambda _manifest, tensors: tensors.clear()),
    Tampered("a tensor is missing", lambda _manifest, tensors: tensors.popitem()),
    Tampered("a tensor too many", lambda _manifest, tensors: tensors.update(more=np.zeros(3))),
    Tampered("tensors are flat", each(np.ravel)),
    Tampered("tensors are whole numbers", each(lambda tensor: tensor.astype(np.int64))),
    Tampered("tensors are doubles", each(lambda tensor: tensor.astype(np.float64))),
    Tampered("tensors are empty", each(lambda tensor: tensor[:0] if tensor.ndim else tensor)),
]  # fmt: skip


def raw_files(good: bytes) -> dict[str, bytes]:
    """Files that are no safetensors files, or say that they are larger."""
    (size,) = struct.unpack("<Q", good[:8])
    deep = b"[" * 100_000
    return {
        "empty": b"",
        "eight bytes": good[:8],
        "header of 2^63 bytes": struct.pack("<Q", 2**63) + good[8:],
        "header of 99 MB of spaces": struct.pack("<Q", 99_000_000) + b" " * 99_000_000,
        "header cut": good[: size // 2],
        "tensors cut": good[: size + 100],
        "header nested 100,000 deep": struct.pack("<Q", len(deep)) + deep,
        "one more byte": good + b"\0",
        "zeros": bytes(10_000),
        "pickle": pickle.dumps({"a": 1}),
        "text": b"not a model\n",
    }


def attack(lab: Lab, count: int) -> Iterator[Finding]:
    """Each tampered model once, then random changes of the manifest."""
    file = lab.model / "model.safetensors"
    with safe_open(file, framework="np") as stored:
        manifest = json.loads(stored.metadata()["vidfuse"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    made = [
        Made("crafted", tampered.name, tampered.codes, build(manifest, tensors, tampered.change))
        for tampered in ALL
    ]
    for name, content in raw_files(file.read_bytes()).items():
        made.append(Made("not a model file", name, (2,), content))
    rng = np.random.default_rng(lab.seed)
    made = [made[i] for i in rng.permutation(len(made))[:count]]
    for number in range(count - len(made)):
        content = build(manifest, tensors, random_change(np.random.default_rng([lab.seed, number])))
        made.append(Made("one random change", f"random #{number}", (0, 2), content))
    for one in made:
        if lab.only in one.name:
            yield try_one(lab, one)


@dataclass(frozen=True)
class Made:
    """A bad model file: row of the table, name, right exit codes and content."""

    what: str
    name: str
    codes: tuple[int, ...]
    content: bytes


def try_one(lab: Lab, made: Made) -> Finding:
    """Predict a sound clip with a bad model."""
    model = lab.place(PART) / "model.safetensors"
    model.write_bytes(made.content)
    run = lab.run(("predict", lab.sound[0], "--model", model, "--format", "jsonl"))
    failures = crashes(lab, run, made.codes)
    if run.code == 0:
        # A change that is none, such as another name of a class, may change the answer.
        found = wrong_records(lab, run, [lab.sound[0]])
        failures += [failure for failure in found if "a sound clip" not in failure]
    elif run.code == 2 and sum(line.startswith("Error: ") for line in run.err.splitlines()) != 1:
        failures.append("not one error message")
    happened = {0: "answered", 2: "refused"}.get(run.code, f"exit code {run.code}")
    return Finding(PART, f"model files: {made.what}", happened, failures, made.name, run)


def build(
    manifest: Manifest, tensors: Tensors, change: Callable[[Manifest, Tensors], object]
) -> bytes:
    """A changed model whose checksum is right."""
    manifest, tensors = copy.deepcopy(manifest), copy.deepcopy(tensors)
    change(manifest, tensors)
    text = json.dumps(manifest)
    value = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(tensor.tobytes(), zlib.crc32(f"\n{name}\n".encode(), value))
    return save(tensors, {"vidfuse": text, "crc32": f"{value:08x}"})


def random_change(rng: np.random.Generator) -> Callable[[Manifest, Tensors], object]:
    """One value anywhere in the manifest becomes another one."""

    def change(manifest: Manifest, _tensors: Tensors) -> None:
        places = walk(manifest)
        holder, key = places[int(rng.integers(len(places)))]
        holder[key] = VALUES[int(rng.integers(len(VALUES)))]

    return change


def walk(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document, as what it lies in and the key there."""
    keys = list(value) if isinstance(value, dict) else range(min(3, len(value)))
    found = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += walk(value[key])
    return found
