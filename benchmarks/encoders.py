"""Frames per second of every encoder, beside the bundled one: `docs/encoders.md` has the table.

    python benchmarks/encoders.py --out encoders.json [--only NAME …] [--turns 3] [--most-gmacs G]

Each encoder runs in turns with the bundled one: one forward pass of up to 32 frames (of a clip
encoder, of one window), in fp32, on one core, with random weights, since speed does not hang on
them. The time is that of this process's processor, so that other work disturbs it less, and the
ratio is one within a turn; the first turn sets things up and does not count. Frames are those that
an encoder sees. Tags of one network that see frames of one size share a line. What was measured
stays in the file, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from vidfuse.atomic import write_whole
from vidfuse.backbones import (
    BACKBONES,
    DEFAULT_BACKBONE,
    backbone_names,
    choose,
    find_backbone,
)
from vidfuse.backbones.info import BackboneInfo
from vidfuse.backbones.load import Backbone, load_backbone

MOST_FRAMES, GMACS = 32, 32.0
"""Frames of a forward pass: as many as take so many GMACs, and no more."""


@dataclass(frozen=True)
class Speed:
    """What was measured of an encoder.

    Attributes:
        frames_per_second: Median over the turns.
        slower: How many times slower than the bundled encoder it is: median, least and most.
    """

    frames_per_second: float
    slower: tuple[float, float, float]


def main() -> None:
    """Measure the encoders that are asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--most-gmacs", type=float, metavar="G", default=float("inf"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(arguments.out.read_text("utf-8")) if arguments.out.exists() else {}
    reference = load_backbone(choose(DEFAULT_BACKBONE))
    networks = distinct(arguments.only or backbone_names())
    for name, info in networks.items():
        if name not in known and info.gmacs <= arguments.most_gmacs:
            known[name] = asdict(measure(name, info, reference, arguments.turns))
            write_whole(arguments.out, json.dumps(known, indent=1))
            print(f"{name}: {known[name]['frames_per_second']:.3g} frames/s", flush=True)
    print(report({name: info for name, info in networks.items() if name in known}, known))


def distinct(names: list[str]) -> dict[str, BackboneInfo]:
    """The encoders, of those that differ in nothing but weights the first."""
    found: dict[tuple[str, int], tuple[str, BackboneInfo]] = {}
    for name in names:
        full, info = find_backbone(name)
        found.setdefault((info.factory, info.size), (full, info))
    return dict(found.values())


def measure(name: str, info: BackboneInfo, reference: Backbone, turns: int) -> Speed:
    """Run an encoder in turns with the bundled one."""
    network = load_backbone(choose(name, "random"))
    rates, ratios = [], []
    for turn in range(turns + 1):
        rate = frames_per_second(network, info)
        ratio = frames_per_second(reference, BACKBONES[DEFAULT_BACKBONE]) / rate
        if turn:
            rates.append(rate)
            ratios.append(ratio)
    return Speed(median(rates), (median(ratios), min(ratios), max(ratios)))


def frames_per_second(network: Backbone, info: BackboneInfo) -> float:
    """Frames per second of this process's processor, over one forward pass."""
    few = max(1, min(MOST_FRAMES, round(GMACS / (info.gmacs or GMACS))))
    count = info.window if info.kind == "clip" else few
    pixels = torch.randint(0, 256, (count, info.size, info.size, 3), dtype=torch.uint8)
    began = time.process_time()
    with torch.inference_mode():
        network(pixels)
    return count / (time.process_time() - began)


def report(networks: dict[str, BackboneInfo], known: dict[str, dict[str, object]]) -> str:
    """A table in Markdown, the fastest first."""
    lines = [
        "| encoder | sees | parameters | GMACs a frame | frames/s | times slower |",
        "|---|---|---|---|---|---|",
    ]
    speeds = {name: Speed(**known[name]) for name in networks}  # type: ignore[arg-type]
    for name in sorted(speeds, key=lambda each: speeds[each].slower[0]):
        info, speed = networks[name], speeds[name]
        middle, low, high = speed.slower
        window = f"{info.window} × " if info.kind == "clip" else ""
        lines.append(
            f"| `{name}` | {window}{info.size} px | {info.parameters / 1e6:.3g} M | "
            f"{digits(info.gmacs / info.window)} | {digits(speed.frames_per_second)} | "
            f"{digits(middle)} ({digits(low)} to {digits(high)}) |"
        )
    left_out = len(distinct(backbone_names())) - len(networks)
    machine = f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, one thread"
    return "\n".join([*lines, "", f"{machine}; not measured: {left_out}"])


def digits(value: float) -> str:
    """A number with three significant digits, or in full."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
