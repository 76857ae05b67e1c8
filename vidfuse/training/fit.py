"""The training loop: from features in memory to the best weights of a head."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from operator import index
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.errors import UserError, first_sentence
from vidfuse.features.spec import FeatureConfig
from vidfuse.heads import HEADS, build_head, head_class
from vidfuse.heads.base import Head, threads_for
from vidfuse.heads.registry import options_of
from vidfuse.manifest import check_readable
from vidfuse.training.config import DENSE, TrainConfig
from vidfuse.training.examples import Examples, predict_parts
from vidfuse.training.optimizer import (
    AdamW,
    automatic_batch_size,
    balanced_weights,
    calibration_weights,
    decay_groups,
    lr_factor,
    macro_f1,
)

PREPARED_AT_ONCE = 64
"""Clips that a head is prepared with together; see `Head.prepare`."""
TRAINING = 3
"""Changes where the same settings train otherwise than before: such a run cannot go on."""
MAX_SKIPPED = 5
"""So many steps in a row without a finite loss and gradient end the run."""


@dataclass
class Epoch:
    """The record of one epoch. Validation fields are None without validation clips."""

    epoch: int
    """Counted from 1."""
    epochs: int
    train_loss: float
    """Mean over this epoch's steps, with dropout, class weights and label smoothing."""
    train_accuracy: float
    """Share of this epoch's training clips that were right when their step came, with dropout."""
    val_loss: float | None
    """Cross-entropy after calibration, the mean over classes."""
    val_accuracy: float | None
    val_macro_f1: float | None
    """Over the classes that occur in validation."""
    val_frames: float | None
    """Frames that a clip's answer took, on average."""
    lr: float
    """Learning rate of the last step."""
    grad_norm: float
    """Mean norm of the gradient before clipping."""
    grad_norm_max: float
    clipped: float
    """Share of steps whose gradient was cut."""
    skipped: int
    """Steps left out because their loss or gradient was not finite."""
    seconds: float
    improved: bool
    """True if this epoch's weights are the best so far."""


def new_head(config: TrainConfig, *, channels: int, grid: int, classes: int) -> Head:
    """Build the head that a configuration names, with initial weights from its seed.

    Raises:
        UserError: It cannot be built of its settings, or could not be read from a model file.
    """
    settings, cls = dict(config.head_options), head_class(config.head)
    if config.timeline == DENSE:
        if cls.dense_settings is None:
            able = [name for name in HEADS if head_class(name).dense_settings is not None]
            raise UserError(
                f"head '{config.head}' classifies clips, and not each moment",
                f"Choose one of: {', '.join(able)}; or --timeline windowed.",
            )
        settings = {**cls.dense_settings, **settings}
    if "dropout" in options_of(cls):
        settings.setdefault("dropout", config.dropout)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds those of GPUs too: the caller would not get them back.
        torch.default_generator.manual_seed(config.seed)
        try:
            head = build_head(
                config.head, channels=channels, grid=grid, classes=classes, settings=settings
            )
        except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # sizes beyond torch
            short = isinstance(error, MemoryError) or "alloc" in str(error)
            why = "more memory than there is" if short else first_sentence(error)
            raise UserError(
                f"head '{config.head}' cannot be built with these options ({why})",
                "Choose smaller or other ones: --head-option NAME=VALUE",
            ) from error
        check_readable(head)
    return head


