"""Everything that docs/performance.md says of speed, by one command.

    python benchmarks/speed.py CLIPS [CLIPS ...] [--networks thin_resnet,resnet50] [--rounds 3] \
        [--items limit,peer,growth,cache,latency] [--small CLIP] [--short] [--out speed.json] \
        [--before CHECKOUT]

`limit`    `vidfuse bench` in turns with `independent.py`: decoding alone, a network alone, and both
`peer`     in turns with that, `peer.py`: scripts as people write them, on the same clips
`growth`   `growth.py`: time and memory for more and more clips
`cache`    `heads_from_cache.py`: training from cached features
`latency`  `latency.py`: the wait for one prediction

CLIPS are files or folders of videos, of which the first 16 are used. Growth and cache copy the
small clip, by default one of sample_data, and latency predicts it; growth and latency take the
encoder `thin_resnet`. With `--before`, limit, peer and latency measure another checkout of vidfuse,
too, in turns with this one. Prints Markdown; `--short` only shows that all of it works. Nothing
else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from checkout import VIDFUSE, environment

from vidfuse.data.files import expand_inputs

HERE = Path(__file__).resolve().parent
SAMPLE_DATA = HERE.parent / "sample_data"
ITEMS = ("limit", "peer", "growth", "cache", "latency")
NETWORKS = {
    "thin_resnet": ["--backbone", "thin_resnet"],
    "resnet50": ["--backbone", "resnet50", "--weights", "random"],
}
SIZES = {"thin_resnet": 128, "resnet50": 224}
FRAMES = 16
CLIPS = 16  # of each run
UCF101 = 13_320  # clips
Report = dict[str, Any]


def main() -> None:
    arguments = parse()
    clips = [str(clip) for clip in expand_inputs(arguments.clips) if isinstance(clip, Path)][:CLIPS]
    report: Report = {"machine": machine(), "clips": clips, "settings": settings(arguments)}
    with tempfile.TemporaryDirectory() as folder:
        for part, text in measured(arguments, clips, Path(folder)):
            report |= part
            print(text, flush=True)
            if arguments.out:  # after every part: the next one may fail
                arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measured(
    arguments: argparse.Namespace, clips: list[str], folder: Path
) -> Iterator[tuple[Report, str]]:
    """The parts of the report, and each as Markdown."""
    if {"limit", "peer"} & set(arguments.items):
        found = {name: extraction(arguments, name, clips) for name in arguments.networks}
        yield {"extraction": found}, extraction_table(found)
    for item, measure in {"growth": growth, "cache": cache, "latency": latency}.items():
        if item in arguments.items:
            part, text = measure(arguments, folder)
            yield {item: part}, f"\n{text}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--networks", type=words, default=list(NETWORKS))
    parser.add_argument("--items", type=words, default=list(ITEMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", type=Path, default=SAMPLE_DATA / "blink" / "g12_1.mp4")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--short", action="store_true", help="as little as shows that it works")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for name, known in (("networks", NETWORKS), ("items", ITEMS)):
        if not set(getattr(arguments, name)) <= set(known):
            parser.error(f"--{name} takes any of {', '.join(known)}")
    return arguments


def words(text: str) -> list[str]:
    return text.split(",")


def settings(arguments: argparse.Namespace) -> Report:
    return {name: str(value) for name, value in vars(arguments).items() if name != "clips"}


def machine() -> Report:
    packages = ("vidfuse", "torch", "torchvision", "av", "decord")
    found = {"system": platform.platform(), "python": platform.python_version()}
    installed = {dist.name.lower() for dist in distributions()}
    return found | {name: version(name) for name in packages if name in installed}


def run(words: list[str], variables: dict[str, str] | None = None) -> str:
    """What a command prints, with the environment's variables or others.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def script(name: str, *options: object) -> str:
    return run([str(HERE / name), *map(str, options)])


def extraction(arguments: argparse.Namespace, network: str, clips: list[str]) -> Report:
    """vidfuse, the independent measurement and plain scripts, in turns."""
    device = ["--device", arguments.device]
    bench = ["bench", *clips, *NETWORKS[network], *device, "--format", "json"]
    seconds = "0.2" if arguments.short else "5"
    bench += ["--frames", str(FRAMES), "--repeats", "1", "--seconds", seconds]
    plain = ["--network", network, "--size", SIZES[network], "--frames", FRAMES, *device]
    before = environment(arguments.before) if arguments.before else None
    rounds: list[Report] = []
    for number in range(1 if arguments.short else arguments.rounds):
        found: Report = {"vidfuse": json.loads(run(["-m", "vidfuse", *bench]))}
        if before:
            found["before"] = json.loads(run([*VIDFUSE, *bench], before))
        precision = found["vidfuse"]["precision"]
        if "limit" in arguments.items:
            options = [*plain, "--precision", precision, "--seconds", seconds]
            found["independent"] = json.loads(script("independent.py", *clips, *options))
        if "peer" in arguments.items:
            found["sampled"] = json.loads(script("peer.py", *clips, *plain))
            if not number:  # it takes ten times as long
                whole = [*clips, *plain, "--way", "every"]
                found["every"] = json.loads(script("peer.py", *whole))
        rounds.append(found)
        print(network, number, {name: rates(each) for name, each in found.items()}, file=sys.stderr)
    return {"rounds": rounds, "compared": compared(rounds)}


