"""``train --head auto``: chooses head, grid and encoder on training clips, then trains as always.

``race.py`` has the choice itself. It sees the clips that the run trains on and validates with, and
never those that it is measured on: the test part of its split, or with ``--folds`` those of each
fold, for which all is chosen anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from vidfuse.atomic import write_whole
from vidfuse.backbones.imports import import_torch
from vidfuse.comparison.fit_store import FitStore
from vidfuse.comparison.leaderboard import multiply_adds_of
from vidfuse.comparison.plan import Candidate, FitSettings, Plan, fit_digests, make_plan
from vidfuse.comparison.race import Race
from vidfuse.comparison.run import jobs_for
from vidfuse.comparison.tables import Tables, check_encoders, load_table
from vidfuse.comparison.workers import WorkerPool
from vidfuse.data.clip import Clip
from vidfuse.data.folds import Folds, make_folds
from vidfuse.data.splits import make_split
from vidfuse.errors import UserError
from vidfuse.features.spec import parse_grid
from vidfuse.inference.config import InferenceConfig
from vidfuse.inference.evaluate import evaluate_dataset
from vidfuse.inference.predictor import Ensemble, find_model
from vidfuse.progress import Reporter
from vidfuse.results import Choice, Evaluation, FoldsResult, Result, TrainResult
from vidfuse.runs import AUTO_FILE, WHO, Run, alone_in, named_run, new_run
from vidfuse.settings import MachineConfig, parse_duration
from vidfuse.training.config import AUTO, TrainConfig
from vidfuse.training.data import TrainingData
from vidfuse.training.folds import train_folds
from vidfuse.training.run import resumed_config, train

HEADS = (
    *(("lstm", 2), ("mean", 1), ("gru", 2), ("self-attention", 2), ("mean", 2), ("lstm", 1)),
    *(("tcn", 2), ("attentive-probe", 2), ("self-attention", 1), ("gru", 1), ("mean-std", 1)),
    *(("temporal-attention", 2), ("transformer", 2), ("tcn", 1), ("attentive-probe", 1)),
    *(("temporal-attention", 1), ("transformer", 1), ("max", 1)),
)
"""The heads and grids that are tried, in order: the default, then cheap and usually good ones."""
INNER_FOLDS = 4


@dataclass(frozen=True, kw_only=True)
class AutoRun(Result):
    """The request, the trials and the choices: the content of ``auto.json``.

    Attributes:
        dataset: Its absolute path.
        folds: Number of outer folds; None without.
        budget: Time of the choice, as it was given.
        settings: Those of the run before the choice.
        choices: Those that are made: one, or one for each fold and one for the model at the end.
        test: Metrics on clips that nothing was chosen by; None until then, and with folds.
    """

    dataset: str
    folds: int | None
    budget: str | None
    settings: dict[str, Any]
    choices: list[Choice]
    test: Evaluation | None = None

    def save(self, run: Run) -> None:
        """Write it to a run's folder, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=2)
        write_whole(run.folder / AUTO_FILE, text + "\n", run.advice)


def train_auto(
    dataset: Path | str,
    config: TrainConfig,
    *,
    budget: str | None,
    folds: int | None,
    reporter: Reporter,
) -> TrainResult | FoldsResult:
    """Choose head, grid and encoder by inner folds of the training clips, and train with them.

    Args:
        dataset: A dataset's folder or manifest.
        config: All settings; ``backbone`` may name several encoders, with commas between.
        budget: Time for all fits of the choice, such as ``20m``; None is as long as they take.
            Features are extracted before, and the chosen head is fitted after it.
        folds: Cross-validate with so many folds, and choose anew in each.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The dataset, the settings or the machine do not allow it.
        KeyboardInterrupt: After what was done so far was kept.
    """
    config.validate()
    settings = config.to_file()  # what it refuses is told before the work, not behind it
    asked = AutoRun(
        dataset=os.path.abspath(dataset), folds=folds, budget=budget, settings=settings, choices=[]
    )
    _seconds(budget)
    with ExitStack() as stack:
        run = None if config.out is None else named_run(config.out, stack)
        data = _read(asked.dataset, config, reporter)
        return _carry_out(run, stack, dataset, asked, config, data)


def resume_auto(
    folder: Path, settings: Mapping[str, Any], *, reporter: Reporter
) -> TrainResult | FoldsResult:
    """Go on with a run of ``train_auto`` that was cut off: with its choice, or with what follows.

    Args:
        folder: The run folder.
        settings: Settings of the machine that differ from the run's; no others may.
        reporter: Receives progress updates and collects the time of each stage.

    Raises:
        UserError: The run has ended, its file is damaged, or other settings are asked for.
    """
    run = Run(folder)
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder, WHO))
        try:
            text = (folder / AUTO_FILE).read_text(encoding="utf-8")
            asked = AutoRun.from_dict(json.loads(text))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{folder / AUTO_FILE}: cannot be used ({type(error).__name__})",
                "Start a new run: vidfuse train DATASET --head auto",
            ) from error
        if run.model.exists() and not run.state.exists():
            raise UserError(f"{folder}: this run has ended", f"Use its model: --model {folder}")
        config = resumed_config(run, asked.settings, settings)
        data = _read(asked.dataset, config, reporter)
        return _carry_out(run, stack, asked.dataset, asked, config, data)


