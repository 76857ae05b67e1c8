"""Arguments of the Python functions, checked where they are given and told in a user's words."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, TypedDict, TypeVar

from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UnknownNameError, UserError

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A name of one file or folder."""

Item = TypeVar("Item")
TextOrPath = str | os.PathLike[str]


class MachineSettings(TypedDict, total=False):
    """The fields of ``MachineConfig`` as keyword arguments; so for the others below."""

    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    workers: int | None
    time_limit: float | None
    memory: str | None
    cache: TextOrPath | None


class InferenceSettings(MachineSettings, total=False):
    """The fields of ``InferenceConfig``."""

    views: int
    use_cache: bool


class TimelineSettings(InferenceSettings, total=False):
    """The fields of ``TimelineConfig``."""

    window: float | None
    step: float | None
    smooth: float
    min_duration: float
    segment_cost: float | None
    threshold: float
    low_threshold: float | None
    background: str | None


class CutSettings(TypedDict, total=False):
    """The fields of ``CutConfig``."""

    exact: bool
    crf: int
    audio: bool
    labels: str | None
    min_duration: float
    pad: float
    background: str | None
    max_duration: float
    fps: float | None
    workers: int | None
    time_limit: float | None
    memory: str | None


class FeatureSettings(MachineSettings, total=False):
    """The fields of ``FeatureConfig``."""

    backbone: str
    weights: TextOrPath | None
    layer: str | None
    grid: str | int | None
    frames: int
    cache_frames: int | None
    sampling: str | None
    size: int | None
    crop: Literal["center", "pad", "squash"]
    fps: float
    decoder: str
    max_failed: float


class AdaptSettings(TypedDict, total=False):
    """The fields of ``AdaptConfig``."""

    device: str
    precision: Literal["auto", "fp32", "bf16"]
    workers: int | None
    time_limit: float | None
    memory: str | None
    cache: TextOrPath | None
    backbone: Literal["thin_resnet", "thin_efficientnet"]
    weights: TextOrPath | None
    teacher: str
    teacher_weights: TextOrPath | None
    frames: int
    fps: float
    crops: int
    epochs: int
    budget: str | None
    lr: float
    seed: int
    decoder: str
    max_failed: float


class _FitSettings(FeatureSettings, total=False):
    """Those that ``TrainConfig`` and ``CompareConfig`` share."""

    layout: str | None
    split: str
    out: TextOrPath | None
    epochs: int
    batch_size: int
    weight_decay: float
    frame_dropout: float
    mirror: bool
    views: int
    label_smoothing: float
    refit: bool
    warmup_epochs: int
    clip_norm: float
    seed: int


class TrainSettings(_FitSettings, total=False):
    """The fields of ``TrainConfig``."""

    head: str
    head_options: dict[str, Any]
    lr: float | None
    dropout: float
    patience: int
    class_weights: Literal["none", "balanced", "sampler"] | None
    timeline: Literal["windowed", "dense"] | None
    window: float | None
    rate: float | None
    background: str


class CompareSettings(_FitSettings, total=False):
    """The fields of ``CompareConfig``, but for ``heads`` and ``backbones``."""

    class_weights: Literal["none", "balanced", "sampler"]
    seeds: int
    folds: int
    jobs: int | None
    budget: str | None
    orders: bool
    lrs: str
    dropouts: str


KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
}
Subset = Literal["auto", "all", "train", "val", "test"]
SUBSETS = ("auto", "all", "train", "val", "test")
PATHS = (str, bytes, os.PathLike)
PATH = "a path (text, bytes or os.PathLike)"


