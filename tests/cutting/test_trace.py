"""Clips that were cut are found in their originals."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

import vidfuse
from vidfuse.cutting.places import best_places, offsets_by_packets, refine
from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UserError
from vidfuse.results import TraceRecord
from vidfuse.video.packets import PacketList

RATE = 10


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two videos in which no moment is like another, with a key frame every two seconds."""
    import av

    folder = tmp_path_factory.mktemp("originals")
    paths = [folder / "one.mp4", folder / "two.mp4"]
    for seed, path in enumerate(paths):
        rng = np.random.default_rng(seed)
        # Spots that move and change, each in its own rhythm.
        rhythms = rng.uniform(0.3, 2.0, (6, 3))
        with av.open(str(path), "w") as container:
            options = {"g": "20", "bf": "2", "preset": "ultrafast", "sc_threshold": "0"}
            stream = container.add_stream("libx264", rate=RATE, options=options)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for number in range(14 * RATE):
                image = np.full((64, 96, 3), 90, np.uint8)
                for n, (x, y, light) in enumerate(rhythms):
                    left = int(40 + 38 * np.sin(x * number / RATE + n))
                    top = int(24 + 22 * np.cos(y * number / RATE + 2 * n))
                    image[top : top + 14, left : left + 14] = int(
                        150 + 100 * np.sin(light * number / RATE * 2 + n)
                    )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return paths


def cut(originals: list[Path], out: Path, rows: list[tuple[Any, ...]], **settings: Any) -> None:
    labels = out.with_suffix(".csv")
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "start", "end", "label"), *rows])
    assert vidfuse.cut(labels, originals, out=out, workers=1, **settings).failed == 0


def found_in(records: list[TraceRecord]) -> dict[str, tuple[str | None, str, float, float]]:
    return {
        Path(each.path).stem: (
            each.found,
            Path(each.source or "").name,
            each.start or 0.0,
            each.end or 0.0,
        )
        for each in records
    }


ROWS = [("one.mp4", 3.1, 5.4, "run"), ("two.mp4", 3.1, 5.4, "run"), ("two.mp4", 0, 2, "jump")]


def test_copies_are_proven(originals: list[Path], tmp_path: Path) -> None:
    cut(originals, tmp_path / "clips", ROWS)
    (tmp_path / "clips" / "manifest.csv").unlink()  # which would tell
    out = tmp_path / "manifest.csv"
    result = vidfuse.trace_clips(tmp_path / "clips", originals, out=out, workers=1)
    assert (result.proven, result.likely, result.missing, result.failures) == (3, 0, 0, [])
    found = found_in(result.clips)
    assert found["one_3.100-5.400"][:2] == ("proven", "one.mp4")
    assert found["two_3.100-5.400"][:2] == ("proven", "two.mp4")
    assert found["two_0.000-2.000"][:3] == ("proven", "two.mp4", 0)
    for name in ("one_3.100-5.400", "two_3.100-5.400"):
        assert found[name][2] == pytest.approx(3.1, abs=1e-6)
        # Without the manifest nobody knows that frames stored before the end are not meant.
        assert 5.4 - 1e-6 <= found[name][3] <= 5.6
    data = read_dataset(out)
    assert data.problems == []
    assert sorted((clip.path.name, clip.label, clip.group) for clip in data.clips) == [
        ("one.mp4", "run", "one"),
        ("two.mp4", "jump", "two"),
        ("two.mp4", "run", "two"),
    ]
    with pytest.raises(UserError, match="there already"):
        vidfuse.trace_clips(tmp_path / "clips", originals, out=out, workers=1)