def _read(dataset: Path | str, config: TrainConfig, reporter: Reporter) -> dict[str, TrainingData]:
    """The dataset with each encoder, by its name; one that is not here is told before any work."""
    configs = config.with_each_backbone()
    first = TrainingData(dataset, configs[0], reporter)
    data = {configs[0].backbone: first}
    for each in configs[1:]:
        data[each.backbone] = first.with_config(each)
    with reporter.measure("imports"):
        import_torch()
    check_encoders(data)
    return data


def _carry_out(
    run: Run | None,
    stack: ExitStack,
    dataset: Path | str,
    asked: AutoRun,
    config: TrainConfig,
    data: Mapping[str, TrainingData],
) -> TrainResult | FoldsResult:
    """Choose where nothing is chosen yet, fit what was chosen, and measure it."""
    first = next(iter(data.values()))
    reporter, rule = first.reporter, config.split
    tested = False
    if asked.folds is None:
        split = make_split(first.data, split=rule, seed=config.seed, contents=first.contents)
        parts, tested = [[*split.train, *split.val]], bool(split.test)
    else:
        outer = make_folds(
            first.data, asked.folds, split=rule, seed=config.seed, contents=first.contents
        )
        parts = [[*each.train, *each.val] for each in outer.splits] + [outer.clips]
    inner = [_inner_folds(first, clips, config) for clips in parts]
    if run is None:
        run = new_run(first.data.name, AUTO, stack)
    if len(asked.choices) < len(inner):
        asked = _choose(run, asked, config, data, inner)
    chosen = [_with_choice(config, choice) for choice in asked.choices]
    if asked.folds is not None:
        folds = train_folds(
            dataset,
            chosen[-1],
            asked.folds,
            reporter=reporter,
            run=run,
            chosen=chosen,
            data=first.with_config(chosen[-1]),
        )
        _drop_fits(run)
        return replace(folds, choices=asked.choices, **_extracted(folds, asked, data))
    begun = {"resumed": run} if run.state.exists() else {"run": run}
    own = first.with_config(chosen[0])
    trained = train(dataset, chosen[0], reporter=reporter, data=own, **begun)
    _drop_fits(run)
    test = _test(run, dataset, config, reporter) if tested else None
    replace(asked, test=test).save(run)
    return replace(
        trained,
        choice=asked.choices[0],
        test=test,
        timings=reporter.timings(),
        **_extracted(trained, asked, data),
    )


def _extracted(
    trained: TrainResult | FoldsResult, asked: AutoRun, data: Mapping[str, TrainingData]
) -> dict[str, Any]:
    """The numbers of features computed and found: training finds what the choice computed."""
    chosen = {choice.backbone for choice in asked.choices}
    before = sum(stats.computed for name in chosen for stats in data[name].all_stats)
    computed, reused = trained.computed + before, max(0, trained.reused - before)
    return {"computed": computed, "reused": reused}


def _choose(
    run: Run,
    asked: AutoRun,
    config: TrainConfig,
    data: Mapping[str, TrainingData],
    inner: Sequence[Folds],
) -> AutoRun:
    """Make the choices that are missing, each by inner folds of its own, and keep them.

    Raises:
        KeyboardInterrupt: After saying how to go on.
    """
    first = next(iter(data.values()))
    reporter = first.reporter
    candidates = candidates_of(config, list(data))
    wanted = list(dict.fromkeys(clip for folds in inner for clip in folds.clips))
    seconds = _seconds(asked.budget)
    with Tables(run.folder) as tables:
        clips = _fill(tables, run, asked, data, wanted, candidates)
        plan = make_plan(clips, [first.hashes[clip] for clip in clips], inner)
        costs = {each: _cost(each, plan, tables, data[each.backbone]) for each in candidates}
        keys = fit_digests(plan, {each: _settings(each, data) for each in candidates})
        store = FitStore(run.folder / "fits", reporter)
        job_spec = tables.write_job_spec(
            plan, first.config, [(config.lr, config.dropout)], orders=False
        )
        jobs = jobs_for(None, config.device, len(keys))
        reporter.info(f"Choosing among {len(candidates)} candidates; {inner[0].protocol}")
        with reporter.measure("choice"), WorkerPool(job_spec, jobs) as pool:
            for number in range(len(asked.choices), len(inner)):
                race = Race(
                    plan,
                    number,
                    inner[number].protocol,
                    costs,
                    {task: store.path(task, key) for task, key in keys.items()},
                    config.epochs,
                    seconds and seconds / len(inner),
                    reporter,
                )
                for task, key in keys.items():
                    if task.seed == number and (result := store.find(task, key)) is not None:
                        race.results[task] = result
                try:
                    choice = race.run(pool)
                except KeyboardInterrupt:
                    reporter.warn(
                        f"interrupted: {len(race.results)} fits of the choice are kept; go on "
                        f"with: vidfuse train --resume {run.folder}"
                    )
                    raise
                asked = replace(asked, choices=[*asked.choices, choice])
                asked.save(run)
                (reporter.info if choice.judged else reporter.warn)(choice.reason)
    return asked


