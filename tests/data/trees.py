"""Trees of files for the tests of this folder; the files hold no video, only a byte."""

from __future__ import annotations

from pathlib import Path


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    return root