def expect(
    name: str,
    value: object,
    kind: type,
    *,
    optional: bool = False,
    least: float | None = None,
    among: tuple[str, ...] = (),
) -> None:
    """See that an argument is of a kind.

    Args:
        name: The argument's.
        value: What was given.
        kind: What is taken; a whole number is also a number, True and False are not.
        optional: Whether None is taken too.
        least: The least number that is taken.
        among: All that is taken, where it is not too much to name.

    Raises:
        UserError: It is not.
    """
    if value is None and optional:
        return
    kinds = (int, float) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool) is not (kind is bool):
        raise _refused(name, value, KINDS.get(kind, kind.__name__))
    if least is not None and not value >= least:  # type: ignore[operator]  # nor is NaN
        raise _refused(name, value, f"{KINDS[kind]} of at least {least}")
    if among and value not in among:
        raise UnknownNameError(name, str(value), among)


def as_path(name: str, value: object) -> Path:
    """One path.

    Raises:
        UserError: It is none, or an empty one.
    """
    if not isinstance(value, PATHS):
        raise _refused(name, value, PATH)
    text = os.fsdecode(value)
    if not text:
        raise UserError(f"{name}: an empty path", "Check for an unset variable.")
    return Path(text)


def as_paths(name: str, value: object) -> list[Path]:
    """One path, or several: at least one.

    Raises:
        UserError: There is something else among them, or nothing.
    """
    found = [as_path(label, item) for label, item in _items(name, value, PATH)]
    if not found:
        raise UserError(f"{name}: no path at all", f"Give {PATH}, or several.")
    return found


def as_inputs(name: str, value: object) -> Iterable[Path | InputError | None]:
    """Paths as `predict` takes them: one, several, or such as come over time, then also None.

    An empty path is an input that fails, as on the command line.

    Raises:
        UserError: There is something else; of what comes over time, when it comes.
    """

    def read(label: str, item: object) -> Path | InputError | None:
        if item is None or isinstance(item, InputError):
            return item
        if isinstance(item, (str, bytes)) and not item:
            return InputError("''", "an empty path", "Check for an unset variable.")
        return as_path(label, item)

    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Collection)):
        return _as_they_come(read(*pair) for pair in _items(name, value, PATH))
    return [read(*pair) for pair in _items(name, value, PATH)]


def _as_they_come(items: Iterator[Item]) -> Iterator[Item | None]:
    """The items; those before one that is refused are answered before that is said."""
    try:
        yield from items
    except UserError:
        yield None
        raise


def as_clips(name: str, value: object) -> list[Clip | InputError]:
    """Clips, or paths of videos.

    Raises:
        UserError: There is something else among them.
    """
    return [
        item if isinstance(item, (Clip, InputError)) else Clip(as_path(label, item))
        for label, item in _items(name, value, f"{PATH} or a Clip")
    ]


def as_names(name: str, value: object) -> list[str]:
    """Names: text with commas between them, or several texts; at least one.

    Raises:
        UserError: There is something else among them, or nothing.
    """
    if isinstance(value, str):
        found = [part.strip() for part in value.split(",") if part.strip()]
    else:
        found = []
        for label, item in _items(name, value, "text"):
            expect(label, item, str)
            found.append(str(item))
    if not found:
        raise UserError(f"{name}: no name at all", "Example: lstm, or lstm,mean")
    return found


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a TOML file could hold them, which has no paths."""
    return {
        name: os.fsdecode(value) if isinstance(value, os.PathLike) else value
        for name, value in settings.items()
    }


def _items(name: str, value: object, taken: str) -> Iterator[tuple[str, object]]:
    """Each of several things, or one alone, with what to call it where it is refused."""
    if isinstance(value, PATHS):
        return iter([(name, value)])
    # The lines of an open file have their ends, and the keys of a table mean whatever they mean.
    if isinstance(value, Mapping) or hasattr(value, "read") or not isinstance(value, Iterable):
        raise _refused(name, value, f"{taken}, or several")
    return ((f"{name}[{number}]", item) for number, item in enumerate(value))


def _refused(name: str, value: object, taken: str) -> UserError:
    return UserError(f"{name}: {shortened(value)} is not {taken}")
