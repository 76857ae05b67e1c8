"""Model files made by hand, as docs and old releases have them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Manifest = dict[str, Any]
Tensors = dict[str, torch.Tensor]


def checksum(tensors: Tensors, manifest: str) -> str:
    """CRC-32 of the manifest, and of the name and the bytes of each tensor, in order of names."""
    value = zlib.crc32(manifest.encode())
    for name in sorted(tensors):
        value = zlib.crc32(f"\n{name}\n".encode(), value)
        content = tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes()
        value = zlib.crc32(content, value)
    return f"{value:08x}"


def rewrite(
    source: Path,
    path: Path,
    change: Callable[[Manifest], Any] = lambda manifest: None,
    tensors: Callable[[Tensors], Any] = lambda tensors: None,
) -> Path:
    """A model like another, with a checksum that fits."""
    with safe_open(source, framework="pt") as file:
        manifest = json.loads(file.metadata()["vidfuse"])
    state = load_file(source)
    change(manifest)
    tensors(state)
    text = json.dumps(manifest)
    save_file(state, path, {"vidfuse": text, "crc32": checksum(state, text)})
    return path
