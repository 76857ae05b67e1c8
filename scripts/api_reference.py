"""Print docs/api.md: the Python functions, their results and their settings, from the code.

python scripts/api_reference.py > docs/api.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from vidfuse import api, results
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.comparison.config import CompareConfig
from vidfuse.cutting.config import CutConfig
from vidfuse.features.spec import FeatureConfig
from vidfuse.inference.config import InferenceConfig, TimelineConfig
from vidfuse.results import Result
from vidfuse.settings import MachineConfig, Settings
from vidfuse.timeline import results as of_timelines
from vidfuse.training.config import TrainConfig

INTRODUCTION = """\
# Python reference

`import vidfuse` gives these functions; the commands call the same. They raise
`vidfuse.errors.UserError` for what a user can mend, and check their arguments when they are called.
More of it, such as predicting clips that come over time: [scripting.md](scripting.md).

<!-- Made by scripts/api_reference.py -->
"""
SETTINGS = (
    MachineConfig,
    InferenceConfig,
    TimelineConfig,
    FeatureConfig,
    TrainConfig,
    CompareConfig,
    AdaptConfig,
    CutConfig,
)
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):$")


def main() -> None:
    """Print the reference."""
    print(INTRODUCTION)
    print("## Functions\n")
    for name in sorted(api.__all__, key=lambda name: inspect.isclass(getattr(api, name))):
        thing = getattr(api, name)
        if inspect.isclass(thing):
            print(f"### {name}\n\n{markdown(thing)}")
            for method in ("predict", "evaluate", "close"):
                print(f"#### {name}.{method}\n")
                print(call(f"model.{method}", getattr(thing, method)))
        else:
            print(f"### {name}\n")
            print(call(f"vidfuse.{name}", thing))
    print("## Results\n")
    print("Each has `to_dict()`, which is what the command prints with `--format json`.\n")
    for name, thing in (vars(results) | vars(of_timelines)).items():
        if inspect.isclass(thing) and issubclass(thing, Result) and not name.startswith("_"):
            print(result(thing))
    print("## Settings\n")
    for cls in SETTINGS:
        print(settings(cls))


def call(name: str, function: Callable[..., Any]) -> str:
    """A function's signature and documentation."""
    signature = inspect.signature(function)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            parameters.append(f"**{parameter.name}")
        else:
            default = parameter.default
            told = "" if default is inspect.Parameter.empty else f" = {default!r}"
            parameters.append(f"{parameter.name}: {parameter.annotation}{told}")
    lines = "".join(f"    {each},\n" for each in parameters)
    lines = f"\n{lines}" if lines else ""
    head = f"{name}({lines}) -> {signature.return_annotation}"
    return f"```python\n{head}\n```\n\n{markdown(function)}"


def markdown(thing: Any) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines = []
    section = ""
    for line in inspect.cleandoc(thing.__doc__ or "").replace("``", "`").splitlines():
        if found := SECTION.match(line):
            section = found[1]
            lines += [f"**{section}**", ""]
        elif section in ("Args", "Raises", "Attributes") and line.startswith("    "):
            name, colon, text = line[4:].partition(": ")
            if colon and not name.startswith(" "):
                lines.append(f"- `{name}`: {text}")
            else:
                lines.append(f"  {line.strip()}")
        elif section:
            lines.append(line.strip())
        else:
            lines.append(line.replace("::", ":") if line.endswith("::") else line)
    return "\n".join(lines) + "\n"


def result(cls: type[Result]) -> str:
    """A result's fields."""
    bases = [base.__name__ for base in cls.__mro__[1:] if base is not Result and base is not object]
    shown = [base for base in bases if not base.startswith("_")]
    own = cls.__doc__ or ""
    inherited = [base for base in cls.__mro__[1:] if base.__name__.startswith("_")]
    known = documented(own)
    for base in inherited:
        known = documented(base.__doc__ or "") | known
    head = inspect.cleandoc(own).partition("\n")[0].replace("``", "`")
    named = " and ".join(f"`{base}`" for base in shown)
    also = f" It has the fields of {named}, and:" if shown else ""
    skipped = {f.name for base in cls.__mro__[1:] if base.__name__ in shown for f in fields(base)}
    rows = [
        f"- `{each.name}: {each.type}`" + (f": {known[each.name]}" if each.name in known else "")
        for each in fields(cls)
        if each.name not in skipped
    ]
    return f"### {cls.__name__}\n\n{head}{also}\n\n" + "\n".join(rows) + "\n"


def documented(text: str) -> dict[str, str]:
    """The section ``Attributes`` of a docstring: name → what is said of it."""
    found: dict[str, str] = {}
    name = ""
    section = inspect.cleandoc(text).replace("``", "`").partition("Attributes:\n")[2]
    for line in section.splitlines():
        head, colon, rest = line.strip().partition(": ")
        if colon and line.startswith("    ") and not line.startswith("     "):
            name = head
            found[name] = rest
        elif line.strip() and name:
            found[name] += f" {line.strip()}"
    return found


def settings(cls: type[Settings]) -> str:
    """The fields of a class of settings, but for those that another class here has."""
    parents = [base for base in cls.__mro__[1:] if base in SETTINGS]
    skipped = {each.name for base in parents for each in fields(base)}
    also = f"The fields of `{parents[0].__name__}`, and:\n\n" if parents else ""
    rows = []
    for each in fields(cls):
        if each.name in skipped:
            continue
        rules = each.metadata
        text = rules["help"]
        if choices := rules.get("choices"):
            text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        default = rules.get("unset", f"`{each.default!r}`")
        if "<" in default:
            default = f"`{default}`"
        if each.name == "head_options":
            default = "`{}`"
        rows.append(f"- `{each.name}: {each.type}`: {text} Default: {default}.")
    return f"### {cls.__name__}\n\n{also}" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
