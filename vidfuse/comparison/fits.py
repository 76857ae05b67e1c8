"""One task: choose learning rate and dropout by validation, then test, also in other orders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.backbones.imports import resolve_device
from vidfuse.comparison.fit_store import ORDERED, REVERSED, SHUFFLED, TESTED_SHUFFLED, FitResult
from vidfuse.comparison.job_spec import JobSpec, table_name
from vidfuse.comparison.plan import Candidate, Task
from vidfuse.comparison.tables import load_table
from vidfuse.errors import UserError
from vidfuse.features.table import FeatureTable
from vidfuse.heads import head_class
from vidfuse.heads.base import mask
from vidfuse.heads.policy import FrameSelectingHead
from vidfuse.heads.registry import options_of
from vidfuse.inference.frame_budget import frame_budget
from vidfuse.machine import one_thread
from vidfuse.training.config import TrainConfig
from vidfuse.training.examples import Examples, examples_of, predict
from vidfuse.training.fit import Fit, new_head

PROBED_EPOCHS = 2
Order = Callable[[Tensor, Tensor], Tensor]
"""Table rows [B] and lengths [B] → sort keys [B, T] of the real frames."""


class OutOfTimeError(Exception):
    """A fit was not done in time."""


class FitRunner:
    """Runs tasks, with every table loaded once.

    Args:
        job: Settings, splits and tables of the comparison.
    """

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self.config = TrainConfig.from_mapping(job.settings)
        self.device = resolve_device(self.config.device)
        self._load = cache(load_table)

    def run(self, task: Task, epochs: int, until: float | None = None) -> FitResult:
        """Search, fit and test.

        Args:
            task: What to do.
            epochs: Most epochs of a fit.
            until: When to give up, as of ``time.time``; None never.

        Raises:
            UserError: No fit succeeded.
            OutOfTimeError: It was not done in time.
        """
        with one_thread(self.device):
            return self._run(task, epochs, until)

    def seconds_per_epoch(self, candidate: Candidate) -> float:
        """Measured time of an epoch of a candidate, in one of the folds."""
        with one_thread(self.device):
            task = Task(candidate, 0, 0)
            config = self._settings(task, PROBED_EPOCHS + 1, *self.job.hyperparameters[0])
            rows = self.job.splits[0][0]
            fit = self._fit(task, config, None, rows["train"], rows["val"])
            epochs = [epoch.seconds for epoch in fit]
            return sum(epochs[1:]) / PROBED_EPOCHS  # the first one also sets things up

    def _run(self, task: Task, epochs: int, until: float | None) -> FitResult:
        best: tuple[float, Fit, float] | None = None
        search, errors = [], []
        for lr, dropout in self._hyperparameters(task.candidate.head):
            config = self._settings(task, epochs, lr, dropout)
            try:
                fit, seconds = self._trained(task, config, None, until)
            except UserError as error:  # too high a learning rate is no fault of the head
                errors.append(error)
                search.append({"lr": lr, "dropout": dropout, "score": None})
                continue
            score = fit.best_score if math.isfinite(fit.best_score) else None
            search.append({"lr": lr, "dropout": dropout, "score": score})
            if best is None or fit.best_score > best[0]:
                best = (fit.best_score, fit, seconds)
        if best is None:
            raise errors[0]
        _, chosen, seconds = best
        began = time.perf_counter()
        fit = self._refitted(chosen, task, None, until)
        seconds += time.perf_counter() - began
        scores = {ORDERED: self._scores(fit, task, None)}
        if self.job.orders:
            scores |= self._other_orders(fit, chosen.config, task, scores[ORDERED])
        metadata = {
            "lr": fit.lr,
            "dropout": fit.config.dropout,
            "best_epoch": fit.best_epoch,
            "training_seconds": seconds,
            "search": search,
        }
        if isinstance(fit.head, FrameSelectingHead):
            metadata["frame_budget"] = self._frame_budget(fit.head, fit.device, task)
        return FitResult(scores, metadata)

    def _other_orders(
        self, fit: Fit, config: TrainConfig, task: Task, ordered: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Class probabilities [M, C] of the test clips with their frames in other orders."""
        order = self._shuffled(task)
        scores = {
            TESTED_SHUFFLED: self._scores(fit, task, order),
            REVERSED: self._scores(fit, task, _reversed),
            SHUFFLED: ordered,  # a head that is blind to order would see the very same
        }
        if fit.head.order_aware:
            blind, _ = self._trained(task, config, order)
            scores[SHUFFLED] = self._scores(self._refitted(blind, task, order), task, order)
        return scores

    def _hyperparameters(self, head: str) -> list[tuple[float | None, float]]:
        """Learning rates and dropouts to try; one dropout for a head that has none."""
        pairs = list(self.job.hyperparameters)
        if "dropout" in options_of(head_class(head)):
            return pairs
        return [(lr, dropout) for lr, dropout in pairs if dropout == pairs[0][1]]

    def _settings(self, task: Task, epochs: int, lr: float | None, dropout: float) -> TrainConfig:
        head, seed = task.candidate.head, self.config.seed + task.seed
        return replace(self.config, head=head, epochs=epochs, lr=lr, dropout=dropout, seed=seed)

    def _trained(
        self, task: Task, config: TrainConfig, order: Order | None, until: float | None = None
    ) -> tuple[Fit, float]:
        began = time.perf_counter()
        rows = self.job.splits[task.seed][task.fold]
        fit = self._fit(task, config, order, rows["train"], rows["val"])
        _run_epochs(fit, until)
        return fit, time.perf_counter() - began

    def _refitted(
        self, fit: Fit, task: Task, order: Order | None, until: float | None = None
    ) -> Fit:
        """A fit of all clips but the fold's, for as many epochs as were best: see `Fit`."""
        if not fit.config.refit or len(fit.val) == 0:
            return fit
        rows = self.job.splits[task.seed][task.fold]
        everything = [*rows["train"], *rows["val"]]
        again = self._fit(task, fit.config, order, everything, [], after=fit)
        _run_epochs(again, until)
        return again

    def _fit(
        self,
        task: Task,
        config: TrainConfig,
        order: Order | None,
        learn_from: list[int],
        validate_with: list[int],
        after: Fit | None = None,
    ) -> Fit:
        table = self._table(task.candidate)
        learned = set(learn_from)
        clips = len(self.job.labels)
        mirrored = [clips + i for i, clip in enumerate(self.job.mirrored) if clip in learned]
        train = self._examples(table, [*learn_from, *mirrored], order, self.config.views)
        train.frame_dropout = config.frame_dropout
        val = self._examples(table, validate_with, order)
        _, channels, side, _ = table.features.shape
        classes = self.job.classes
        head = new_head(config, channels=channels, grid=side, classes=classes)
        return Fit(head, train, val, config, device=self.device, classes=classes, after=after)

    def _table(self, candidate: Candidate) -> FeatureTable:
        return self._load(Path(self.job.tables[table_name(candidate)]))

    def _scores(self, fit: Fit, task: Task, order: Order | None) -> NDArray[np.float32]:
        """Class probabilities [M, C] of the fold's test clips, float32."""
        rows = self.job.splits[task.seed][task.fold]["test"]
        examples = self._examples(self._table(task.candidate), rows, order)
        logits, _ = predict(fit.head, examples, device=fit.device, batch_size=64)
        scores: NDArray[np.float32] = logits.softmax(-1).numpy()
        return scores

    def _frame_budget(
        self, head: FrameSelectingHead, device: torch.device, task: Task
    ) -> dict[str, Any]:
        """Accuracy against frames on the fold's test clips, ready for JSON."""
        rows = self.job.splits[task.seed][task.fold]["test"]
        examples = self._examples(self._table(task.candidate), rows, None)
        features, lengths = examples.batch(torch.arange(len(rows)), device)
        return frame_budget(head, features, lengths, examples.labels.to(device)).to_dict()

    def _examples(
        self,
        table: FeatureTable,
        rows: list[int],
        order: Order | None,
        views: int = 0,
    ) -> Examples:
        """Some rows of a table, in which features stay until a batch is made of them.

        Args:
            table: Has the rows.
            rows: Those of clips, or of their mirrored views.
            order: The order of their frames; None is that of time.
            views: Number of random views of each clip, among which training draws.
        """
        clips = [*range(len(self.job.labels)), *self.job.mirrored]  # the one that each row shows
        labels = torch.tensor([self.job.labels[clips[row]] for row in rows])
        firsts = [len(clips) + views * clips[row] for row in rows]
        more = [range(first, first + views) for first in firsts] if views else None
        examples = examples_of(table, rows, labels, more)
        if order is not None:
            # Views have the order of their clip's frames.
            shown = [*rows, *(row for row in rows for _ in range(views))]
            keys = order(torch.tensor(shown, dtype=torch.int64), examples.lengths)
            examples.order = sorted_columns(examples.lengths, keys, examples.frames.shape[1])
        return examples

    def _shuffled(self, task: Task) -> Order:
        """A random order of each clip's frames, the same in all epochs and for all heads."""
        table = self._table(task.candidate)
        generator = torch.Generator().manual_seed(self.config.seed + task.seed)
        keys = torch.rand(table.chosen.shape, generator=generator)
        return lambda rows, _: keys[rows]


def _run_epochs(fit: Fit, until: float | None) -> None:
    """Train, and take the best weights.

    Raises:
        OutOfTimeError: It was not done in time.
    """
    for _ in fit:
        if until is not None and time.time() > until:
            raise OutOfTimeError
    fit.take_best()


def _reversed(rows: Tensor, lengths: Tensor) -> Tensor:
    return -torch.arange(int(lengths.max())).expand(len(rows), -1)


def sorted_columns(lengths: Tensor, keys: Tensor, frames: int) -> Tensor:
    """Columns [N, T] of the frames of each clip in the order of their keys; padding stays behind.

    Args:
        lengths: How many of the T frames of each clip are real [N].
        keys: What to sort by [N, at least the longest clip's frames].
        frames: T.
    """
    padded = torch.full((len(lengths), frames), math.inf)
    width = min(frames, keys.shape[1])
    padded[:, :width] = keys[:, :width].float()
    padded[~mask(lengths, frames)] = math.inf
    return padded.sort(dim=1, stable=True).indices
