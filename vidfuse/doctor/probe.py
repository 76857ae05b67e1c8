"""Importing libraries in processes of their own, since they may crash, hang or not fit each other.

decord is known to hang where it is imported before torch, so no two libraries share a process. This
module is imported in those processes and must import nothing of weight.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from vidfuse.errors import UserError, first_sentence

LIMIT = 180.0  # seconds; torch on a slow disk takes one minute
# Imports the very package that runs here, and nothing that lies around in the working directory.
CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); import vidfuse; del sys.path[0]; "
    "from vidfuse.doctor.probe import main; main(sys.argv[2])"
)
# Modules that vidfuse imports besides torch and the decoders → the packages they come in.
PACKAGES = {
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "PIL": "pillow",
    "platformdirs": "platformdirs",
    "rich": "rich",
    "safetensors": "safetensors",
    "tomli_w": "tomli-w",
    "typer": "typer",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of importing a library.

    Attributes:
        values: Its version and more; empty where it cannot be imported.
        error: The reason why it cannot be imported; None where it can.
        hint: The repair, where it is known.
        missing: True where it is not installed at all.
    """

    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    hint: str | None = None
    missing: bool = False


def probe(name: str, limit: float = LIMIT) -> Probe:
    """Import a library in a process of its own.

    Args:
        name: A key of ``PROBES``, or a module of which only the version is asked.
        limit: Seconds after which it counts as hanging.
    """
    words = [sys.executable, "-P", "-c", CODE, str(Path(__file__).resolve().parents[2]), name]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return Probe(error=f"importing it took longer than {limit:.0f} s")
    if done.returncode:
        return Probe(error=f"importing it {_ending(done.returncode)}")
    try:
        return Probe(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return Probe(error="importing it ended the process")


def _ending(status: int) -> str:
    if status < 0 and -status in signal.valid_signals():
        return f"crashed ({signal.Signals(-status).name})"
    return f"ended with exit code {status}"


def main(name: str) -> None:
    """In the process of a probe: look at a library, print what was found as JSON."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not damage the answer
    answer: dict[str, Any]
    try:
        answer = {"values": PROBES[name]() if name in PROBES else _module(name)}
    except UserError as error:
        answer = {"error": error.message, "hint": error.hint}
    except Exception as error:  # noqa: BLE001 - whatever a broken library raises
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        answer = {"error": first_sentence(error), "missing": missing}
    channel.write("\n" + json.dumps(answer) + "\n")
    channel.close()


def _torch() -> dict[str, Any]:
    from vidfuse.backbones.imports import import_torch, installed_version

    torch = import_torch()
    values: dict[str, Any] = {
        "version": torch.__version__,
        "package": installed_version("torch"),
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": _torch_instructions(torch),
    }
    torch.ones(8, 8) @ torch.ones(8, 8)  # fails where a mathematical library is broken
    return values | _torch_gpus(torch)


def _torch_instructions(torch: Any) -> dict[str, bool]:
    """Instruction sets that torch detects; the helpers for it differ between its versions."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return {str(name): value for name, value in found.items() if isinstance(value, bool)}
    helpers = {
        "avx2": "_is_avx2_supported",
        "avx512_f": "_is_avx512_supported",
        "avx512_bf16": "_is_avx512_bf16_supported",
        "amx_tile": "_is_amx_tile_supported",
    }
    return {
        name: bool(getattr(torch.cpu, helper)())
        for name, helper in helpers.items()
        if hasattr(torch.cpu, helper)
    }


def _torch_gpus(torch: Any) -> dict[str, Any]:
    """The CUDA devices that torch can really compute on, or why it cannot."""
    try:
        gpus = []
        for index in range(torch.cuda.device_count()):
            torch.ones(1, device=f"cuda:{index}").add(1).item()
            device = torch.cuda.get_device_properties(index)
            gpus.append(
                {
                    "name": device.name,
                    "bytes": device.total_memory,
                    "capability": f"{device.major}.{device.minor}",
                }
            )
        if not gpus and torch.version.cuda:
            torch.cuda.init()  # says why there is none
    except Exception as error:  # noqa: BLE001 - torch has an error for each way this fails
        return {"gpus": [], "gpu_error": first_sentence(error)}
    return {"gpus": gpus, "gpu_error": None}


def _torchvision() -> dict[str, Any]:
    from vidfuse.backbones.imports import import_torchvision, installed_version

    torchvision = import_torchvision()
    return {"version": torchvision.__version__, "package": installed_version("torchvision")}


def _module(name: str) -> dict[str, Any]:
    return {"version": import_module(name).__version__}


def _av() -> dict[str, Any]:
    import av

    libraries = {
        name: ".".join(map(str, numbers)) for name, numbers in sorted(av.library_versions.items())
    }
    return {"version": av.__version__, "libraries": libraries}


def _decord() -> dict[str, Any]:
    import decord

    values: dict[str, Any] = {"version": decord.__version__, "gpu_error": None}
    try:
        decord.nd.empty((1,), ctx=decord.gpu(0))
    except Exception as error:  # noqa: BLE001 - decord's error, or one of its CUDA libraries
        built = "not enabled" not in str(error)
        values["gpu_error"] = first_sentence(error) if built else "it was built without CUDA"
    return values


def _torchcodec() -> dict[str, Any]:
    from vidfuse.video.torchcodec_backend import gpu_problem, import_torchcodec

    torchcodec = import_torchcodec()
    return {
        "version": torchcodec.__version__,
        "ffmpeg": torchcodec.ffmpeg_major_version,
        "gpu_error": gpu_problem(torchcodec),
    }


def _packages() -> dict[str, Any]:
    from vidfuse.backbones.imports import installed_version

    values: dict[str, Any] = {"versions": {}, "errors": {}}
    for module, package in PACKAGES.items():
        try:
            import_module(module)
            values["versions"][package] = installed_version(package)
        except Exception as error:  # noqa: BLE001 - whatever a broken library raises
            values["errors"][package] = first_sentence(error)
    return values


PROBES = {
    "torch": _torch,
    "torchvision": _torchvision,
    "av": _av,
    "decord": _decord,
    "torchcodec": _torchcodec,
    "packages": _packages,
}
