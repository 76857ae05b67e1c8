"""Which functions of the package a command enters: how far one reads to follow it.

    python tests/walk.py [--json FILE] predict CLIP --model MODEL
    python tests/walk.py [--json FILE] train DATASET --epochs 1

runs the command in this process, and prints on standard error, for each file, the functions that
its threads entered, and the most generators of the package that lay on one stack. Left out are
lambdas, comprehensions, generator expressions, and bodies of classes and modules, as well as what
runs in other processes, such as those that decode.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


@dataclass
class Walk:
    """What was entered.

    Attributes:
        root: The package's folder, with a separator behind it.
        functions: File, first line and name of each; one is one however often it is entered.
        generators: The longest chain of generators on one stack, the innermost first.
    """

    root: str
    functions: set[tuple[str, int, str]] = field(default_factory=set)
    generators: list[CodeType] = field(default_factory=list)

    def __enter__(self) -> Walk:
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not self._counts(code):
            return
        self.functions.add((self._file(code), code.co_firstlineno, code.co_qualname))
        # A stack has no more generators than before unless one was just entered.
        if code.co_flags & inspect.CO_GENERATOR:
            chain: list[CodeType] = []
            step: FrameType | None = frame
            while step is not None:
                if step.f_code.co_flags & inspect.CO_GENERATOR and self._counts(step.f_code):
                    chain.append(step.f_code)
                step = step.f_back
            if len(chain) > len(self.generators):
                self.generators = chain

    def _counts(self, code: CodeType) -> bool:
        """Whether it is a function of the package with a name of its own."""
        if not code.co_filename.startswith(self.root) or code.co_name.startswith("<"):
            return False
        return bool(code.co_flags & inspect.CO_OPTIMIZED)  # no body of a class

    def to_dict(self) -> dict[str, Any]:
        """Names by file, and the counts, ready for JSON."""
        files: dict[str, list[str]] = {}
        for file, _, name in sorted(self.functions):
            files.setdefault(file, []).append(name)
        return {
            "functions": sum(map(len, files.values())),
            "files": len(files),
            "generators": len(self.generators),
            "entered": files,
            "chain": [f"{self._file(code)}: {code.co_qualname}" for code in self.generators],
        }

    def _file(self, code: CodeType) -> str:
        return Path(code.co_filename[len(self.root) :]).as_posix()


def text(found: dict[str, Any]) -> str:
    """What was entered, for people."""
    lines = []
    for file, names in found["entered"].items():
        lines += [f"{file} ({len(names)})", *(f"    {name}" for name in names)]
    lines += ["generators on one stack, the innermost first", *(f"    {n}" for n in found["chain"])]
    counts = (f"{found[each]} {each}" for each in ("functions", "files", "generators"))
    return "\n".join([*lines, ", ".join(counts)])


def main() -> None:
    words, out = sys.argv[1:], None
    if words[:1] == ["--json"]:
        out, words = Path(words[1]).absolute(), words[2:]
    if not words:
        sys.exit(__doc__)
    spec = importlib.util.find_spec("vidfuse")
    assert spec is not None
    assert spec.origin is not None
    sys.argv = ["vidfuse", *words]
    walk = Walk(os.path.dirname(spec.origin) + os.sep)
    code: object = None
    try:
        with walk:
            from vidfuse.cli.app import main as command

            command()
    except SystemExit as end:
        code = end.code
    found = walk.to_dict()
    if out is None:
        print(text(found), file=sys.stderr)
    else:
        out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
