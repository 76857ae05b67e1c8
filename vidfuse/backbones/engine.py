"""An engine runs a backbone: frames go in and features come out, both as numpy arrays.

This one is PyTorch. On a CPU every core runs batches of its own with one thread, and does not wait
for other cores at each layer. So a core that a decode process uses holds up one batch and not all
of them: cores go to whichever side has work, without a fixed share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidfuse.backbones import FP32, Grid
from vidfuse.backbones.grid import pool_maps
from vidfuse.backbones.load import Backbone
from vidfuse.backbones.precision import PrecisionChoice, PrecisionSelector
from vidfuse.errors import UserError
from vidfuse.machine import cores

# Streams hold each other up less often with larger batches, and caches hold no larger ones: with
# ResNet-50, 48 are slower than 16.
CPU_BATCH, GPU_BATCH = 32, 256
GPU_STREAMS = 2  # one batch is copied while the other is computed
Pixels = NDArray[np.uint8]
Features = NDArray[np.float16]


class TorchEngine:
    """Runs a backbone in PyTorch.

    Args:
        backbone: In fp32, where it shall run.
        precision: ``auto`` or the precision that was asked for.
        identity: Tells this network and its use from others, such as layer and weights.

    Attributes:
        device: Where it runs.
        window: Frames that the backbone sees together.
        batch: Frames in a forward pass at most.
        streams: Forward passes side by side, each in a thread of its own.
    """

    def __init__(
        self, backbone: Backbone, precision: str = "auto", identity: Sequence[object] = ()
    ) -> None:
        self.backbone = backbone
        self.precision = precision
        self.identity = identity
        self.device = backbone.mean.device
        self.window = backbone.window or 1
        self.batch = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        self.streams = GPU_STREAMS if self.device.type == "cuda" else 1
        if self.device.type == "cpu":
            # A user who sets OMP_NUM_THREADS wants no more cores to be used than that.
            self.streams = max(1, min(torch.get_num_threads(), cores()))

    @cached_property
    def selector(self) -> PrecisionSelector:
        """Chooses the precision where more than fp32 comes into question."""
        return PrecisionSelector(self.backbone, self.precision, self.identity)

    def begin_thread(self) -> None:
        """Prepare a thread: on a CPU it computes alone, on a GPU beside others."""
        if self.device.type == "cpu":
            torch.get_num_threads()  # a thread that has not asked takes over what others set later
            torch.set_num_threads(1)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream(self.device))

    def count_threads(self) -> int:
        """Number of threads that torch computes with in this one."""
        return torch.get_num_threads()

    def set_threads(self, count: int) -> None:
        """Have torch compute with so many threads in this one and in those that begin later."""
        torch.set_num_threads(count)

    def choose(self, pixels: Pixels, many: bool) -> PrecisionChoice:
        """The precision in which to go on.

        Args:
            pixels: The first of the frames to encode, ``uint8 [N, S, S, 3]``.
            many: Whether so many follow that a calibration pays. With few, ``auto`` is fp32, so
                that a prediction is the same today and tomorrow.

        Raises:
            UserError: Features in the precision that was asked for do not agree with fp32, or the
                device has too little memory for a single frame.
        """
        if self.precision == "auto" and not many:
            return PrecisionChoice(FP32, "few clips")
        try:
            choice = self.selector.choose(self._on_device([pixels]), many)
        except torch.OutOfMemoryError as error:
            raise self._too_small() from error
        self.selector.network(choice.precision)  # once, before the streams need it
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # they do not wait for each other's work
        return choice

    def features(
        self, parts: Sequence[Pixels], precision: str, grids: Sequence[Grid]
    ) -> list[Features]:
        """Features ``float16 [N, D, g, g]`` of frames on each grid; of finer ones than the
        backbone's map has cells, only the first.

        In halves where the device has too little memory. What does not fit float16 is infinite; in
        a narrow precision that may come from within the network, so then it is computed in fp32.

        Args:
            parts: Frames ``uint8 [n, S, S, 3]``; of a clip encoder whole windows, each of which
                gives some of the N features.
            precision: In which to compute.
            grids: Sides g of the maps that are wanted.

        Raises:
            UserError: The device has too little memory for a single frame or window.
        """
        try:
            found = self._pooled(parts, precision, grids)
        except torch.OutOfMemoryError as error:
            pixels = np.concatenate(parts)
            windows = len(pixels) // self.window
            if windows == 1:
                raise self._too_small() from error
            halves = np.split(pixels, [windows // 2 * self.window])
        else:
            if precision != FP32 and not all(np.isfinite(each).all() for each in found):
                return self.features(parts, FP32, grids)
            return found
        both = [self.features([half], precision, grids) for half in halves]
        return [np.concatenate(pair) for pair in zip(*both, strict=True)]

    def _too_small(self) -> UserError:
        return UserError(
            f"{self.device} has too little memory for this backbone",
            "Choose a smaller --size or --backbone, or --device cpu.",
        )

    @torch.inference_mode()
    def _pooled(
        self, parts: Sequence[Pixels], precision: str, grids: Sequence[Grid]
    ) -> list[Features]:
        """The same in one forward pass, whatever comes of it."""
        network = self.backbone if precision == FP32 else self.selector.network(precision)
        maps = network(self._on_device(parts))
        cells = min(maps.shape[-2:])
        wanted = [g for i, g in enumerate(grids) if not i or g == "native" or g <= cells]
        return [pool_maps(maps, grid).half().cpu().numpy() for grid in wanted]

    def _on_device(self, parts: Sequence[Pixels]) -> Tensor:
        """Frames side by side where they are computed; a GPU fetches them by itself."""
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        pinned = self.device.type == "cuda"
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        np.concatenate(parts, out=pixels.numpy())
        return pixels.to(self.device, non_blocking=pinned)
