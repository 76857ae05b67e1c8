"""Importing what builds a network.

torchvision works only beside the build of torch that it was made for. A CPU-only torch beside the
torchvision of the package index, or a torchvision of another release, fails while it is imported,
with an error about an operator. Whatever needs torchvision gets it here, so that what is said
instead is how to put it right.
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

from vidfuse.errors import UserError, first_sentence
from vidfuse.garbage import no_collection

WHEELS = "https://download.pytorch.org/whl/"
# Ends of torch's version that name one of its own indices, as in 2.13.0+cpu.
BUILD = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")


def find_factory(factory: str) -> Any:
    """The function that builds a network; what it needs is imported.

    Args:
        factory: ``module:function``, as in the table of backbones.

    Raises:
        UserError: torch, or torchvision where it is needed, cannot be imported.
    """
    import_torch()
    module, _, name = factory.partition(":")
    if module.partition(".")[0] == "torchvision":
        import_torchvision()
    return getattr(import_module(module), name)


def import_torch() -> ModuleType:
    """The module ``torch``, imported.

    Raises:
        UserError: It is missing or broken; says how to repair it.
    """
    return _import("torch")


def import_torchvision() -> ModuleType:
    """The module ``torchvision``, imported.

    Raises:
        UserError: It or torch is missing or broken, or the two do not fit; says how to repair it.
    """
    import_torch()
    return _import("torchvision")


def _import(name: str) -> ModuleType:
    try:
        if name in sys.modules:
            return import_module(name)
        with no_collection(), no_interruption():
            return import_module(name)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise UserError(_problem(name, error), repair(name)) from error


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
        dependencies: Whether what it depends on is to be put right as well.
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


def installed_version(name: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
