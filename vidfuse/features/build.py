"""From settings to an extractor: which network, which features, where they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vidfuse.backbones import FP32, BackboneChoice, Grid, choose
from vidfuse.backbones.imports import load_factory, resolve_device
from vidfuse.backbones.info import PREPROCESSING
from vidfuse.data.clip import Clip
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError, UserError
from vidfuse.features.cache import Store
from vidfuse.features.encode import Encoder
from vidfuse.features.extract import ExtractionStats, Extractor
from vidfuse.features.spec import FeatureConfig, FeatureSpec, parse_grid, weights_digest
from vidfuse.progress import Reporter
from vidfuse.video.backends import POLICIES

if TYPE_CHECKING:
    from vidfuse.backbones.engine import TorchEngine


def finest(grids: Iterable[Grid]) -> list[Grid]:
    """The fewest grids that all the given ones can be derived from."""
    wanted = set(grids)
    if "native" in wanted:
        return ["native"]
    sides = [grid for grid in wanted if grid != "native"]
    return sorted(g for g in sides if not any(other > g and other % g == 0 for other in sides))


def build_extractor(
    config: FeatureConfig, grid: Grid, reporter: Reporter, encoder: Encoder | None = None
) -> Extractor:
    """Make an extractor of the features that settings mean, on one grid.

    The backbone itself is loaded when something has to be computed.

    Args:
        config: The settings.
        grid: Side of the features' grid.
        reporter: Receives progress updates and collects the time of each stage.
        encoder: That of an extractor of the same settings on another grid, which is shared.

    Raises:
        UserError: The backbone, its weights or the cache cannot be used.
    """
    choice = choose(config.backbone, config.weights, config.layer)
    index = ContentIndex(config.cache_folder)
    with reporter.measure("cache"):
        weights = weights_digest(choice, index, reporter)
    rule, preprocessing = config.rule, {n: getattr(choice.info, n) for n in PREPROCESSING}
    if choice.info.kind == "clip" and choice.layer != choice.info.layer:
        from vidfuse.backbones.load import count_steps

        preprocessing["steps"] = count_steps(choice)
    spec = FeatureSpec(
        decode=POLICIES[config.decoder][0],
        # Training jitters among cached frames; those that are cached are uniform.
        sampling="uniform" if rule.mode == "segment" else str(rule),
        frames=config.cached_frames,
        size=config.size or choice.info.size,
        crop=config.crop,
        backbone=choice.name,
        layer=choice.layer,
        weights=weights,
        grid=grid,
        fps=config.fps,
        **preprocessing,
    )
    return Extractor(
        spec=spec,
        encoder=encoder or Encoder(partial(_load_engine, config, choice, spec, reporter)),
        decoder=config.decoder,
        store=Store(config.cache_folder),
        index=index,
        workers=config.workers,
        time_limit=config.time_limit,
        memory=config.memory_bytes,
        reporter=reporter,
        more=spec.sources[1:2] if spec.grid == 1 and config.grid is None else [],
    )


def _load_engine(
    config: FeatureConfig, choice: BackboneChoice, spec: FeatureSpec, reporter: Reporter
) -> TorchEngine:
    """Load the backbone, whatever the grid of the spec.

    Raises:
        UserError: It cannot be loaded, or ``--grid`` asks for more cells than its map has: they
            would only be copies.
    """
    with reporter.measure("imports"):
        load_factory(choice.info.factory)  # half of the time that a first run waits
        from vidfuse.backbones.engine import TorchEngine
        from vidfuse.backbones.load import load_backbone

    with reporter.measure("model"):
        backbone = load_backbone(choice, device=resolve_device(config.device, reporter))
        engine = TorchEngine(backbone, config.precision, spec.network)
        if config.grid is None or (grid := parse_grid(config.grid)) in (1, "native"):
            return engine
        blank = np.zeros((spec.window, spec.size, spec.size, 3), np.uint8)
        side = min(engine.features([blank], FP32, ["native"])[0].shape[-2:])
        if int(grid) > side:
            raise UserError(
                f"grid {grid} has more cells than the {side}x{side} map of {choice.name} up to "
                f"{choice.layer} from frames of {spec.size} pixels",
                f"Choose --grid {side} or less, --grid native, or a larger --size.",
            )
    return engine


def one_line(error: InputError) -> str:
    """An error as a warning among others."""
    hint = (error.hint or "").replace("\n", " ")
    return ". ".join(filter(None, (error.message, hint)))


def print_warnings(warned: Sequence[tuple[Clip, list[str]]], reporter: Reporter) -> None:
    """Say how many clips were read with warnings, and of one of them what.

    Args:
        warned: Clips with what was warned of, which may be nothing.
        reporter: Receives progress updates and collects the time of each stage.
    """
    found = [(clip, lines[0]) for clip, lines in warned if lines]
    if found:
        clip, line = found[0]
        reporter.warn(f"{len(found)} clips were read with warnings, such as {clip.name}: {line}")


def check_failures(failures: list[tuple[Clip, InputError]], clips: int, allowed: float) -> None:
    """Stop when more clips failed than ``--max-failed`` allows.

    Raises:
        InputError: Naming the first failures.
    """
    if len(failures) <= allowed * clips:
        return
    clip, error = failures[0]
    raise InputError(
        clip.path,
        error.reason,
        f"{len(failures)} of {clips} clips could not be read; --max-failed allows "
        f"{allowed:.0%}. What was extracted is kept.",
    )


def summary(extractor: Extractor, all_stats: list[ExtractionStats]) -> dict[str, Any]:
    """Describe an extraction, ready for JSON.

    Args:
        extractor: It says which features, and where they are kept.
        all_stats: The statistics of all its runs.
    """
    spec, store = extractor.spec, extractor.store
    failures = {clip: error for stats in all_stats for clip, error in stats.failures}
    return {
        "computed": sum(stats.computed for stats in all_stats),
        "reused": sum(stats.reused for stats in all_stats),
        "failed": len(failures),
        "failures": [{"path": c.name, "error": e.reason} for c, e in failures.items()],
        "cache": str(store.root if store else None),
        "spec": spec.to_dict() | {"digest": spec.digest},
    }
