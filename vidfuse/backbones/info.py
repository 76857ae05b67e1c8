"""Encoders as data: what one is, what its input must look like, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from vidfuse.video import Interpolation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Grid = int | Literal["native"]
"""Cells g a side of the map that is kept of each frame; ``native`` keeps it as it is."""
Kind = Literal["image", "clip"]
"""An image encoder sees one frame, a clip encoder a window of frames."""
Triple = tuple[float, float, float]

INTERPOLATIONS = get_args(Interpolation)
PREPROCESSING = ("interpolation", "crop_fraction", "mean", "std", "window", "steps", "rate")
"""Fields that a `FeatureSpec` has too: the encoder's input, beside its size."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A published file of weights.

    Attributes:
        file: Its name: within a package, its path there.
        source: ``bundled`` with vidfuse, in a Python ``package`` of its own, or a ``download`` into
            the folder in which torch keeps such files.
        sha256: Of the file, which is checked; "" where it is not known. Of a download whose name
            ends as in ``resnet18-f37072fd.pth`` its beginning is checked even so.
        url: Where it is downloaded from.
        package: The package that brings it, as a package index names it.
        module: The module of that package.
        megabytes: About its size.
    """

    file: str
    source: Literal["bundled", "package", "download"] = "download"
    sha256: str = ""
    url: str = ""
    package: str = ""
    module: str = ""
    megabytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """An encoder: one line of a table.

    Everything here that changes features is part of the `FeatureSpec`, and so of the cache's key.

    Attributes:
        factory: ``module:function`` that builds the network without weights, called with
            ``weights=None``.
        weights: Its published weights; None where there are none, so that users bring their own.
        layer: Layer that features are taken from by default: its last map of positions.
        kind: ``image`` or ``clip``.
        size: Side of the square frames it is given, in pixels.
        fixed_size: True where it takes frames of no other size.
        interpolation: How frames are resized.
        crop_fraction: Share of a frame's short side that the square in its middle covers.
        mean: Per-channel mean (RGB, frames scaled to 0..1) that its input is normalised with.
        std: Likewise the standard deviation.
        channels: Channels D of its features.
        side: Side of their map.
        window: Frames that are encoded together; 1 for an image encoder.
        steps: Steps in time that a window gives: ``[window, S, S, 3]`` → ``[steps, D, g, g]``.
        rate: Frames per second within a window; None for an image encoder.
        parameters: How many numbers were learned, of the whole published network.
        gmacs: 10⁹ multiply-adds of a frame or window through the whole published network.
        licence: Under which the weights may be used.
        citation: The publication to cite.
        translate: ``module:function`` that renames the tensors of the published file to the
            network's; "" where they are the same.
    """

    factory: str
    weights: Weights | None = None
    layer: str
    kind: Kind = "image"
    size: int = 224
    fixed_size: bool = False
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    channels: int = 0
    side: int = 0
    window: int = 1
    steps: int = 1
    rate: float | None = None
    parameters: int = 0
    gmacs: float = 0.0
    licence: str = ""
    citation: str = ""
    translate: str = ""

    def check(self) -> None:
        """See that these fit each other; of our own, a test does.

        Raises:
            ValueError: They do not; says which and why.
        """
        clip = self.kind == "clip"
        numbers = {each: getattr(self, each) for each in ("mean", "std")}
        finite = {
            each: len(values) == 3 and all(isfinite(value) for value in values)
            for each, values in numbers.items()
        }
        window, rate = self.window, self.rate
        rules = {
            "kind": (clip or self.kind == "image", "is 'image' or 'clip'"),
            "factory": (self.factory.count(":") == 1, "is 'module:function'"),
            "size": (self.size >= 1, "is 1 or more"),
            "interpolation": (
                self.interpolation in INTERPOLATIONS,
                f"is {' or '.join(map(repr, INTERPOLATIONS))}",
            ),
            "crop_fraction": (0 < self.crop_fraction <= 1, "is above 0 and 1 at most"),
            "mean": (finite["mean"], "is three numbers"),
            "std": (finite["std"] and min(self.std) > 0, "is three numbers above 0"),
            "channels": (self.channels >= 0, "is 0, where it is not known, or more"),
            "window": (
                window > 1 if clip else window == 1,
                "of a clip encoder is 2 or more, of an image encoder 1",
            ),
            "steps": (self.steps >= 1 and window % self.steps == 0, "divides window"),
            "rate": (
                (rate is not None and rate > 0) if clip else rate is None,
                "of a clip encoder is above 0, of an image encoder None",
            ),
        }
        wrong = [
            f"{name}={getattr(self, name)!r} ({name} {rule})"
            for name, (right, rule) in rules.items()
            if not right
        ]
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def bundled(self) -> bool:
        """True where the weights come with vidfuse."""
        return self.weights is not None and self.weights.source == "bundled"
