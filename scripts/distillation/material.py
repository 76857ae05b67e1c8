"""The frames that the bundled backbone learns from, without labels, and those that are held out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidfuse.data.clip import Clip
from vidfuse.data.grouping import assign_groups
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import InputError
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool

Pixels = NDArray[np.uint8]
SHORT_SIDE = 288  # pixels that frames are kept at, in memory
HELD_OUT = 10  # every tenth still image is never trained on
SPLIT_SEED = 0
LAST_TRAINED_GROUP = 16  # groups g17 to g25 of UCF101 are measured on
LAST_EARLY_GROUP = 13  # groups g14 to g16 come later, so that variants can be measured on them
FRAMES_PER_CLIP = 12


def training_frames(data: Path) -> list[Pixels]:
    """All frames to train on."""
    return [*early_frames(data), *late_frames(data)]


def early_frames(data: Path) -> list[Pixels]:
    """Still images, loose frames of videos, and frames of groups g08 to g13 of UCF101."""
    stills, _ = split_stills(still_images(data))
    return [*stills, *read_images(data / "frames"), *videos(ucf101_for_variants(data)[0])]


def late_frames(data: Path) -> list[Pixels]:
    """Frames of groups g14 to g16 of UCF101."""
    return videos(ucf101_for_variants(data)[1])


def videos(clips: Sequence[Clip]) -> list[Pixels]:
    """Frames spread over each clip."""
    return frames([clip.path for clip in clips], FRAMES_PER_CLIP)


def still_images(data: Path) -> list[Pixels]:
    """All still images, one of each ImageNet class, in the order of the classes."""
    return read_images(data / "imagenet1000")


def read_images(folder: Path) -> list[Pixels]:
    """The JPEG images of a folder, in the order of their names."""
    paths = sorted(folder.glob("*.[jJ][pP]*[gG]"))
    return [shrink(np.asarray(Image.open(path).convert("RGB"))) for path in paths]


def split_stills(pixels: list[Pixels]) -> tuple[list[Pixels], list[Pixels]]:
    """The still images to train on, and those that are held out: every tenth of them."""
    trained = [each for number, each in enumerate(pixels) if number % HELD_OUT]
    return trained, pixels[::HELD_OUT]


def ucf101(data: Path) -> tuple[list[Clip], list[Clip]]:
    """Clips of ``ucf101_12`` to train on, groups g08 to g16, and to measure on, g17 to g25."""
    numbered = ucf101_groups(data)
    return (
        [clip for group, clip in numbered if group <= LAST_TRAINED_GROUP],
        [clip for group, clip in numbered if group > LAST_TRAINED_GROUP],
    )


def ucf101_for_variants(data: Path) -> tuple[list[Clip], list[Clip]]:
    """Of the clips to train on, those of groups g08 to g13, and those of groups g14 to g16."""
    numbered = ucf101_groups(data)
    return (
        [clip for group, clip in numbered if group <= LAST_EARLY_GROUP],
        [clip for group, clip in numbered if LAST_EARLY_GROUP < group <= LAST_TRAINED_GROUP],
    )


def ucf101_groups(data: Path) -> list[tuple[int, Clip]]:
    """Labelled clips of ``ucf101_12``, each with the number of its group, in order of paths."""
    found = read_dataset(data / "ucf101_12").clips
    clips = sorted((clip for clip in found if clip.label), key=lambda clip: str(clip.path))

    def group(clip: Clip) -> int:
        match = re.search(r"_g(\d+)_c\d+", clip.path.stem)
        if match is None:
            raise ValueError(f"{clip.path}: not a name of UCF101")
        return int(match[1])

    return [(group(clip), clip) for clip in clips]


def halves(data: Path) -> tuple[list[Clip], list[Clip]]:
    """Clips of ``fight_surv`` that the first edition trained on, and to measure on; no group is on
    both sides.
    """
    clips = [clip for clip in read_dataset(data / "fight_surv").clips if clip.label is not None]
    names = sorted({str(clip.group) for clip in clips})
    counts = [Counter(str(c.label) for c in clips if c.group == name) for name in names]
    parts = dict(zip(names, assign_groups(counts, [0.5, 0.5], SPLIT_SEED), strict=True))
    return (
        [clip for clip in clips if parts[str(clip.group)] == 0],
        [clip for clip in clips if parts[str(clip.group)] == 1],
    )


def frames(paths: Sequence[Path], per_clip: int) -> list[Pixels]:
    """Frames spread over each video, in the order of the paths; unreadable videos are left out."""
    requests = [FrameRequest(str(path), "uniform", per_clip) for path in paths]
    found: dict[str, list[Pixels]] = {}
    with DecodePool("auto", None, None) as pool:
        for request, result in pool.map(requests):
            if not isinstance(result, InputError):
                found[request.path] = [shrink(image) for image in result.pixels]
    return [image for path in paths for image in found.get(str(path), [])]


def shrink(image: Pixels) -> Pixels:
    """Scale down until the short side has ``SHORT_SIDE`` pixels; smaller frames stay."""
    height, width = image.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
