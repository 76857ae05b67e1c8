"""How long an epoch takes beside other programs that keep all cores busy.

    python benchmarks/busy_training.py [DATASET] [--head lstm] [--busy 8] [--epochs 5]

`vidfuse train` runs alone with one thread, then as it comes beside so many single-threaded busy
processes. With fair shares of the cores an epoch would take T₁ × (busy + 1) / cores; the ratio says
how many times that it took. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidfuse.machine import cores

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("dataset", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--head", default="lstm")
    parser.add_argument("--busy", type=int, default=8, help="busy processes")
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs, besides the first")
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = (arguments.dataset, arguments.head, arguments.epochs, Path(folder))
        seconds_per_epoch(*options, "warm", threads=1)  # extracts the features
        alone = seconds_per_epoch(*options, "alone", threads=1)
        with busy(arguments.busy):
            beside = seconds_per_epoch(*options, "beside", threads=None)
    fair = alone * max(1.0, (arguments.busy + 1) / cores())
    report = {
        **{"head": arguments.head, "cores": cores(), "busy": arguments.busy},
        **{"alone_seconds": alone, "beside_seconds": beside, "ratio": beside / fair},
    }
    print("| head | cores | busy processes | epoch alone, one thread | beside them | of fair |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {arguments.head} | {cores()} | {arguments.busy} | {alone:.2f} s | {beside:.2f} s "
        f"| {beside / fair:.2f} times |"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def seconds_per_epoch(
    dataset: Path, head: str, epochs: int, folder: Path, name: str, *, threads: int | None
) -> float:
    """Median over the epochs of a training, without the first, which also sets things up."""
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    if threads is not None:
        environment |= dict.fromkeys(THREADS, str(threads))
    run = folder / name
    options = ["--head", head, "--epochs", str(epochs + 1), "--patience", "0", "--no-refit"]
    places = ["--device", "cpu", "--out", str(run), "--cache", str(folder / "cache")]
    command = [sys.executable, "-m", "vidfuse", "--quiet", "train", str(dataset)]
    subprocess.run(
        [*command, *options, *places], env=environment, stdout=subprocess.DEVNULL, check=True
    )
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(statistics.median(json.loads(line)["seconds"] for line in lines[1:]))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end, and end with the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
