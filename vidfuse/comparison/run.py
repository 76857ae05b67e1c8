"""``compare``: from a dataset to a leaderboard, results on disk, and advice."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidfuse.atomic import writing
from vidfuse.backbones import Grid
from vidfuse.backbones.imports import import_torch, resolve_device
from vidfuse.comparison.advice import RULE, advise
from vidfuse.comparison.config import REFERENCE, CompareConfig
from vidfuse.comparison.fit_store import ORDERED
from vidfuse.comparison.leaderboard import (
    baseline_predictions,
    baseline_rows,
    costs,
    head_rows,
    hit_shares,
    predictions,
)
from vidfuse.comparison.plan import Plan, make_plan
from vidfuse.comparison.results import refuse_results_of_another, write_results
from vidfuse.comparison.scheduler import FitScheduler
from vidfuse.comparison.tables import Tables, load_table
from vidfuse.comparison.workers import MOST_PROCESSES, WorkerPool
from vidfuse.data.folds import make_folds
from vidfuse.errors import UserError
from vidfuse.features.build import summary as summary_of
from vidfuse.features.spec import parse_grid
from vidfuse.heads import head_class
from vidfuse.machine import cores
from vidfuse.progress import Reporter
from vidfuse.runs import OTHER_FOLDER, RUNS, alone_in
from vidfuse.training.data import TrainingData

Grids = dict[str, Grid]


def compare(
    dataset: Path | str,
    config: CompareConfig,
    *,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Compare heads on a dataset, and leave the results in a folder.

    All heads see the same clips, folds, number of epochs, and candidates for learning rate and
    dropout, which the inner validation part of each fold chooses. Whatever a fold tests on, nobody
    has seen. A comparison that was cut off goes on when it is called again.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        A summary ready for JSON: ``heads``, ``baselines``, ``advice``, ``protocol`` and more;
        ``failed_heads`` are those without a result.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After what was done so far was kept.
    """
    reporter = reporter or Reporter()
    config.validate()
    training = TrainingData(dataset, config.training(REFERENCE), reporter)
    with reporter.measure("imports"):
        import_torch()
    grids, left_out = choose_heads(config, reporter)
    folds = [
        make_folds(
            training.data,
            config.folds,
            split=config.split,
            seed=config.seed + number,
            contents=training.contents,
        )
        for number in range(config.seeds)
    ]
    warnings = training.announce(folds[0].protocol, folds[0].warnings)
    folder = _folder(config, training.data.name)
    with alone_in(folder, "another comparison"), Tables(folder) as tables:
        refuse_results_of_another(folder, dataset)
        clips = tables.fill(training, folds[0].clips, grids.values())
        contents = [training.hashes[clip] for clip in clips]
        plan = make_plan(clips, contents, folds, warnings)
        job_spec = tables.write_job_spec(plan, config, grids)
        specs = {head: training.spec(grid) for head, grid in grids.items()}
        scheduler = FitScheduler(plan, config, grids, specs, folder, reporter)
        jobs = _jobs(config, plan, grids)
        with reporter.measure("training"), WorkerPool(job_spec, jobs) as pool:
            epochs = scheduler.run(pool)
        with reporter.measure("costs"):
            found = _found(plan, config, scheduler, tables)
    summary = {
        "dataset": str(dataset),
        "dataset_path": os.path.abspath(dataset),
        "out": str(folder),
        "classes": plan.classes,
        "clips": len(plan.clips),
        "groups": len(set(plan.groups) - {None}),
        **found,
        "protocol": _protocol(plan, config, training, epochs, jobs),
        "failed_heads": [{"name": name, "error": why} for name, why in scheduler.failed.items()],
        "left_out": left_out,
        "failures": list(
            {
                e["path"]: e for e in summary_of(training.extractor, training.all_stats)["failures"]
            }.values()
        ),
        "warnings": plan.warnings,
        "timings": reporter.timings(),
    }
    write_results(folder, summary, reporter)
    return summary


def choose_heads(config: CompareConfig, reporter: Reporter) -> tuple[Grids, list[dict[str, str]]]:
    """The heads that are compared, with the grid that each reads, and those left out.

    Raises:
        UserError: A head that was asked for by name cannot be built here.
    """
    from vidfuse.training.fit import new_head

    grids: Grids = {}
    left_out = []
    for name in config.head_list():
        try:
            grid = parse_grid(config.grid) if config.grid else head_class(name).grid
            # The sizes do not matter: it shows whether the head can be built here.
            side = grid if isinstance(grid, int) else 1
            new_head(config.training(name), channels=16, grid=side, classes=2)
        except UserError as error:
            if not config.every_head:
                raise
            left_out.append({"name": name, "error": str(error).replace("\n", ". ")})
            reporter.warn(f"left out: {left_out[-1]['error']}")
        else:
            grids[name] = grid
    return grids, left_out


def _folder(config: CompareConfig, dataset: str) -> Path:
    name = re.sub(r"[^\w.-]+", "_", dataset).strip("_") or "dataset"
    folder = Path(config.out).expanduser() if config.out else RUNS / f"compare-{name}"
    with writing(folder, OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _jobs(config: CompareConfig, plan: Plan, heads: Sequence[str] | Grids) -> int:
    """Number of processes that there are work and room for."""
    on_cpu = resolve_device(config.device) == "cpu"
    wanted = config.jobs or (min(cores(), MOST_PROCESSES) if on_cpu else 1)
    return min(wanted, sum(1 for _ in plan.tasks(list(heads))))


def _found(
    plan: Plan, config: CompareConfig, scheduler: FitScheduler, tables: Tables
) -> dict[str, Any]:
    """The leaderboard, the baselines and the advice."""
    found = {head: predictions(plan, scheduler.results, head) for head in scheduler.done}
    rows = head_rows(plan, scheduler.results, found)
    for row in rows:
        table = load_table(tables.path(scheduler.grids[row["name"]]))
        row |= costs(row["name"], config, table, len(plan.classes))
    baselines = baseline_predictions(plan, tables.infos)
    advice = advise(
        rows,
        {head: hit_shares(plan, kinds[ORDERED]) for head, kinds in found.items()},
        {name: hit_shares(plan, each) for name, each in baselines.items()},
        plan.groups,
    )
    return {
        "heads": rows,
        "baselines": baseline_rows(plan, baselines),
        "advice": advice.text,
        "recommended": advice.head,
    }


def _protocol(
    plan: Plan, config: CompareConfig, training: TrainingData, epochs: int, jobs: int
) -> dict[str, Any]:
    """Settings and methods behind the numbers."""
    candidates = config.candidates()
    return {
        "folds": config.folds,
        "seeds": config.seeds,
        "split": plan.protocol,
        "epochs": epochs,
        "budget": config.budget,
        "search": {
            "lrs": sorted({lr for lr, _ in candidates}),
            "dropouts": sorted({dropout for _, dropout in candidates}),
            "chosen_by": "macro F1, then loss, on the inner validation part of each fold",
        },
        "settings": config.to_dict(),
        "spec": training.spec(1).to_dict() | {"grid": "of each head"},
        "jobs": jobs,
        "intervals": "95 %; seeds are averaged first; interval_method of each head says how",
        "tests": "paired sign flips of groups against mean, on scores averaged over seeds; p_value "
        "is corrected for the number of heads (Holm)",
        "rule": RULE,
    }