class Fit:
    """Trains a head; iterate over it to do so, and get a record after every epoch.

    Every epoch draws its randomness from a seed of its own, made of the run's seed and the epoch's
    number. So nothing done between epochs changes the result, and a run resumed from `state_dict`
    ends with the very weights of one that was never interrupted (on a CPU; some GPU kernels add
    numbers in an order that varies).

    The best epoch is the one with the lowest validation loss after calibration: the parts of the
    logits that learn apart (`Head.logit_parts`) are weighed so that their sum tells the validation
    clips best, which leaves a head that is rather too sure no worse off; and every class counts
    alike. On few clips the loss is steadier than accuracy or F1. The cost of frames that a head
    selects is added. Without validation clips the last epoch is the best, and all parts count
    alike.

    Args:
        head: The head, changed in place.
        train: Clips to learn from.
        val: Clips that choose the epoch; may be empty.
        config: How to train.
        device: Where to compute.
        classes: Number of classes C. Where labels are those of frames, the head learns and is
            judged frame by frame.
        after: A fit that has ended, with the same settings, of which this is the refit: it begins
            anew, for as many epochs as were best there, so that the clips that chose them are
            learned from, too (Goodfellow et al., Deep Learning, 2016, algorithm 7.2). The rate
            falls to zero over these epochs.

    Attributes:
        best_state: Weights of the best epoch, on the CPU; None before the first epoch ends.
        best_epoch: Its number, counted from 1; 0 before the first epoch ends.
        weights: What the parts of the logits count [K]: as the last validation has it, or as it was
            set where there is none.
        best_weights: Those of the best epoch.
        lr: The highest learning rate.
        settings: What a resumed run must have in common with the one that began.
        first_step_seconds: `time.perf_counter()` when the first optimiser step was done.
    """

    def __init__(
        self,
        head: Head,
        train: Examples,
        val: Examples,
        config: TrainConfig,
        *,
        device: str | torch.device,
        classes: int,
        after: Fit | None = None,
    ) -> None:
        if after is not None:
            config = replace(config, epochs=after.best_epoch, patience=0)
        config.validate()
        if len(train) == 0:
            raise UserError("there are no training clips", "Look at: vidfuse inspect DATASET")
        self.device = torch.device(device)
        parts = torch.arange(len(train)).split(PREPARED_AT_ONCE)
        head.prepare(train.batch(part, torch.device("cpu")) for part in parts)
        self.head = head.to(self.device)
        if self.device.type == "cuda":
            train, val = train.resident(self.device), val.resident(self.device)
        self.train, self.val = train, val
        self.config = config
        # Not those of the features, of which whoever keeps the state has a digest.
        of_features = {each.name for each in fields(FeatureConfig)}
        settings = config.affecting_result().items()
        self.settings = {name: value for name, value in settings if name not in of_features}
        self.settings["training clips"] = len(train)
        self.classes = classes
        self.lr = head.lr if config.lr is None else config.lr
        self.batch_size = config.batch_size or automatic_batch_size(len(train))
        self.limit = config.clip_norm or math.inf
        self.steps = math.ceil(len(train) / self.batch_size)
        self.total = config.epochs * self.steps
        self.warmup = min(config.warmup_epochs, config.epochs // 2) * self.steps
        self.optimizer = AdamW(decay_groups(head, config.weight_decay), self.lr)
        self.half = None
        if self.device.type == "cuda":
            fast_bf16 = torch.cuda.get_device_capability(self.device) >= (8, 0)
            self.half = torch.bfloat16 if fast_bf16 else torch.float16
        # Gradients of float16 underflow unscaled; those of bfloat16 and float32 do not.
        self.scaler = torch.amp.GradScaler(init_scale=2.0**10, enabled=self.half is torch.float16)
        if config.class_weights in ("balanced", "sampler"):
            self.clip_weights = balanced_weights(train.labels)
        self.epoch = self.step = self.stale = self.skipped_in_a_row = 0
        # No clips are left to a refit to find its own on.
        self.weights = torch.ones(1) if after is None else after.best_weights
        self.best_weights: Tensor = self.weights
        self.best_state: dict[str, Tensor] | None = None
        self.best_epoch: int = 0
        self.best_score = -math.inf
        self.first_step_seconds: float | None = None

    def __iter__(self) -> Iterator[Epoch]:
        patience = self.config.patience or math.inf
        while self.epoch < self.config.epochs and self.stale < patience:
            yield self._run_epoch()

    def take_best(self) -> None:
        """Give the head its best weights."""
        assert self.best_state is not None
        self.head.load_state_dict(self.best_state)

    def state_dict(self) -> dict[str, Any]:
        """All that a later `Fit` of the same run needs to resume. Take it between epochs."""
        return copy.deepcopy(
            {
                "training": TRAINING,
                "settings": self.settings,
                "head": self.head.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "stale": self.stale,
                "skipped_in_a_row": self.skipped_in_a_row,
                "best_state": self.best_state,
                "best_epoch": self.best_epoch,
                "best_score": self.best_score,
                "best_weights": self.best_weights,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another `Fit` stopped.

        Raises:
            UserError: It belongs to a run with other settings or another number of clips, or of an
                earlier version.
            KeyError, TypeError, ValueError, RuntimeError: It is no such state.
        """
        here, there = self.settings, state["settings"]
        if state.get("training") != TRAINING:
            raise UserError(
                "it was begun by a version that trained otherwise", "Train anew, without --resume"
            )
        # An earlier release did not write down the settings that it did not have.
        differ = [key for key in here if key in there and here[key] != there[key]]
        if differ:
            changes = [f"{key}: {there.get(key)} then, {here[key]} now" for key in differ]
            raise UserError("a run cannot be resumed with other settings", "\n".join(changes))
        epoch, best_epoch = index(state["epoch"]), index(state["best_epoch"])
        if not 0 <= best_epoch <= epoch <= self.config.epochs:
            raise ValueError(f"epoch {epoch}, the best {best_epoch}, of {self.config.epochs}")
        if best_epoch:
            self.head.load_state_dict(state["best_state"])  # only to see that it fits
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where it was not needed: a run may go on on another device
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best_epoch = epoch, best_epoch
        self.step, self.stale = index(state["step"]), index(state["stale"])
        self.skipped_in_a_row = index(state["skipped_in_a_row"])
        self.best_state = copy.deepcopy(state["best_state"])
        self.best_score = float(state["best_score"])
        self.best_weights = state["best_weights"].clone()

    def _run_epoch(self) -> Epoch:
        start = time.perf_counter()
        seed = self.config.seed * 100_003 + self.epoch + 1  # the seed itself made the head
        generator = torch.Generator().manual_seed(seed)
        cuda = [self.device] if self.device.type == "cuda" else []
        self.head.train()
        losses, norms, right, seen, skipped = [], [], 0, 0, 0
        threads = threads_for(self.head, self.train.frames.shape[1], self.batch_size, self.device)
        # Dropout knows only torch's global generators; the caller gets its own back.
        with threads, torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            count = len(self.train)
            if self.config.class_weights == "sampler":
                chance = self.clip_weights.view(count, -1).mean(1)
                order = torch.multinomial(chance, count, replacement=True, generator=generator)
            else:
                order = torch.randperm(count, generator=generator)
            # Parts of equal size, so that no last step hangs on one clip.
            for indices in order.tensor_split(self.steps):
                lr = self.lr * lr_factor(self.step, warmup=self.warmup, total=self.total)
                loss, norm, hits = self._step(indices, lr, generator)
                self.step += 1
                right, seen = right + hits, seen + int((self.train.labels[indices] >= 0).sum())
                if math.isfinite(loss) and math.isfinite(norm):
                    losses.append(loss)
                    norms.append(norm)
                    self.skipped_in_a_row = 0
                    self.first_step_seconds = self.first_step_seconds or time.perf_counter()
                else:
                    skipped += 1
                    self._count_skipped(loss, norm)
        self.epoch += 1
        taken = len(losses) or math.nan
        validation = self._validate()
        if improved := self._keep_best(validation):
            self.stale = 0
        else:
            self.stale += 1
        return Epoch(
            epoch=self.epoch,
            epochs=self.config.epochs,
            train_loss=sum(losses) / taken,
            train_accuracy=right / seen,
            **validation,
            lr=lr,
            grad_norm=sum(norms) / taken,
            grad_norm_max=max(norms, default=math.nan),
            clipped=sum(norm > self.limit for norm in norms) / taken,
            skipped=skipped,
            seconds=time.perf_counter() - start,
            improved=improved,
        )

    def _count_skipped(self, loss: float, norm: float) -> None:
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise UserError(
                f"training broke down in epoch {self.epoch + 1}: {MAX_SKIPPED} steps in a row had "
                f"a loss ({loss:.3g}) or gradient ({norm:.3g}) that is not finite",
                f"Lower the learning rate: --lr {self.lr / 10:g}",
            )

    def _step(
        self, indices: Tensor, lr: float, generator: torch.Generator
    ) -> tuple[float, float, int]:
        """One optimiser step: loss, norm of the gradient before clipping, clips that were right."""
        features, lengths = self.train.batch(indices, self.device, generator)
        labels = self.train.labels[indices].to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        objective = self.head.loss if labels.ndim == 1 else self.head.frame_loss
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            losses, logits = objective(
                features, lengths, labels, label_smoothing=self.config.label_smoothing
            )
        if self.config.class_weights == "balanced":
            # Not cross_entropy's own `weight`: it divides by the batch's sum of weights, and so
            # gives a frequent class its weight back wherever a batch holds nothing else.
            losses = losses * self.clip_weights[indices].to(self.device)
        loss = losses[labels >= 0].mean()
        self.head.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)  # type: ignore[arg-type]
        norm = nn.utils.clip_grad_norm_(self.head.parameters(), self.limit).item()
        value = loss.item()
        if math.isfinite(value) and math.isfinite(norm):
            self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()
        return value, norm, int((logits.argmax(1) == labels).sum())

    def _validate(self) -> dict[str, Any]:
        """Compute the fields of `Epoch` about the validation clips; None without any."""
        if len(self.val) == 0:
            return dict.fromkeys(("val_loss", "val_accuracy", "val_macro_f1", "val_frames"))
        parts, frames = predict_parts(
            self.head, self.val, device=self.device, batch_size=max(64, self.batch_size)
        )
        labels = self.val.labels[self.val.labels >= 0]
        self.weights = calibration_weights(parts, labels)
        logits = (self.weights[:, None, None] * parts).sum(0)
        predicted = logits.argmax(1)
        counts = torch.bincount(labels, minlength=self.classes).clamp(min=1)
        return {
            # Torch divides by the sum of the clips' weights, so it is the mean of the classes'.
            "val_loss": F.cross_entropy(logits, labels, weight=1 / counts).item(),
            "val_accuracy": (predicted == labels).double().mean().item(),
            "val_macro_f1": macro_f1(labels, predicted, self.classes),
            "val_frames": frames.double().mean().item(),
        }

    def _keep_best(self, validation: dict[str, Any]) -> bool:
        """Keep the weights if they are the best so far; true if so."""
        if validation["val_loss"] is not None:  # without validation, the last epoch is the best
            paid = self.head.frame_cost * validation["val_frames"]
            score = -validation["val_loss"] - paid
            score = score if math.isfinite(score) else -math.inf
            if self.best_state is not None and not score > self.best_score:
                return False
            self.best_score = score
        self.best_epoch, self.best_weights = self.epoch, self.weights
        training = None
        if len(self.weights) > 1:
            training = copy.deepcopy(self.head.state_dict())
            self.head.weigh_parts(self.weights.to(self.device))
        weights = self.head.state_dict().items()
        self.best_state = {key: value.to("cpu", copy=True) for key, value in weights}
        if training is not None:
            self.head.load_state_dict(training)
        return True
