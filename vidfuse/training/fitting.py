"""Fitting a head to features in memory, and keeping what comes out: shared by runs and folds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from vidfuse.data.clip import Clip, Dataset
from vidfuse.errors import UserError
from vidfuse.features.gather import Gathered
from vidfuse.features.setup import resolve_device
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.training.config import TrainConfig
from vidfuse.training.prepare import Material
from vidfuse.training.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

    from vidfuse.backbones import BackboneChoice
    from vidfuse.training.fit import Examples, Fit

Parts = Mapping[str, Sequence[Clip]]
# A killed run repeats at most this much work, and writing its state stays a small part of it.
SECONDS_BETWEEN_STATES = 1.0


def new_fit(
    config: TrainConfig,
    features: Gathered,
    parts: Parts,
    classes: list[str],
) -> Fit:
    """A new head, and the examples it learns from: with their mirrored views, where there are."""
    from vidfuse.training.fit import Fit, new_head

    train = examples_of(config, features, parts["train"], classes, mirrored=True)
    train.frame_dropout = config.frame_dropout
    val = examples_of(config, features, parts["val"], classes)
    _, channels, side, _ = features.table.features.shape
    head = new_head(config, channels=channels, grid=side, classes=len(classes))
    device = resolve_device(config.device)
    return Fit(head, train, val, config, device=device, classes=len(classes))


def examples_of(
    config: TrainConfig,
    features: Gathered,
    clips: Sequence[Clip],
    classes: list[str],
    *,
    mirrored: bool = False,
) -> Examples:
    """Features and labels of clips, and of the mirrored views that there are of them."""
    from vidfuse.training.fit import Examples

    twice = features.twice(clips) if mirrored else []
    table = features.rows(clips, mirrored=twice)
    labels = labels_of([*clips, *twice], classes)
    more = config.cached_frames > config.frames
    pick = table.pick if more else table.whole
    return Examples(None, table.lengths, labels, pick, draws=more)


def labels_of(clips: Sequence[Clip], classes: list[str]) -> Tensor:
    """Class indices ``[N]`` of clips."""
    import torch

    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[str(clip.label)] for clip in clips], dtype=torch.int64)


def run_epochs(
    fit: Fit,
    run: Run,
    progress: Progress,
    timings: Timings,
    *,
    fold: int | None = None,
    data: str = "",
) -> None:
    """Train, log every epoch, and keep the state that a resumed run needs (not within folds).

    Args:
        fit: What to train.
        run: Where epochs are logged and the state is kept.
        progress: Receives progress updates.
        timings: The command's clock.
        fold: Number of the fold, where there are folds.
        data: Digest of what the head learns from, which a resumed run must find again.
    """
    task = "Training" if fold is None else f"Fold {fold}"
    progress.start(task, fit.config.epochs)
    progress.advance(fit.epoch)
    kept = time.monotonic()
    state = None
    try:
        with timings.measure("training"):
            for epoch in fit:
                run.log(asdict(epoch) | ({} if fold is None else {"fold": fold}))
                progress.advance(note=_note(asdict(epoch)))
                if fold is not None:
                    continue
                # Ctrl-C comes in the middle of an epoch, whose weights are of no use.
                state = {"data": data, "fit": fit.state_dict()}
                if time.monotonic() - kept > SECONDS_BETWEEN_STATES:
                    run.save_state(state)
                    kept = time.monotonic()
    except KeyboardInterrupt:
        if state is not None:
            run.save_state(state)
        raise
    finally:
        progress.finish()
    if fit.first_step_seconds is not None:
        timings.note("first_step", fit.first_step_seconds)


def restore(fit: Fit, run: Run, data: str) -> None:
    """Bring a fit where the run's state was kept; without a state, to the beginning.

    Raises:
        UserError: The state is damaged, or belongs to other data or settings.
    """
    state = run.load_state()
    if state is not None:
        try:
            if state["data"] != data:
                raise UserError(
                    f"{run.folder}: the dataset or its features are not what this run began with",
                    "Bring back the clips, labels and weights as they were, or start a new run.",
                )
            fit.load_state_dict(state["fit"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise run.damaged(error) from error
    run.keep_epochs(fit.epoch)


def take_best(fit: Fit) -> None:
    """Give the head its best weights."""
    assert fit.best_state is not None
    fit.head.load_state_dict(fit.best_state)


def validation(fit: Fit, clips: Sequence[Clip], classes: list[str]) -> dict[str, Any] | None:
    """Metrics of the best weights on the validation clips, which chose them."""
    from vidfuse.metrics import summary
    from vidfuse.training.fit import predict_logits

    if not clips:
        return None
    take_best(fit)
    logits = predict_logits(fit.head, fit.val, device=fit.device, batch_size=64)
    labels = labels_of(clips, classes).numpy()
    groups = [clip.group for clip in clips]
    return {"clips": len(clips), **summary(labels, logits.numpy(), classes, groups)}


def save_model(
    fit: Fit,
    run: Run,
    material: Material,
    parts: Parts,
    classes: list[str],
    facts: dict[str, Any],
) -> None:
    """Write the model of the best weights so far, and let ``runs/latest`` name the run."""
    from vidfuse.model import SEEN_DIGITS, Model

    take_best(fit)
    extractor, choice = material.extractor, material.setup.choice
    hashes = material.hashes
    model = Model(
        head=fit.head.cpu(),
        classes=classes,
        spec=replace(extractor.spec, frames=fit.config.frames),
        cached=extractor.spec,
        sampling=str(fit.config.rule),
        choice=choice,
        backbone_weights=_own_weights(choice),
        facts=facts,
        seen={
            part: sorted({hashes[clip][:SEEN_DIGITS] for clip in clips})
            for part, clips in parts.items()
        },
    )
    model.save(run.model, run.advice)
    run.set_latest()


def _own_weights(choice: BackboneChoice) -> dict[str, Tensor] | None:
    """Weights of the user's own, which the model file must carry."""
    from vidfuse.backbones.load import read_weights

    return None if choice.published or choice.weights is None else read_weights(choice.weights)


def facts_of(data: Dataset, protocol: str, config: TrainConfig) -> dict[str, Any]:
    """What a model file says about its training."""
    return {
        "dataset": data.name,
        "split": config.split,
        "protocol": protocol,
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": _versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _note(epoch: dict[str, Any]) -> str:
    text = f"loss {epoch['train_loss']:.3f}"
    if epoch["val_accuracy"] is not None:
        text += f"  val accuracy {epoch['val_accuracy']:.3f}"
    return text


def _versions() -> dict[str, str]:
    from importlib.metadata import version
    from platform import python_version

    packages = ("vidfuse", "torch", "av", "numpy")
    return {"python": python_version(), **{name: version(name) for name in packages}}
