"""One task: choose learning rate and dropout by validation, then test, also in other orders."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.errors import UserError
from vidfuse.evaluation.compare.config import CompareConfig
from vidfuse.evaluation.compare.kept import ORDERED, REVERSED, SHUFFLED, TESTED_SHUFFLED, Outcome
from vidfuse.evaluation.compare.plan import Task
from vidfuse.evaluation.compare.tables import load_table
from vidfuse.evaluation.compare.workload import Workload
from vidfuse.evaluation.frame_budget import frame_budget
from vidfuse.features.setup import resolve_device
from vidfuse.features.table import FeatureTable
from vidfuse.fusion.base import mask
from vidfuse.fusion.choosing import ChoosingHead
from vidfuse.system import one_thread
from vidfuse.training.config import TrainConfig
from vidfuse.training.fit import Examples, Fit, new_head, predict_logits
from vidfuse.training.fitting import take_best

PROBED_EPOCHS = 2
Order = Callable[[Tensor, Tensor], Tensor]
"""Table rows [B] and lengths [B] → sort keys [B, T] of the real frames."""


class Bench:
    """Carries out tasks, with every table loaded once.

    Args:
        work: What to know.
    """

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.config = CompareConfig.from_mapping(work.settings)
        self.device = resolve_device(self.config.device)
        self._load = cache(load_table)

    def carry_out(self, task: Task, epochs: int) -> Outcome:
        """Search, fit and test.

        Raises:
            UserError: No candidate could be trained.
        """
        with one_thread(self.device):
            return self._carry_out(task, epochs)

    def seconds_per_epoch(self, head: str) -> float:
        """How long an epoch of a head takes here, in one of the folds."""
        with one_thread(self.device):
            lr, dropout = self.config.candidates()[0]
            config = self._settings(Task(head, 0, 0), PROBED_EPOCHS + 1, lr, dropout)
            epochs = [epoch.seconds for epoch in self._fit(Task(head, 0, 0), config, None)[0]]
            return sum(epochs[1:]) / PROBED_EPOCHS  # the first one also sets things up

    def _carry_out(self, task: Task, epochs: int) -> Outcome:
        best: tuple[tuple[float, float], Fit, float] | None = None
        search, broken = [], []
        for lr, dropout in self._candidates(task.head):
            config = self._settings(task, epochs, lr, dropout)
            try:
                fit, seconds = self._trained(task, config, None)
            except UserError as error:  # too high a learning rate is no fault of the head
                broken.append(error)
                search.append({"lr": lr, "dropout": dropout, "macro_f1": None})
                continue
            search.append({"lr": lr, "dropout": dropout, "macro_f1": _finite(fit.best_score[0])})
            if best is None or fit.best_score > best[0]:
                best = (fit.best_score, fit, seconds)
        if best is None:
            raise broken[0]
        _, fit, seconds = best
        order = self._shuffled(task)
        scores = {
            ORDERED: self._scores(fit, task, None),
            TESTED_SHUFFLED: self._scores(fit, task, order),
            REVERSED: self._scores(fit, task, _backwards),
        }
        if fit.head.order_aware:
            blind, _ = self._trained(task, fit.config, order)
            scores[SHUFFLED] = self._scores(blind, task, order)
        else:
            scores[SHUFFLED] = scores[ORDERED]  # it would see the very same
        facts = {
            "lr": fit.config.lr,
            "dropout": fit.config.dropout,
            "best_epoch": fit.best_epoch,
            "training_seconds": seconds,
            "search": search,
        }
        if isinstance(fit.head, ChoosingHead):
            facts["frame_budget"] = self._frame_budget(fit.head, fit.device, task)
        return Outcome(scores, facts)

    def _candidates(self, head: str) -> list[tuple[float, float]]:
        """Those of the settings, without repeating what a head without dropout does not see."""
        from vidfuse.fusion import head_class

        candidates = self.config.candidates()
        if "dropout" in head_class(head).known_settings():
            return candidates
        first = candidates[0][1]
        return [(lr, dropout) for lr, dropout in candidates if dropout == first]

    def _settings(self, task: Task, epochs: int, lr: float, dropout: float) -> TrainConfig:
        seed = self.config.seed + task.seed
        return self.config.training(task.head, epochs=epochs, lr=lr, dropout=dropout, seed=seed)

    def _trained(self, task: Task, config: TrainConfig, order: Order | None) -> tuple[Fit, float]:
        fit, began = self._fit(task, config, order)
        for _ in fit:
            pass
        take_best(fit)
        return fit, time.perf_counter() - began

    def _fit(self, task: Task, config: TrainConfig, order: Order | None) -> tuple[Fit, float]:
        began = time.perf_counter()
        rows = self.work.splits[task.seed][task.fold]
        table = self._table(task.head)
        learned = set(rows["train"])
        clips = len(self.work.labels)
        mirrored = [clips + i for i, place in enumerate(self.work.twice) if place in learned]
        train = self._examples(table, [*rows["train"], *mirrored], order)
        train.frame_dropout = config.frame_dropout
        val = self._examples(table, rows["val"], order)
        _, channels, side, _ = table.features.shape
        classes = self.work.classes
        head = new_head(config, channels=channels, grid=side, classes=classes)
        return Fit(head, train, val, config, device=self.device, classes=classes), began

    def _table(self, head: str) -> FeatureTable:
        return self._load(Path(self.work.tables[str(self.work.grids[head])]))

    def _scores(self, fit: Fit, task: Task, order: Order | None) -> NDArray[np.float32]:
        """Class probabilities [M, C] of the fold's test clips, float32."""
        rows = self.work.splits[task.seed][task.fold]["test"]
        examples = self._examples(self._table(task.head), rows, order)
        logits = predict_logits(fit.head, examples, device=fit.device, batch_size=64)
        scores: NDArray[np.float32] = logits.softmax(-1).numpy()
        return scores

    def _frame_budget(self, head: ChoosingHead, device: torch.device, task: Task) -> dict[str, Any]:
        """Accuracy against frames on the fold's test clips, ready for JSON."""
        rows = self.work.splits[task.seed][task.fold]["test"]
        examples = self._examples(self._table(task.head), rows, None)
        features, lengths = examples.batch(torch.arange(len(rows)), device)
        return frame_budget(head, features, lengths, examples.labels.to(device)).to_dict()

    def _examples(self, table: FeatureTable, rows: list[int], order: Order | None) -> Examples:
        """Some rows of a table, in which features stay until a batch is made of them."""
        places = torch.tensor(rows, dtype=torch.int64)
        of_row = torch.tensor([*self.work.labels, *(self.work.labels[i] for i in self.work.twice)])

        def pick(indices: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
            features, lengths = table.pick(places[indices], generator)
            if order is None:
                return features, lengths
            return reorder(features, lengths, order(places[indices], lengths)), lengths

        lengths = table.chosen_lengths[places]
        return Examples(None, lengths, of_row[places], pick)

    def _shuffled(self, task: Task) -> Order:
        """A random order of each clip's frames, which stays the same for all passes and heads."""
        table = self._table(task.head)
        generator = torch.Generator().manual_seed(self.config.seed + task.seed)
        keys = torch.rand(table.chosen.shape, generator=generator)
        return lambda rows, lengths: keys[rows]


def _backwards(rows: Tensor, lengths: Tensor) -> Tensor:
    return -torch.arange(int(lengths.max())).expand(len(rows), -1)


def reorder(features: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
    """Frames in the order of their keys; padding stays where it is.

    Args:
        features: Features [B, T, D, g, g].
        lengths: How many frames of each clip are real [B].
        keys: What to sort by [B, at least the longest clip's frames].
    """
    frames = features.shape[1]
    padded = torch.full((len(lengths), frames), math.inf)
    width = min(frames, keys.shape[1])
    padded[:, :width] = keys[:, :width].float()
    padded[~mask(lengths, frames)] = math.inf
    order = padded.sort(dim=1, stable=True).indices
    return features[torch.arange(len(lengths))[:, None], order]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
