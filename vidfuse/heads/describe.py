"""What is known of a head without training it: what it reads, its options, what it costs."""

from __future__ import annotations

import ast
import inspect
from dataclasses import asdict
from textwrap import dedent
from typing import Any, Literal, get_args, get_origin

import torch

from vidfuse.errors import UnknownNameError, UserError
from vidfuse.fusion.base import Head
from vidfuse.fusion.cost import count, measure
from vidfuse.fusion.registry import HEADS, blame, build_head, head_class

NATIVE = 7  # side of the last map of a ResNet that sees 224 pixels


def describe(
    name: str, *, channels: int, frames: int, classes: int, latency: bool = False
) -> dict[str, Any]:
    """Describe a head; the cost is that of its default settings, for clips of the given shape.

    Args:
        name: The head's name.
        channels: Channels D of the features.
        frames: Frames T of a clip.
        classes: Number of classes C.
        latency: Whether to measure the time that it takes, too.

    Returns:
        ``name``, ``input`` (shape of a clip's features), ``grid``, ``order_aware``,
        ``reversal_aware``, ``paper``, ``summary`` (first line of its documentation), ``options``
        (each with ``name``, ``default``, ``choices`` or None, ``help``), ``extra`` (of vidfuse, or
        None), ``available``, ``problem`` (why it is not available), ``parameters``,
        ``multiply_adds`` and, if wanted, ``latency_ms`` (``alone``, ``batched``, ``batch``). What
        cannot be known of a head that is not available is None.

    Raises:
        UnknownNameError: No head has this name.
    """
    facts: dict[str, Any] = dict.fromkeys(
        ("input", "grid", "order_aware", "reversal_aware", "paper", "summary", "options", "extra")
    )
    cost = dict.fromkeys(("parameters", "multiply_adds", *(["latency_ms"] if latency else [])))
    problem = None
    try:
        cls = head_class(name)
        facts = _facts(cls)
        side = NATIVE if cls.grid == "native" else cls.grid
        with torch.random.fork_rng(devices=[]):
            head = build_head(name, channels=channels, grid=side, classes=classes)
        cost.update(asdict(count(head, frames)))
        if latency:
            cost["latency_ms"] = asdict(measure(head, frames))
    except UnknownNameError:
        raise
    except UserError as error:
        problem = str(error)
    except Exception as error:
        if name in HEADS:
            raise
        problem = f"head '{name}' fails: {blame(name, error)}"
    return {"name": name, **facts, "available": problem is None, "problem": problem, **cost}


def _facts(cls: type[Head]) -> dict[str, Any]:
    side = "g" if cls.grid == "native" else cls.grid
    return {
        "input": f"[T, D, {side}, {side}]",
        "grid": cls.grid,
        "order_aware": cls.order_aware,
        "reversal_aware": cls.reversal_aware,
        "paper": cls.paper,
        "summary": _documentation(cls).partition("\n")[0],
        "options": options(cls),
        "extra": cls.extra,
    }


def options(cls: type[Head]) -> list[dict[str, Any]]:
    """A head's settings: ``name``, ``default``, ``choices`` (or None) and ``help``."""
    helps: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Head):
            helps.update(_documented(base))
    return [
        {
            "name": name,
            "default": parameter.default,
            "choices": list(get_args(parameter.annotation))
            if get_origin(parameter.annotation) is Literal
            else None,
            "help": helps.get(name, ""),
        }
        for name, parameter in cls.known_settings().items()
    ]


def _documentation(cls: type[Head]) -> str:
    """A class's docstring, from its source where Python was told to drop it (``-OO``)."""
    if cls.__doc__ is not None:
        return inspect.cleandoc(cls.__doc__)
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return ""
    return (ast.get_docstring(tree) or "") if isinstance(tree, ast.ClassDef) else ""


def _documented(cls: type[Head]) -> dict[str, str]:
    """What the section ``Args`` of a class's docstring says of each argument."""
    found: dict[str, str] = {}
    section = _documentation(cls).partition("\nArgs:\n")[2]
    name = ""
    for line in section.splitlines():
        indent = len(line) - len(line.lstrip())
        if line and indent < 4:
            break
        if indent == 4:
            name, _, text = (part.strip() for part in line.partition(":"))
            found[name] = text
        elif name and line:
            found[name] += f" {line.strip()}"
    return found
