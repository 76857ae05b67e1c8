"""The tables of docs/heads.md: `vidfuse compare` on three datasets, as Markdown.

    python benchmarks/fusion_zoo.py DATA [--heads all] [--seeds 3] [--folds 5] [--epochs N] \
        [--backbone NAME --layer NAME --weights FILE] --out zoo

compares heads on `sample_data` and on the folders `ut_interaction` and `fight_surv` of DATA, and
prints one table for each. What `compare` leaves, with frames, is in `--out`; the same command
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidfuse import api
from vidfuse.cli.console import ConsoleReporter

SAMPLE_DATA = Path(__file__).resolve().parents[1] / "sample_data"
FEWER = {"fight_surv": 12}
"""Epochs where the default would take an hour and more; still some 200 steps."""
SETTINGS = ("heads", "seeds", "folds", "epochs", "jobs", "cache")
FEATURES = ("backbone", "layer", "weights")
RESULTS = ("head", "accuracy", "macro F1", "to `mean`", "p", "shuffled", "test only", "reversed")
COSTS = ("head", "grid", "parameters", "multiply-adds", "ms alone", "ms batched", "train s")


def main() -> None:
    arguments = parse()
    given = {name: getattr(arguments, name) for name in (*SETTINGS, *FEATURES)}
    settings = {name: value for name, value in given.items() if value is not None}
    for dataset in (SAMPLE_DATA, arguments.data / "ut_interaction", arguments.data / "fight_surv"):
        if arguments.only and dataset.name not in arguments.only:
            continue
        out = str(arguments.out / dataset.name)
        fewer = {"epochs": FEWER[dataset.name]} if dataset.name in FEWER else {}
        found = api.compare(dataset, out=out, reporter=ConsoleReporter(), **(fewer | settings))
        text = section(dataset.name, found.to_dict())
        (arguments.out / f"{dataset.name}.md").write_text(text, encoding="utf-8")
        print(text)
        for each in found.failed_heads:
            print(f"{each.name} failed: {each.error}", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("zoo"))
    parser.add_argument("--only", action="append", help="one of the datasets, by name")
    for name in ("seeds", "folds", "epochs", "jobs"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("heads", "cache", *FEATURES):
        parser.add_argument(f"--{name}")
    return parser.parse_args()


def section(name: str, summary: dict[str, Any]) -> str:
    """One dataset as Markdown."""
    protocol, spec = summary["protocol"], summary["protocol"]["spec"]
    rows = [result(row) for row in summary["heads"]]
    rows += [
        (f"*{baseline}*", share(row), f"{100 * row['macro_f1']:.1f}", *[""] * 5)
        for baseline, row in summary["baselines"].items()
    ]
    lines = [
        f"## {name}",
        "",
        f"{summary['clips']} clips, {summary['groups']} groups, {len(summary['classes'])} classes; "
        f"`{spec['backbone']}` up to `{spec['layer']}`, {spec['frames']} frames; "
        f"{protocol['folds']} folds by group × {protocol['seeds']} seeds, {protocol['epochs']} "
        f"epochs, learning rates {protocol['search']['lrs']} × dropouts "
        f"{protocol['search']['dropouts']}.",
        "",
        *table(RESULTS, rows),
        "",
        summary["advice"],
        "",
        *table(COSTS, [cost(row) for row in summary["heads"]]),
        "",
    ]
    return "\n".join(lines)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]


def result(row: dict[str, Any]) -> tuple[str, ...]:
    reference = row["difference"] is None
    return (
        f"`{row['name']}`",
        share(row),
        f"{100 * row['macro_f1']:.1f}",
        "" if reference else f"{100 * row['difference']:+.1f}",
        "" if reference else f"{row['p_value']:.3f}",
        *(
            "" if row[kind] is None else f"{100 * row[kind]:.1f}"
            for kind in ("shuffled", "tested_shuffled", "reversed")
        ),
    )


def cost(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"`{row['name']}`",
        str(row["grid"]),
        f"{row['parameters']:,}",
        f"{row['multiply_adds'] / 1e6:.2f} M",
        f"{row['latency_ms']:.2f}",
        f"{row['latency_batched_ms']:.2f}",
        f"{row['training_seconds']:.1f}",
    )


def share(row: dict[str, Any]) -> str:
    low, high = row["accuracy_interval"] or (row["accuracy"],) * 2
    return f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
