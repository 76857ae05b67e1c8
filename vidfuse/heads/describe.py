"""Description of a head without training it: its input, options and cost."""

from __future__ import annotations

import ast
import inspect
from dataclasses import asdict
from textwrap import dedent
from typing import Any

import torch

from vidfuse.errors import UnknownNameError, UserError
from vidfuse.heads.base import Head
from vidfuse.heads.cost import count, measure
from vidfuse.heads.registry import HEADS, blame, build_head, head_class, options_of

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
        "summary": documentation_of(cls).partition("\n")[0],
        "options": options(cls),
        "extra": cls.extra,
    }


def options(cls: type[Head]) -> list[dict[str, Any]]:
    """List a head's options: ``name``, ``default``, ``choices`` (or None) and ``help``."""
    helps = help_of(cls)
    return [
        {
            "name": name,
            "default": option.default,
            "choices": list(option.choices) or None,
            "help": helps.get(name, ""),
        }
        for name, option in options_of(cls).items()
    ]


def documentation_of(cls: type) -> str:
    """Read a class's docstring, from its source where Python was told to drop it (``-OO``)."""
    if cls.__doc__ is not None:
        return inspect.cleandoc(cls.__doc__)
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return ""
    return (ast.get_docstring(tree) or "") if isinstance(tree, ast.ClassDef) else ""


def help_of(cls: type) -> dict[str, str]:
    """Read the help of each argument from a class's docstring and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = documentation_of(base).partition("\nArgs:\n")[2]
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
