"""What is made of what was found: status, words and repair of each check."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidfuse import backbones
from vidfuse import machine as host
from vidfuse.backbones.imports import reinstall
from vidfuse.doctor import decoders, libraries, machine, storage
from vidfuse.doctor.probe import Probe

BROKEN = Probe(error="libx.so: cannot open")
MISSING = Probe(error="No module named 'x'", missing=True)


def torch(**values) -> Probe:
    return Probe(values={"version": "2.15.0", "cuda": "13.2", "gpus": [], "mps": False} | values)


def test_python_is_the_one_that_runs():
    check = libraries.python()
    assert check.status == "ok"
    assert check.values["executable"] == sys.executable


@pytest.mark.parametrize("name", ["thin_resnet", "thin_efficientnet"])
@pytest.mark.parametrize(("content", "problem"), [(None, "cannot be read"), (b"x", "is damaged")])
def test_bundled_weights_that_are_not_right(monkeypatch, tmp_path, content, problem, name):
    assert libraries.bundled_weights().status == "ok"
    place = tmp_path / "weights"
    if content is not None:
        place.write_bytes(content)
    weights = backbones.Weights(str(place), source="bundled", sha256="0" * 64)
    info = replace(backbones.BACKBONES[name], weights=weights)
    monkeypatch.setitem(backbones.BACKBONES, name, info)
    check = libraries.bundled_weights()
    assert (check.status, check.summary.count(problem)) == ("broken", 1)
    assert str(place) in check.summary
    assert check.fix == reinstall()


def test_an_old_python_is_broken(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    check = libraries.python()
    assert check.status == "broken"
    assert "3.11" in (check.fix or "")


def test_packages_that_are_broken_or_too_old_are_named(monkeypatch):
    monkeypatch.setattr(libraries, "requirements", lambda: {"av": "15", "rich": "13.7"})
    versions = {"av": "14.4.0", "rich": "13.10.1"}
    monkeypatch.setattr(libraries, "installed_version", versions.get)
    found = Probe(values={"versions": {"rich": "13.10.1"}, "errors": {"numpy": "cannot load"}})
    check = libraries.packages(found)
    assert check.status == "broken"
    assert check.summary == "numpy: cannot load; av: 14.4.0 is older than 15"
    assert check.fix == (
        'Run: pip install --force-reinstall numpy\nRun: pip install --upgrade "av>=15"'
    )
    assert libraries.packages(BROKEN).status == "broken"


def test_an_old_torch_is_renewed_together_with_torchvision(monkeypatch):
    monkeypatch.setattr(libraries, "requirements", lambda: {"torch": "2.6", "torchvision": "0.21"})
    monkeypatch.setattr(libraries, "installed_version", lambda name: "0.20.1+cpu")
    check = libraries.packages(Probe(values={"versions": {}, "errors": {}}))
    assert check.fix == 'Run: pip install --upgrade "torch>=2.6" torchvision'


def test_the_requirements_are_those_of_the_project():
    found = libraries.requirements()
    assert {"torch", "torchvision", "av", "numpy", "typer"} <= found.keys()
    assert not {"decord", "pytest"} & found.keys()  # for some machines, and for tests only


def test_torch_and_torchvision():
    assert libraries.torch(torch()).summary == "2.15.0"
    check = libraries.torchvision(Probe(error="they do not fit", hint="Run: pip x"))
    assert (check.status, check.summary, check.fix) == ("broken", "they do not fit", "Run: pip x")
    assert "pip install" in (libraries.torch(Probe(error="it crashed (SIGILL)")).fix or "")


GPU = {"name": "H100", "bytes": 80_000_000_000, "capability": "9.0"}


@pytest.mark.parametrize(
    ("found", "present", "status", "words"),
    [
        (torch(gpus=[GPU]), ["H100"], "ok", "H100 (80 GB), CUDA 13.2"),
        (torch(mps=True), [], "ok", "Metal"),
        (torch(), [], "ok", "none"),
        (torch(cuda=None), ["H100"], "warning", "H100: not used, since torch was built without"),
        (torch(gpu_error="driver too old"), ["H100"], "warning", "since driver too old"),
        (torch(), ["H100"], "warning", "CUDA_VISIBLE_DEVICES"),
        (BROKEN, [], "warning", "torch does not work"),
    ],
)
def test_gpu(found, present, status, words):
    check = machine.gpu(found, present)
    assert check.status == status
    assert words in check.summary
    assert bool(check.fix) == (status == "warning" and not found.error)


def test_gpus_are_asked_of_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    assert machine.nvidia_gpus() == ["NVIDIA H100 80GB HBM3"]
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert machine.nvidia_gpus() == []


def test_instructions(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    fast = machine.instructions(torch(capability="AVX512"), frozenset({"avx2", "avx512f"}))
    assert (fast.status, fast.summary) == ("ok", "AVX2, AVX-512; torch uses AVX512")
    assert fast.values["sets"] == {
        "AVX2": True, "AVX-512": True, "AVX512-BF16": False, "AMX": False,
    }  # fmt: skip
    assert machine.instructions(BROKEN, frozenset({"sse"})).status == "warning"
    slowed = machine.instructions(torch(capability="DEFAULT"), frozenset({"avx2"}))
    assert slowed.fix == "Unset ATEN_CPU_CAPABILITY."
    nothing = machine.instructions(BROKEN, frozenset())
    assert (nothing.status, nothing.values["sets"]["AVX2"]) == ("ok", None)
    assert "not known" in nothing.summary


def test_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(host, "usable_cores", lambda: 16)
    assert machine.cores(quota=16).status == "ok"
    check = machine.cores(quota=1.5)
    assert check.status == "warning"
    assert "OMP_NUM_THREADS=2" in (check.fix or "")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.cores(quota=1.5).status == "ok"


def test_memory(monkeypatch):
    monkeypatch.setattr(host, "memory", lambda: (8_000_000_000, 6_000_000_000))
    monkeypatch.setattr(host, "memory_limit", lambda: None)
    assert machine.memory().summary == "6.0 GB free of 8.0 GB"
    monkeypatch.setattr(host, "memory_limit", lambda: 900_000_000)
    check = machine.memory()
    assert (check.status, check.summary) == ("warning", "0.9 GB free of 0.9 GB")


def test_videos_cannot_be_read_without_pyav():
    for found, words in ((BROKEN, "libx.so"), (MISSING, "not installed")):
        check = decoders.decoder("pyav", found)
        assert check.status == "broken"
        assert words in check.summary
        assert check.fix == "Run: pip install --force-reinstall av"


@pytest.mark.parametrize(
    ("found", "machine_name", "status", "words"),
    [
        (Probe({"version": "0.6.0", "gpu_error": None}), "x86_64", "ok", "0.6.0, used for"),
        (BROKEN, "x86_64", "warning", "not used: libx.so"),
        (MISSING, "x86_64", "warning", "not used, since it is not installed"),
        (MISSING, "aarch64", "ok", "no wheels for linux aarch64"),
    ],
)
def test_decord_is_not_needed(monkeypatch, found, machine_name, status, words):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: machine_name)
    check = decoders.decoder("decord", found)
    assert check.status == status
    assert words in check.summary
    assert bool(check.fix) == (status == "warning")


def test_decord_on_a_gpu_takes_a_build_of_its_own():
    for problem, used in (
        ("it was built without CUDA", "not used"),
        (None, "--decoder decord-gpu"),
    ):
        check = decoders.decoder("decord-gpu", Probe({"version": "0.6.0", "gpu_error": problem}))
        assert check.status == "ok"
        assert used in check.summary
    assert decoders.decoder("decord-gpu", MISSING).summary == "not used: decord is not installed"
    assert decoders.decoder("decord-gpu", BROKEN).summary == "not used: decord does not work"


def test_a_cache_that_can_be_written(tmp_path):
    check = storage.cache(str(tmp_path / "not" / "yet"))
    assert check.status == "ok"
    assert check.values == {
        "path": str(tmp_path / "not" / "yet"), "entries": 0, "bytes": 0, "writable": True,
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    check = storage.cache(str(tmp_path / "file" / "cache"))
    assert (check.status, check.values["writable"]) == ("broken", False)
    assert "VIDFUSE_CACHE" in (check.fix or "")


def test_a_cache_that_cannot_be_looked_at(monkeypatch):
    monkeypatch.setitem(sys.modules, "vidfuse.features.maintenance", None)
    assert storage.cache().status == "broken"
    assert storage.disk().status != "broken"  # it needs none of that


@pytest.mark.parametrize(("free", "status"), [(50e9, "ok"), (1e9, "warning"), (5e7, "broken")])
def test_disk(monkeypatch, tmp_path: Path, free, status):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: SimpleNamespace(free=int(free), total=10**12)
    )
    check = storage.disk(str(tmp_path))
    assert check.status == status
    assert bool(check.fix) == (status != "ok")


TORCHCODEC = {"version": "0.17.0+cu130", "ffmpeg": 5, "gpu_error": None}


@pytest.mark.parametrize(
    ("found", "status", "words", "fix"),
    [
        (Probe(TORCHCODEC), "ok", "0.17.0+cu130 (FFmpeg 5), used with --decoder torchcodec", None),
        (MISSING, "ok", "not used, since the extra", None),
        (BROKEN, "warning", "not used: libx.so", "Run: pip install --force-reinstall"),
        (Probe(error="no FFmpeg", hint="apt-get"), "warning", "not used: no FFmpeg", "apt-get"),
    ],
)
def test_torchcodec_is_an_extra(found, status, words, fix):
    check = decoders.decoder("torchcodec", found)
    assert check.status == status
    assert words in check.summary
    assert (check.fix or "").startswith(fix or "")
    assert bool(check.fix) == bool(fix)


def test_torchcodec_on_a_gpu():
    problem = "torch finds no NVIDIA GPU"
    for found, words in (
        (Probe(TORCHCODEC), "used with --decoder torchcodec-cuda only"),
        (Probe(TORCHCODEC | {"gpu_error": problem}), f"not used: {problem}"),
        (MISSING, "not used: torchcodec is not installed"),
        (BROKEN, "not used: torchcodec does not work"),
    ):
        check = decoders.decoder("torchcodec-cuda", found)
        assert (check.status, check.summary) == ("ok", words)
