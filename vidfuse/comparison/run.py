"""``compare``: from a dataset to a leaderboard or table, results on disk, and advice."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidfuse.backbones import Grid
from vidfuse.backbones.imports import import_torch, resolve_device
from vidfuse.comparison.advice import RULE, Advice, advise, advise_of_several
from vidfuse.comparison.config import REFERENCE, CompareConfig
from vidfuse.comparison.fit_store import ORDERED
from vidfuse.comparison.leaderboard import (
    Row,
    baseline_predictions,
    baseline_rows,
    costs,
    head_rows,
    hit_shares,
    predictions,
    set_beside_best,
)
from vidfuse.comparison.plan import Candidate, Plan, make_plan
from vidfuse.comparison.results import refuse_results_of_another, write_results
from vidfuse.comparison.scheduler import FitScheduler
from vidfuse.comparison.tables import Tables, check_encoders, load_table
from vidfuse.comparison.workers import MOST_PROCESSES, WorkerPool
from vidfuse.data.folds import make_folds
from vidfuse.errors import UserError
from vidfuse.features.build import summary as summary_of
from vidfuse.features.spec import parse_grid
from vidfuse.heads import head_class
from vidfuse.machine import cores
from vidfuse.progress import Reporter
from vidfuse.runs import RUNS, alone_in
from vidfuse.training.data import TrainingData

Grids = dict[str, Grid]


def compare(
    dataset: Path | str,
    config: CompareConfig,
    *,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Compare heads, of one encoder or of several, and leave the results in a folder.

    All heads see the same clips, folds, number of epochs, and candidates for learning rate and
    dropout, which the inner validation part of each fold chooses. Whatever a fold tests on, nobody
    has seen. A comparison that was cut off goes on when it is called again. Of several encoders, a
    clip that one of them cannot read is left out for all.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings.
        reporter: Receives progress updates and collects the time of each stage.

    Returns:
        A summary ready for JSON: ``heads``, ``baselines``, ``advice``, ``protocol`` and more;
        ``failed_heads`` are those without a result. Where the settings name ``backbones``, the
        heads of all of them are in ``heads``, and ``backbones`` says what to take of each.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After what was done so far was kept.
    """
    reporter = reporter or Reporter()
    config.validate()
    backbones = config.backbone_list()
    training = TrainingData(dataset, config.training(REFERENCE, backbone=backbones[0]), reporter)
    data = {backbones[0]: training}
    for name in backbones[1:]:
        data[name] = training.with_config(replace(training.config, backbone=name))
    with reporter.measure("imports"):
        import_torch()
    check_encoders(data)
    grids, left_out = choose_heads(config, reporter)
    candidates = [Candidate(head, name, grids[head]) for head in grids for name in backbones]
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
        clips = tables.fill(data, folds[0].clips, candidates)
        contents = [training.hashes[clip] for clip in clips]
        plan = make_plan(clips, contents, folds, warnings)
        job_spec = tables.write_job_spec(
            plan, training.config, config.hyperparameters(), orders=config.orders
        )
        specs = {each: data[each.backbone].spec(each.grid) for each in candidates}
        scheduler = FitScheduler(plan, config, specs, folder, reporter)
        jobs = jobs_for(config.jobs, config.device, sum(1 for _ in plan.tasks(candidates)))
        with reporter.measure("training"), WorkerPool(job_spec, jobs) as pool:
            epochs = scheduler.run(pool)
        with reporter.measure("costs"):
            found = _found(plan, config, scheduler, tables)
    all_stats = [stats for each in data.values() for stats in each.all_stats]
    failures = summary_of(training.extractor, all_stats)["failures"]
    summary = {
        "dataset": str(dataset),
        "dataset_path": os.path.abspath(dataset),
        "out": str(folder),
        "classes": plan.classes,
        "clips": len(plan.clips),
        "groups": len(set(plan.groups) - {None}),
        **found,
        "protocol": _protocol(plan, config, data, epochs, jobs),
        "failed_heads": scheduler.failed_heads(),
        "left_out": left_out,
        "failures": list({each["path"]: each for each in failures}.values()),
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
    return Path(config.out).expanduser() if config.out else RUNS / f"compare-{name}"


def jobs_for(wanted: int | None, device: str, tasks: int) -> int:
    """Number of processes that there are work and room for.

    Args:
        wanted: What was asked for; None is one per core, one on a GPU.
        device: Where to compute.
        tasks: How many there are to do.
    """
    on_cpu = resolve_device(device) == "cpu"
    return min(wanted or (min(cores(), MOST_PROCESSES) if on_cpu else 1), tasks)


def _found(
    plan: Plan, config: CompareConfig, scheduler: FitScheduler, tables: Tables
) -> dict[str, Any]:
    """The leaderboard or the table, the baselines and the advice."""
    found = {each: predictions(plan, scheduler.results, each) for each in scheduler.done}
    baselines = baseline_predictions(plan, tables.infos)
    shares = {each: hit_shares(plan, kinds[ORDERED]) for each, kinds in found.items()}
    blind = {name: hit_shares(plan, each) for name, each in baselines.items()}
    rows: list[Row] = []
    row_of: dict[Candidate, Row] = {}
    advices: dict[str, Advice] = {}
    for backbone in dict.fromkeys(each.backbone for each in found):
        own = {each.head: each for each in found if each.backbone == backbone}
        rows = head_rows(plan, scheduler.results, {each: found[each] for each in own.values()})
        for row in rows:
            each = own[row["name"]]
            row |= costs(each.head, config, load_table(tables.path(each)), len(plan.classes))
            row_of[each] = row
        of_heads = {head: shares[each] for head, each in own.items()}
        advices[backbone] = advise(rows, of_heads, blind, plan.groups)
    advice, more = next(iter(advices.values())), {}
    if config.backbones is not None:
        rows = set_beside_best(plan, shares, row_of, config.frames)
        advice = advise_of_several(rows, advices)
        more["backbones"] = [
            {"name": name, "advice": each.text, "recommended": each.head}
            for name, each in advices.items()
        ]
    return {
        "heads": rows,
        **more,
        "baselines": baseline_rows(plan, baselines),
        "advice": advice.text,
        "recommended": advice.head,
    }


def _protocol(
    plan: Plan, config: CompareConfig, data: Mapping[str, TrainingData], epochs: int, jobs: int
) -> dict[str, Any]:
    """Settings and methods behind the numbers."""
    candidates = config.hyperparameters()
    specs = {
        name: training.spec(1).to_dict() | {"grid": "of each head"}
        for name, training in data.items()
    }
    of_specs = {"spec": specs[config.backbone]} if config.backbones is None else {"specs": specs}
    return {
        "folds": config.folds,
        "seeds": config.seeds,
        "split": plan.protocol,
        "epochs": epochs,
        "budget": config.budget,
        "search": {
            "lrs": sorted({lr for lr, _ in candidates}),
            "dropouts": sorted({dropout for _, dropout in candidates}),
            "chosen_by": "calibrated loss on the inner validation part of each fold",
        },
        "settings": config.to_dict(),
        **of_specs,
        "jobs": jobs,
        "intervals": "95 %; seeds are averaged first; interval_method of each head says how",
        "tests": "paired sign flips of groups against mean, on scores averaged over seeds; p_value "
        "is corrected for the number of heads (Holm)",
        "rule": RULE,
    }