def test_clips_of_other_programs_and_sizes_are_likely(
    originals: list[Path], tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    for label in ("run", "jump", "other"):
        (clips / label).mkdir(parents=True)
    small = ("-vf", "scale=64:48,eq=brightness=0.1", "-crf", 30, "-preset", "ultrafast")
    ffmpeg("-ss", 6.3, "-t", 2.2, "-i", originals[0], *small, clips / "run" / "a.mp4")
    ffmpeg("-ss", 9.4, "-t", 1.5, "-i", originals[1], "-r", 25, *small, clips / "jump" / "b.mkv")
    noise = "mandelbrot=size=96x64:rate=10:start_scale=2"
    ffmpeg("-f", "lavfi", "-t", 2, "-i", noise, clips / "other" / "c.mp4")
    (clips / "other" / "d.mp4").write_bytes(b"no video")
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"none either")
    result = vidfuse.trace_clips(clips, [*originals, damaged], workers=1)
    assert (result.proven, result.likely, result.missing) == (0, 2, 2)
    assert [Path(each.path).name for each in result.failures] == ["damaged.mp4"]
    found = found_in(result.clips)
    frame = 1 / RATE + 1e-6
    assert found["a"][:2] == ("likely", "one.mp4")
    assert found["a"][2:] == pytest.approx((6.3, 8.5), abs=frame)
    assert found["b"][:2] == ("likely", "two.mp4")
    assert found["b"][2:] == pytest.approx((9.4, 10.9), abs=frame)
    errors = {Path(each.path).stem: each.error or "" for each in result.clips}
    assert "nothing in the originals looks like it" in errors["c"]
    assert "not a video that can be opened" in errors["d"]
    likely = next(each for each in result.clips if each.ok)
    assert likely.score is not None
    assert likely.runner_up is not None
    assert likely.score > 0.8 > likely.runner_up


def test_what_is_in_two_places_is_not_guessed(originals: list[Path], tmp_path: Path) -> None:
    twice = tmp_path / "twice.mp4"
    listed = tmp_path / "list.txt"
    listed.write_text(f"file '{originals[0]}'\n" * 2)
    ffmpeg("-f", "concat", "-safe", 0, "-i", listed, "-c", "copy", twice)
    cut([twice], tmp_path / "copies", [("twice.mp4", 4, 6, "run")])
    cut([twice], tmp_path / "exact", [("twice.mp4", 4, 6, "run")], exact=True)
    for folder in ("copies", "exact"):
        result = vidfuse.trace_clips(tmp_path / folder, twice, workers=1)
        assert result.missing == 1
        assert "places" in str(result.clips[0].error)
        assert "at 4.00 s" in str(result.clips[0].error) or folder == "copies"


# The search itself


def packets(times: list[float], contents: list[int]) -> PacketList:
    return PacketList(np.array(times, np.float64), np.array(contents, np.uint64))


def test_packets_are_found_by_one_offset() -> None:
    original = packets([0, 1, 2, 3, 4, 5], [7, 8, 9, 7, 8, 6])
    assert offsets_by_packets(packets([0, 1], [8, 9]), original) == [1]
    assert offsets_by_packets(packets([-1, 0], [8, 9]), original) == [2]  # an edit list
    assert offsets_by_packets(packets([0, 1], [7, 8]), original) == [0, 3]
    assert offsets_by_packets(packets([0, 2], [8, 9]), original) == []  # each is there, but apart
    assert offsets_by_packets(packets([0, 1], [8, 5]), original) == []
    assert offsets_by_packets(packets([0, 1.0005], [8, 6]), original) == pytest.approx(
        [4], abs=0.001
    )


def test_frames_are_found_in_spite_of_gaps_and_light() -> None:
    rng = np.random.default_rng(0)
    still = rng.normal(0, 50, 64).astype(np.float32)
    original = (still + rng.normal(0, 3, (100, 64))).astype(np.float32)
    mean = original.mean(axis=0)
    clip = mean + 0.7 * (original[40:50] - mean)
    original[60:63] = np.nan
    first, second = best_places(clip, original, mean, 5.0, 2)
    assert first.offset == 8
    assert first.score == pytest.approx(1, abs=1e-4)
    assert second.score < 0.5
    assert abs(second.offset - first.offset) > 1
    assert best_places(np.tile(mean, (5, 1)), original, mean, 5.0, 2) == []  # nothing moves
    assert best_places(original[:50], original[:20], mean, 5.0, 2) == []  # longer than it


def test_places_are_refined_to_the_frame() -> None:
    rng = np.random.default_rng(0)
    original = rng.normal(0, 9, (50, 64)).astype(np.float32)
    times = 3 + np.arange(50) / 25
    mean = np.zeros(64, np.float32)
    clip_times = np.round(np.arange(10) / 12.5, 3)  # every other frame, times in milliseconds
    place = refine(original[17:37:2], clip_times, original, times, mean, 3.6, 0.3)
    assert place.offset == pytest.approx(3 + 17 / 25)
    assert place.score == pytest.approx(1)
