"""The fastest precision on this machine whose features match fp32.

bf16 is 4 times as fast as fp32 where a processor has AMX, twice as fast with AVX512-BF16, and 8
times slower where it has neither. So a precision is tried only where the processor has instructions
for it; then its features of the user's own frames must agree with those of fp32, and it must
have been faster. The choice is remembered.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vidfuse.atomic import write_whole
from vidfuse.backbones import FP32
from vidfuse.backbones.load import Backbone
from vidfuse.errors import UnwritableError, UserError, first_sentence
from vidfuse.machine import cpu_flags

DTYPES = {FP32: torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of processors that multiply bf16
MATCH = 0.999  # least cosine at which features count as the same
MIN_SPEEDUP = 1.15  # least gain in speed for which fp32 is left
FRAMES, GPU_FRAMES = 4, 128  # for a calibration; fewer leave a GPU idle
ROUNDS = 2
TICKS = 20  # of the clock, which a measurement takes at least
Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """A precision, and why it was chosen in a few words."""

    precision: str
    reason: str


class PrecisionSelector:
    """A backbone, and the same in the other precisions that this machine may run it in.

    Args:
        backbone: In fp32.
        wanted: ``auto`` or the precision that was asked for.
        identity: Tells this network and its use from others, such as layer and weights.
        file: File that choices are remembered in; None is in the platform's folder for caches.
    """

    def __init__(
        self,
        backbone: Backbone,
        wanted: str = "auto",
        identity: Sequence[object] = (),
        file: Path | None = None,
    ) -> None:
        self.device = backbone.mean.device
        self.window = backbone.window or 1
        self.wanted = wanted
        self.identity = identity
        self.file = file
        self._networks = {FP32: backbone}
        self._checked: set[str] = {FP32}

    def network(self, precision: str) -> Backbone:
        """The backbone in a precision."""
        if precision not in self._networks:
            self._networks[precision] = self._networks[FP32].cast(DTYPES[precision])
        return self._networks[precision]

    @torch.inference_mode()
    def choose(self, pixels: Tensor, many: bool) -> PrecisionChoice:
        """The precision in which to go on.

        With few clips ``auto`` is fp32, so that a prediction is the same today and tomorrow. Where
        the device has too little memory for all of the frames, fewer are compared.

        Args:
            pixels: The first of the frames to encode, ``uint8 [N, S, S, 3]`` on the device.
            many: True where so many clips follow that a calibration pays.

        Raises:
            UserError: Features in the precision that was asked for do not agree with fp32, or
                cannot be computed here.
            torch.OutOfMemoryError: The device has too little memory for a single frame.
        """
        if self.wanted == "auto":
            if not many:
                return PrecisionChoice(FP32, "few clips")
            return self._recall() or self._remember(self._calibrate(pixels))
        if self.wanted not in self._checked:
            alike = as_memory_allows(
                lambda some: cosine(self.network(FP32)(some), self._pinned(some)),
                pixels,
                self.window,
            )
            if not alike >= MATCH:
                raise UserError(
                    f"features in {self.wanted} do not agree with those in fp32 "
                    f"(cosine {alike:.4f}, at least {MATCH} is needed)",
                    "Leave --precision at 'auto'.",
                )
            self._checked.add(self.wanted)
        return PrecisionChoice(self.wanted, "as asked for")

    def _pinned(self, pixels: Tensor) -> Tensor:
        """Features in the precision that was asked for."""
        try:
            features: Tensor = self.network(self.wanted)(pixels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # layers that torch has not written for it
            raise UserError(
                f"this backbone cannot compute in {self.wanted} here ({first_sentence(error)})",
                "Leave --precision at 'auto'.",
            ) from error
        return features

    def _calibrate(self, pixels: Tensor) -> PrecisionChoice:
        """Time the precisions that this machine supports beside fp32."""
        candidates = supported(self.device)
        if not candidates:
            return PrecisionChoice(FP32, "this processor has no instructions for another")
        count = FRAMES if self.device.type == "cpu" else GPU_FRAMES
        count = max(1, count // self.window) * self.window
        pixels = pixels.repeat(math.ceil(count / len(pixels)), 1, 1, 1)[:count]
        return as_memory_allows(lambda some: self._fastest(candidates, some), pixels, self.window)

    def _fastest(self, candidates: Sequence[str], pixels: Tensor) -> PrecisionChoice:
        """The fastest of fp32 and those candidates that agree with it on some frames."""
        expected = self.network(FP32)(pixels)
        alike = {each: cosine(expected, self.network(each)(pixels)) for each in candidates}
        fitting = [each for each in candidates if alike[each] >= MATCH]
        seconds = dict.fromkeys([FP32, *fitting], float("inf"))
        for _ in range(ROUNDS):
            for each in seconds:
                seconds[each] = min(seconds[each], self._time(each, pixels))
        best = min(seconds, key=lambda each: seconds[each] * (1 if each == FP32 else MIN_SPEEDUP))
        if best == FP32:
            tried = ", ".join(
                f"{each} is {seconds[FP32] / seconds[each]:.2f} times as fast"
                if each in seconds
                else f"{each} does not agree with it (cosine {alike[each]:.4f})"
                for each in candidates
            )
            return PrecisionChoice(FP32, f"measured: {tried}")
        gain = seconds[FP32] / seconds[best]
        return PrecisionChoice(
            best, f"measured: {gain:.2f} times as fast, cosine {alike[best]:.5f}"
        )

    def _time(self, precision: str, pixels: Tensor) -> float:
        """Seconds of a forward pass: on a CPU those of this thread, whatever else runs there."""
        network = self.network(precision)
        clock, tick = time.perf_counter, time.get_clock_info("perf_counter").resolution
        if self.device.type == "cpu":
            clock, tick = time.thread_time, time.get_clock_info("thread_time").resolution
        began, count = clock(), 0
        while not count or clock() - began < TICKS * tick:  # of 1/64 s on some systems
            network(pixels).sum().item()  # a GPU has finished when there is a number
            count += 1
        return (clock() - began) / count

    def _key(self) -> str:
        parts = [processor(self.device), torch.__version__, *self.identity]
        return " | ".join(map(str, parts))

    def _place(self) -> Path:
        if self.file is not None:
            return self.file
        from platformdirs import user_cache_path

        return user_cache_path("vidfuse", appauthor=False) / "precision.json"

    def _notes(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._place().read_text("utf-8"))
        except (OSError, ValueError):
            return {}  # none yet, or damaged: calibrate again
        return found if isinstance(found, dict) else {}

    def _recall(self) -> PrecisionChoice | None:
        try:
            choice = PrecisionChoice(**self._notes()[self._key()])
        except (KeyError, TypeError):
            return None
        return choice if choice.precision in DTYPES else None

    def _remember(self, choice: PrecisionChoice) -> PrecisionChoice:
        notes = self._notes() | {self._key(): asdict(choice)}
        # Where nothing can be kept, it is measured each time.
        with contextlib.suppress(UnwritableError):
            write_whole(self._place(), json.dumps(notes, indent=2))
        return choice


def as_memory_allows(
    measure: Callable[[Tensor], Measured], pixels: Tensor, window: int
) -> Measured:
    """Measure on frames; on half of them as long as the device has too little memory.

    Args:
        measure: What to do with them.
        pixels: Frames ``uint8 [N, S, S, 3]``.
        window: Frames that are encoded together, and are not parted.

    Raises:
        torch.OutOfMemoryError: It has too little for a single frame or window.
    """
    while True:
        try:
            return measure(pixels)
        except torch.OutOfMemoryError:
            if len(pixels) == window:
                raise
        pixels = pixels[: len(pixels) // window // 2 * window]


def supported(device: torch.device) -> list[str]:
    """Precisions that this device has instructions for."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return ["bf16", "fp16"] if major >= 8 else ["fp16"] if major >= 7 else []
    if device.type != "cpu":
        return []
    told = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    flags = cpu_flags() | {name for name, there in told.items() if there is True}
    return ["bf16"] if flags & CPU_BF16 else []


@cache
def processor(device: torch.device) -> str:
    """Name of the processor or GPU, with the instruction set that torch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    sets = "+".join(sorted(cpu_flags() & CPU_BF16))
    return f"{name} {torch.backends.cpu.get_cpu_capability()} {sets}".strip()


def cosine(expected: Tensor, features: Tensor) -> float:
    """Least cosine between the features of a frame in two precisions."""
    return torch.cosine_similarity(expected.flatten(1), features.flatten(1)).min().item()