def rates(found: Report) -> Report:
    return {name: value for name, value in found.items() if isinstance(value, float)}


def compared(rounds: list[Report]) -> Report:
    """Medians over rounds of what lay side by side."""

    def median(one: tuple[str, str], other: tuple[str, str] | None = None) -> float | None:
        pairs = [
            each[one[0]][one[1]] / (each[other[0]][other[1]] if other else 1)
            for each in rounds
            if one[0] in each and (other is None or other[0] in each)
        ]
        return statistics.median(pairs) if pairs else None

    def of_slower(name: str) -> float | None:
        """The pipeline's share of the slower of its parts, each measured with the whole machine."""
        found = [each[name] for each in rounds if name in each]
        shares = [
            each["pipeline"] / min(each["decode_only"], each["forward_only"]) for each in found
        ]
        return statistics.median(shares) if shares else None

    own = ("decode_only", "forward_only", "pipeline", "fraction_of_limit", "gemm_fraction")
    pipeline, plain = ("vidfuse", "pipeline"), "clips_per_second"
    first = rounds[0]["vidfuse"]
    found = {name: median(("vidfuse", name)) for name in own}
    return {
        **found,
        "fraction_of_slower": of_slower("vidfuse"),
        "precision": first["precision"],
        "reason": first["reason"],
        "device": first["device"],
        "processor": first["processor"],
        "decode_of_independent": median(("vidfuse", "decode_only"), ("independent", "decode_only")),
        "forward_of_independent": median(
            ("vidfuse", "forward_only"), ("independent", "forward_only")
        ),
        "before": median(("before", "pipeline")),
        "before_of_limit": median(("before", "fraction_of_limit")),
        "before_of_slower": of_slower("before"),
        "times_before": median(pipeline, ("before", "pipeline")),
        "times_sampled": median(pipeline, ("sampled", plain)),
        "times_every": median(pipeline, ("every", plain)),
        "ucf101_minutes": UCF101 / (found["pipeline"] or float("nan")) / 60,
    }


def extraction_table(extraction: Report) -> str:
    rows = {
        "decoding alone, clips/s": "decode_only",
        "of the independent script": "decode_of_independent",
        "network alone, clips/s": "forward_only",
        "of the independent script ": "forward_of_independent",
        "pipeline, clips/s": "pipeline",
        "of the limit": "fraction_of_limit",
        "of the slower part": "fraction_of_slower",
        "pipeline of the checkout before, clips/s": "before",
        "of its limit": "before_of_limit",
        "of its slower part": "before_of_slower",
        "times the pipeline before": "times_before",
        "precision": "precision",
        "fp32 of a large matrix product": "gemm_fraction",
        "times a plain script's rate": "times_sampled",
        "times that of one that reads every frame": "times_every",
        "13,320 clips at this rate, minutes": "ucf101_minutes",
    }
    lines = [f"| | {' | '.join(extraction)} |", "|" + "---|" * (1 + len(extraction))]
    for title, name in rows.items():
        if "before" in name and not any(each["compared"][name] for each in extraction.values()):
            continue
        cells = [shown(each["compared"][name]) for each in extraction.values()]
        lines.append(f"| {title.strip()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value or "")


def growth(arguments: argparse.Namespace, folder: Path) -> tuple[Report, str]:
    out = folder / "growth.json"
    counts = "2,4" if arguments.short else "10,100,1000,10000"
    encoder = shlex.join(NETWORKS["thin_resnet"])
    options = ["--counts", counts, f"--options={encoder}", "--out", out]
    text = script("growth.py", arguments.small, *options)
    return json.loads(out.read_text()), text.strip()


def cache(arguments: argparse.Namespace, folder: Path) -> tuple[Report, str]:
    out = folder / "cache.json"
    options: list[object] = ["--converge", "--lookup", UCF101]
    if arguments.short:
        options = ["--clips", 202, "--channels", 8, "--epochs", 1, "--lookup", 10]
    text = script("heads_from_cache.py", *options, "--clip", arguments.small, "--out", out)
    return json.loads(out.read_text()), text.strip()


def latency(arguments: argparse.Namespace, folder: Path) -> tuple[Report, str]:
    out, model = folder / "latency.json", folder / "model"
    quick = ["--epochs", "1", "--out", str(model), "--cache", str(folder / "features")]
    run(["-m", "vidfuse", "train", str(SAMPLE_DATA), *NETWORKS["thin_resnet"], *quick])
    runs = 1 if arguments.short else 8
    options: list[object] = ["--model", model, "--runs", runs, "--out", out]
    options += ["--before", arguments.before] if arguments.before else []
    text = script("latency.py", arguments.small, *options)
    return json.loads(out.read_text()), text.strip()


if __name__ == "__main__":
    main()
