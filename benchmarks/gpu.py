"""Benchmark of everything that runs on a GPU, by one command that ends in time.

    python benchmarks/gpu.py [--clips FOLDER] [--out FOLDER] [--device cuda] [--seconds 480] \
        [--copies 2000] [--parts machine,tests,...] [--short]

`machine`      the GPU, its driver, versions, and what `vidfuse doctor` says
`tests`        the tests that are marked `gpu`
`resnet50`     extraction of copies of the clips, each with a content of its own, beside decoding
`thin_resnet`  and the network alone (`vidfuse bench`) and a plain script (`peer.py`), in turns
`precision`    features in bf16 and fp16 beside those in fp32
`decoders`     decoding on the GPU beside PyAV, in turns
`training`     an LSTM from the cache with and without automatic mixed precision (AMP), in turns

Each part has a process and a share of the time of its own (`gpu_parts.py`). So one that crashes,
hangs or leaves CUDA broken costs its own figures only. After each of them `gpu.json` and `gpu.md`
are written to the folder `--out`; the exit code is 1 if a part failed. Of the clips, up to 16 are
used. Nothing else should run meanwhile. `--device cpu` tries the script itself, and `--short`
measures as little as shows that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from speed import SAMPLE_DATA, words

from vidfuse.data.files import expand_inputs

HERE = Path(__file__).resolve().parent
# Parts in their order, and their shares of the time; what one leaves is there for the others.
SHARES = {
    "machine": 6,  # importing torch for the first time
    "tests": 7,
    "resnet50": 10,
    "thin_resnet": 6,
    "precision": 3,
    "decoders": 5,
    "training": 5,
}
CLIPS = 16
MOST_DISK = 0.5  # of the free disk, for copies of clips
Report = dict[str, Any]


def main() -> None:
    arguments = parse()
    end = time.monotonic() + arguments.seconds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the part that runs is ended
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(arguments).items()}
    report: Report = {"settings": settings, "parts": {}}
    with tempfile.TemporaryDirectory(prefix="vidfuse-gpu-") as work:
        began = time.monotonic()
        clips = copies(arguments, Path(work) / "clips")
        report["copies"] = {**clips, "seconds": time.monotonic() - began}
        todo = list(arguments.parts)
        while todo:
            share = SHARES[todo[0]] / sum(SHARES[part] for part in todo)
            part, seconds = todo.pop(0), max(0.0, end - time.monotonic()) * share
            print(f"{part}: {seconds:.0f} s at most", file=sys.stderr, flush=True)
            report["parts"][part] = run_part(arguments, part, seconds, Path(work))
            (arguments.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
            (arguments.out / "gpu.md").write_text(markdown(report), "utf-8")
    print(markdown(report))
    sys.exit(any("error" in found for found in report["parts"].values()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--clips", type=Path, default=SAMPLE_DATA)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--parts", type=words, default=list(SHARES))
    parser.add_argument("--short", action="store_true", help="as little as shows that it works")
    arguments = parser.parse_args()
    if not set(arguments.parts) <= set(SHARES):
        parser.error(f"--parts takes any of {', '.join(SHARES)}")
    return arguments


def copies(arguments: argparse.Namespace, folder: Path) -> Report:
    """Make copies of the clips that differ in their bytes and not in what they show."""
    found = [clip for clip in expand_inputs([str(arguments.clips)]) if isinstance(clip, Path)]
    sources = [clip for clip in found if clip.suffix.lower() in PADDING][:CLIPS]
    if not sources:
        raise SystemExit(f"{arguments.clips}: no {', '.join(PADDING)}")
    folder.mkdir()
    contents = [clip.read_bytes() for clip in sources]
    room = shutil.disk_usage(folder).free * MOST_DISK
    count = min(arguments.copies, int(room / max(map(len, contents))))
    for number in range(count):
        clip, content = sources[number % len(sources)], contents[number % len(sources)]
        copy = folder / f"{number:06d}{clip.suffix}"
        copy.write_bytes(content + PADDING[clip.suffix.lower()](number, len(content)))
    return {"sources": list(map(str, sources)), "count": count}


def free_box(number: int, _length: int) -> bytes:
    """A box of MP4 that readers skip."""
    return (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def junk_chunk(number: int, length: int) -> bytes:
    """A chunk of RIFF that readers skip; chunks begin at even places."""
    return b"\0" * (length % 2) + b"JUNK" + (8).to_bytes(4, "little") + number.to_bytes(8, "big")


def void_element(number: int, _length: int) -> bytes:
    """An element of Matroska that readers skip."""
    return b"\xec\x88" + number.to_bytes(8, "big")


PADDING = {".mp4": free_box, ".mov": free_box, ".avi": junk_chunk}
PADDING |= dict.fromkeys((".mkv", ".webm"), void_element)


def run_part(arguments: argparse.Namespace, part: str, seconds: float, work: Path) -> Report:
    """Run a part in a process of its own; what it has found when its time is over stays."""
    options = ["--device", arguments.device, "--seconds", str(seconds), "--work", str(work)]
    options += ["--short"] if arguments.short else []
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Nothing that was measured or kept before counts.
    own = {"XDG_CACHE_HOME": str(work / "home"), "VIDFUSE_CACHE": str(work / "cache")}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "gpu_parts.py"), part, *options],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **own, "PYTHONPATH": os.pathsep.join(paths)},
    )
    began, late = time.monotonic(), False
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
    if late:
        output, _ = process.communicate()
    found = last_answer(output)
    if late:
        found["error"] = f"cut off after {seconds:.0f} s"
    elif process.returncode:
        found.setdefault("error", f"ended with exit code {process.returncode}")
    return {**found, "seconds": time.monotonic() - began}


def last_answer(output: str) -> Report:
    """The last line that is JSON; the one before the end may be cut in two."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def markdown(report: Report) -> str:
    """The tables for docs/gpu.md."""
    parts = report["parts"]
    blocks = [about(parts.get("machine", {}))]
    extracted = {name: parts[name] for name in ("resnet50", "thin_resnet") if name in parts}
    if extracted:
        blocks.append(extraction_table(extracted))
    for name, table in TABLES.items():
        if name in parts and set(parts[name]) - {"error", "seconds"}:
            blocks.append(table(parts[name]))
    errors = {name: found["error"] for name, found in parts.items() if "error" in found}
    if errors:
        lines = [f"- {name}: {error.splitlines()[0]}" for name, error in errors.items()]
        blocks.append("\n".join(["Failed:", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def about(found: Report) -> str:
    names = ("processor", "driver", "cores", "python", "torch", "cuda", "cudnn", "av")
    return ", ".join(f"{name} {found[name]}" for name in names if found.get(name)) or "Machine ?"


def extraction_table(extracted: Report) -> str:
    rows = {
        "decoding alone, clips/s": "decode_only",
        "network alone, clips/s": "forward_only",
        "of which in fp32, clips/s": "forward_fp32",
        "extraction, warm, clips/s": "pipeline",
        "of the slower part": "pipeline_of_slower",
        "`vidfuse.extract` from its start, clips/s": "extract",
        "of the slower part ": "extract_of_slower",
        "times a plain script's rate": "extract_of_peer",
        "precision chosen": "precision",
        "clips extracted": "clips",
        "GPU memory, GB": "gpu_gb",
        "rounds": "count",
    }
    lines = [f"| | {' | '.join(extracted)} |", "|" + "---|" * (1 + len(extracted))]
    for title, name in rows.items():
        cells = [cell(each.get("median", {}).get(name)) for each in extracted.values()]
        lines.append(f"| {title.strip()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tests_table(found: Report) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in found["counts"].items())
    return "\n".join([f"Tests marked `gpu`: {counts}.", *found["failed"]])


def precision_table(found: Report) -> str:
    """Features beside those in exact fp32, which are compared with other frames' for a scale."""
    lines = ["| features | least cosine | median cosine | frames/s |", "|---|---|---|---|"]
    for network, each in found.items():
        if not isinstance(each, dict):
            continue
        lines.append(f"| {network}, another frame | | {each['other_frames']:.4f} | |")
        for name, row in each["precisions"].items():
            note = "" if row["finite"] else " (not finite, so computed again in fp32)"
            cosines = f"{row['least']:.6f} | {row['median']:.6f}"
            rate = cell(row["frames_per_second"])
            lines.append(f"| {network}, {name}{note} | {cosines} | {rate} |")
    return "\n".join(lines)


def decoders_table(found: Report) -> str:
    """The speed of each decoder, and how far its frames are from PyAV's, of 255."""
    names = ("clips_per_second", "of_pyav", "clips", "on_cpu", "refused", "difference")
    titles = ("clips/s", "times PyAV", "clips", "of which on the CPU", "refused", "difference")
    lines = [f"| decoder | {' | '.join(titles)} |", "|" + "---|" * (1 + len(titles))]
    for decoder, row in found.get("decoders", {}).items():
        lines.append(f"| {decoder} | {' | '.join(cell(row.get(name)) for name in names)} |")
    left_out = [f"- {decoder}: {why}" for decoder, why in found["skipped"].items()]
    return "\n".join([*lines, *([""] if left_out else []), *left_out])


def training_table(found: Report) -> str:
    lines = ["| LSTM, computed in | seconds per epoch | of fp32 | validation accuracy |"]
    lines.append("|---|---|---|---|")
    for name, row in found.get("ways", {}).items():
        own = " (what `train` takes)" if name == found["chosen"] else ""
        cells = [cell(row[each]) for each in ("seconds", "of_fp32", "val_accuracy")]
        lines.append(f"| {name}{own} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {
    "precision": precision_table,
    "decoders": decoders_table,
    "training": training_table,
    "tests": tests_table,
}


if __name__ == "__main__":
    main()