def _fill(
    tables: Tables,
    run: Run,
    asked: AutoRun,
    data: Mapping[str, TrainingData],
    wanted: Sequence[Clip],
    candidates: Sequence[Candidate],
) -> Sequence[Clip]:
    """Extract features for all candidates; from the beginning of it the run can be resumed.

    Raises:
        UserError: They cannot be extracted; then a new run leaves nothing to be resumed.
        KeyboardInterrupt: After saying how to go on.
    """
    request = run.folder / AUTO_FILE
    new = not request.exists()
    asked.save(run)
    try:
        return tables.fill(data, wanted, candidates)
    except KeyboardInterrupt:
        next(iter(data.values())).reporter.warn(
            "interrupted: the features that were extracted are kept; go on with: "
            f"vidfuse train --resume {run.folder}"
        )
        raise
    except UserError:
        if new:
            request.unlink(missing_ok=True)
        raise


def candidates_of(config: TrainConfig, backbones: Sequence[str]) -> list[Candidate]:
    """List the candidates, in order: every head with every encoder, on ``--grid`` if given.

    Args:
        config: All settings.
        backbones: The encoders.
    """
    given = None if config.grid is None else parse_grid(config.grid)
    pairs = dict.fromkeys((head, grid if given is None else given) for head, grid in HEADS)
    return [Candidate(head, name, grid) for head, grid in pairs for name in backbones]


def _seconds(budget: str | None) -> float | None:
    """Seconds of a budget; None for as many as it takes.

    Raises:
        UserError: It is no duration.
    """
    try:
        return None if budget is None else parse_duration(budget)
    except UserError as error:
        raise UserError(f"budget: {error.message}", error.hint) from error


def _inner_folds(data: TrainingData, clips: Sequence[Clip], config: TrainConfig) -> Folds:
    """Folds of training clips: four, or as many as their groups allow.

    Raises:
        UserError: They do not allow even two.
    """
    rule = config.split if config.split in ("group", "random") else "auto"
    part = replace(data.data, clips=list(clips))
    problem = None
    for count in range(INNER_FOLDS, 1, -1):
        try:
            return make_folds(part, count, split=rule, seed=config.seed, contents=data.contents)
        except UserError as error:
            problem = error
    raise UserError(
        f"{part.root}: its training clips are too few to choose a head by: "
        f"{str(problem and problem.message).removeprefix(f'{part.root}: ')}",
        "Name one with --head, or add clips or groups.",
    )


def _settings(candidate: Candidate, data: Mapping[str, TrainingData]) -> FitSettings:
    """All that decides the fits of a candidate: settings of the run, and that no order is tried."""
    own = data[candidate.backbone]
    config = replace(own.config, head=candidate.head)
    return FitSettings(own.spec(candidate.grid), config, {"head": AUTO})


def _cost(candidate: Candidate, plan: Plan, tables: Tables, data: TrainingData) -> int:
    """Multiply-adds for a clip, of the encoder and the head."""
    from vidfuse.heads.cost import count
    from vidfuse.training.fit import new_head

    _, channels, side, _ = load_table(tables.path(candidate)).features.shape
    config = replace(data.config, head=candidate.head)
    head = new_head(config, channels=channels, grid=side, classes=len(plan.classes))
    encoder = multiply_adds_of(candidate.backbone, config.frames)
    return encoder + count(head, config.frames).multiply_adds


def _with_choice(config: TrainConfig, choice: Choice) -> TrainConfig:
    return replace(config, head=choice.head, backbone=choice.backbone, grid=str(choice.grid))


def _drop_fits(run: Run) -> None:
    """Remove the fits of the choice, which is made and kept."""
    shutil.rmtree(run.folder / "fits", ignore_errors=True)


def _test(run: Run, dataset: Path | str, config: TrainConfig, reporter: Reporter) -> Evaluation:
    """Measure the run's model on the test clips."""
    machine = {each.name: getattr(config, each.name) for each in fields(MachineConfig)}
    models = [find_model(run.folder, reporter)]
    with closing(Ensemble(models, InferenceConfig(**machine), reporter)) as ensemble:
        return evaluate_dataset(ensemble, dataset, layout=config.layout, reporter=reporter)
