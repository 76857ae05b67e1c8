"""From settings to an extractor: which network, which features, where they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vidfuse.backbones import BackboneChoice, choose
from vidfuse.backbones.imports import find_factory, reinstall
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError, first_sentence
from vidfuse.features.config import FeatureConfig
from vidfuse.features.extract import Extractor, Tally
from vidfuse.features.identity import ContentIndex
from vidfuse.features.spec import FeatureSpec, Grid
from vidfuse.features.store import Store
from vidfuse.progress import Progress
from vidfuse.timing import Timings
from vidfuse.video.decoder import policy

if TYPE_CHECKING:
    from vidfuse.backbones.load import Backbone


def resolve_device(name: str, progress: Progress | None = None) -> str:
    """The device that ``--device`` means; ``auto`` is the first GPU that works, else the CPU.

    Args:
        name: As on the command line.
        progress: Receives a warning of a GPU that does not work.

    Raises:
        UserError: There is no such device here.
    """
    import torch

    if name == "auto":
        gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        for gpu in (gpu for gpu, there in gpus.items() if there):
            try:  # torch may have no kernels for an older one
                return resolve_device(gpu)
            except UserError as error:
                if progress is not None:
                    progress.warn(f"{error.message}: computing on the CPU")
        return "cpu"
    try:
        torch.ones(1, device=name).add(1).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        message = f"device '{name}' cannot be used here ({first_sentence(error)})"
        raise UserError(message, "Use --device auto or --device cpu.") from error
    return name


def finest(grids: Iterable[Grid]) -> list[Grid]:
    """The fewest grids that all the given ones can be derived from."""
    wanted = set(grids)
    if "native" in wanted:
        return ["native"]
    sides = [grid for grid in wanted if grid != "native"]
    return sorted(g for g in sides if not any(other > g and other % g == 0 for other in sides))


class Setup:
    """What an extraction needs, made from settings once.

    Args:
        config: The settings.
        timings: Hears what it costs.
        progress: Receives progress updates.

    Raises:
        UserError: The backbone, its weights or the cache cannot be used.
    """

    def __init__(self, config: FeatureConfig, timings: Timings, progress: Progress) -> None:
        self.config = config
        self.timings = timings
        self.progress = progress
        self.store = Store(config.cache_folder)
        self.index = ContentIndex(config.cache_folder)
        self.choice = choose(config.backbone, config.weights, config.layer)

    def spec(self, grid: Grid) -> FeatureSpec:
        """The features that these settings mean, on one grid."""
        config = self.config
        rule = config.rule
        return FeatureSpec(
            decode=policy(config.decoder)[0],
            # Training jitters among cached frames; those that are cached are uniform.
            sampling="uniform" if rule.mode == "segment" else str(rule),
            frames=config.cached_frames,
            size=config.size or self.choice.info.size,
            crop=config.crop,
            backbone=self.choice.name,
            layer=self.choice.layer,
            weights=self._weights,
            grid=grid,
            fps=config.fps,
        )

    @cached_property
    def device(self) -> str:
        """Where it computes."""
        return resolve_device(self.config.device, self.progress)

    def extractor(self, spec: FeatureSpec) -> Extractor:
        """An extractor of these features."""
        return Extractor(
            spec=spec,
            backbone=self._build,
            decoder=self.config.decoder,
            store=self.store,
            index=self.index,
            workers=self.config.workers,
            time_limit=self.config.time_limit,
            memory=self.config.memory_bytes,
            precision=self.config.precision,
            progress=self.progress,
            timings=self.timings,
            for_all=self.config.grid is None,
        )

    @cached_property
    def _weights(self) -> str:
        with self.timings.measure("cache"):
            return weights_digest(self.choice, self.index, self.progress)

    def _build(self) -> Backbone:
        with self.timings.measure("imports"):
            find_factory(self.choice.info.factory)  # half of the time that a first run waits
            from vidfuse.backbones.load import load_backbone

        with self.timings.measure("model"):
            backbone = load_backbone(self.choice, device=self.device)
            self._check_grid(backbone)
        return backbone

    def _check_grid(self, backbone: Backbone) -> None:
        """Refuse a grid of more cells than the map has: they would only be copies.

        Raises:
            UserError: ``--grid`` asks for one.
        """
        import torch

        grid = self.config.chosen_grid
        if grid in (None, 1, "native"):
            return
        size = self.config.size or self.choice.info.size
        blank = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=backbone.mean.device)
        with torch.inference_mode():
            side = min(backbone(blank).shape[-2:])
        if int(grid) > side:
            raise UserError(
                f"grid {grid} has more cells than the {side}x{side} map of {self.choice.name} up "
                f"to {self.choice.layer} from pictures of {size} pixels",
                f"Choose --grid {side} or less, --grid native, or a larger --size.",
            )


def weights_digest(choice: BackboneChoice, index: ContentIndex, progress: Progress) -> str:
    """sha256 of a backbone's weights, which are fetched first if they are published ones.

    Raises:
        UserError: They cannot be fetched or read.
    """
    if choice.weights is None:
        return "random"
    if choice.published and not choice.weights.exists():
        find_factory(choice.info.factory)  # a network that cannot be built needs no weights
        from vidfuse.backbones.load import fetch

        fetch(choice, progress)
    try:
        digest = index.hash(choice.weights)
    except InputError as error:
        hint = "Check --weights." if choice.info.sha256 is None else reinstall()
        raise UserError(error.message, hint) from error
    if choice.published and choice.info.sha256 not in (None, digest):
        raise UserError(f"{choice.weights}: the bundled weights are damaged", reinstall())
    return digest


def failure_records(failures: Iterable[tuple[Clip, InputError]]) -> list[dict[str, str]]:
    """Failures as records ready for JSON."""
    return [{"path": clip.name, "error": error.reason} for clip, error in failures]


def one_line(error: InputError) -> str:
    """An error as a warning among others."""
    hint = (error.hint or "").replace("\n", " ")
    return ". ".join(filter(None, (error.message, hint)))


def tell_warnings(warned: Sequence[tuple[Clip, list[str]]], progress: Progress) -> None:
    """Say how many clips were read with warnings, and of one of them what.

    Args:
        warned: Clips with what was warned of, which may be nothing.
        progress: Receives the warnings.
    """
    found = [(clip, lines[0]) for clip, lines in warned if lines]
    if found:
        clip, line = found[0]
        progress.warn(f"{len(found)} clips were read with warnings, such as {clip.name}: {line}")


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


def summary(spec: FeatureSpec, store: Store, tallies: list[Tally]) -> dict[str, Any]:
    """What an extraction did, ready for JSON."""
    failures = list({clip: error for tally in tallies for clip, error in tally.failures}.items())
    return {
        "computed": sum(tally.computed for tally in tallies),
        "reused": sum(tally.reused for tally in tallies),
        "failed": len(failures),
        "failures": failure_records(failures),
        "cache": str(store.root),
        "spec": spec.to_dict() | {"digest": spec.digest},
    }
