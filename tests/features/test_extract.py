"""The pipeline, on real decode processes and a real network with random weights."""

from __future__ import annotations

import errno
import os
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import SPEC, TOLERANCE, close, entries, extractor, network, on_grid
from heard import Heard
from torch import Tensor

from vidfuse.backbones import choose
from vidfuse.backbones.load import Backbone, load_backbone
from vidfuse.data import content as stamp
from vidfuse.data.clip import Clip
from vidfuse.data.content import content_hash
from vidfuse.errors import InputError, UserError
from vidfuse.features import extract as extract_module
from vidfuse.features.cache import Entry, Store
from vidfuse.features.encode import Encoding, Job
from vidfuse.features.extract import Extractor
from vidfuse.video.decoder import read_frames
from vidfuse.video.frames import FrameRequest
from vidfuse.video.pool import DecodePool


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def clips(make_clip: Any) -> list[Clip]:
    """Clips of 1 to 13 frames, so that no batch ends where a clip does."""
    return [
        Clip(make_clip(f"{seed}.mkv", seed=seed, frames=frames))
        for seed, frames in enumerate((12, 1, 5, 2, 13, 3))
    ]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the clips that were decoded."""
    names: list[str] = []
    original = DecodePool.submit

    def hook(pool: DecodePool, request: FrameRequest) -> Any:
        names.append(os.path.basename(request.path))
        return original(pool, request)

    monkeypatch.setattr(DecodePool, "submit", hook)
    return names


def forward_by_hand(clip: Clip) -> np.ndarray[Any, Any]:
    """Features of one clip by the shortest way there is."""
    frames = read_frames(
        FrameRequest(str(clip.path), "uniform", SPEC.frames, size=SPEC.size), "pyav"
    )
    with torch.inference_mode():
        maps = network("layer1")(torch.from_numpy(frames.pixels.copy()))
    return torch.nn.functional.adaptive_avg_pool2d(maps, SPEC.grid).numpy()


def near(entry: Entry, clip: Clip) -> bool:
    """Whether features are those of the clip alone."""
    return np.allclose(entry.features.astype(np.float32), forward_by_hand(clip), **TOLERANCE)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_batches_across_clips_give_what_each_clip_gives_alone(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("vidfuse.backbones.engine.CPU_BATCH", batch)
    together = entries(extractor(None), clips)
    assert [len(together[clip].features) for clip in clips] == [4, 1, 4, 2, 4, 3]
    for clip in clips:
        expected = forward_by_hand(clip)
        assert together[clip].features.dtype == np.float16
        assert np.allclose(together[clip].features.astype(np.float32), expected, **TOLERANCE)


def test_streams_and_workers_change_nothing(
    clips: list[Clip], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidfuse.backbones.engine.CPU_BATCH", 3)
    monkeypatch.setattr("vidfuse.backbones.engine.cores", lambda: 3)
    torch.set_num_threads(3)
    run = extractor(cache, workers=3)
    assert run.encoder.engine.streams == 3
    together = entries(run, clips)
    assert torch.get_num_threads() == 3
    for clip in clips:
        got = together[clip].features.astype(np.float32)
        assert np.allclose(got, forward_by_hand(clip), **TOLERANCE)
        assert together[clip].info.mode == "fp32 channels_last"


def test_few_pictures_are_divided_among_the_streams(
    make_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidfuse.backbones.engine.cores", lambda: 3)
    torch.set_num_threads(3)
    run = extractor(None)
    sizes = []
    network = run.encoder.engine.backbone
    hook = network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    try:
        entries(run, [Clip(make_clip("a.mkv"))])
    finally:
        hook.remove()  # the network is that of other tests, too
    assert sorted(sizes) == [2, 2]


def test_a_large_extraction_takes_the_mode_that_pays_and_shares_its_entries(
    clips: list[Clip], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_module, "LARGE", 4)
    monkeypatch.setattr("vidfuse.backbones.precision.supported", lambda device: ["bf16"])
    seconds = {"fp32": 2.0, "bf16": 1.0}
    monkeypatch.setattr(
        "vidfuse.backbones.precision.PrecisionSelector._time",
        lambda modes, name, pixels: seconds[name],
    )
    many = entries(extractor(cache), clips[:5])
    assert {entry.info.mode for entry in many.values()} == {"bf16 channels_last"}
    rest = extractor(cache)
    few = entries(rest, clips)
    assert rest.stats.reused == 5
    assert few[clips[5]].info.mode == "fp32 channels_last"
    for clip in clips[:5]:
        one, other = few[clip].features.astype(np.float32).ravel(), forward_by_hand(clip).ravel()
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999


def test_decode_processes_are_started_as_they_are_needed(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_module, "LARGE", 4)
    monkeypatch.setattr("vidfuse.video.pool.cores", lambda: 3)
    active: dict[bool, list[int]] = {True: [], False: []}
    grow = DecodePool.grow
    for idle, seen in active.items():

        def note(pool: DecodePool, wanted: int, seen: list[int] = seen) -> None:
            grow(pool, wanted)
            seen.append(pool.active)

        def always(_encoding: Encoding, idle: bool = idle) -> bool:
            return idle

        monkeypatch.setattr(DecodePool, "grow", note)
        monkeypatch.setattr(Encoding, "idle", property(always))
        entries(extractor(None, workers=None, precision="fp32"), clips)
    assert active == {True: [1, 2, 3], False: [1]}


def test_order_does_not_matter(clips: list[Clip]) -> None:
    forwards, backwards = entries(extractor(None), clips), entries(extractor(None), clips[::-1])
    assert all(close(forwards[clip], backwards[clip]) for clip in clips)


def test_the_second_run_reads_and_decodes_nothing(
    clips: list[Clip], cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "TICK_NS", -1)  # these files are as young as the test
    first = extractor(cache)
    computed = entries(first, clips)
    assert (first.stats.computed, first.stats.reused, first.stats.failures) == (6, 0, [])
    assert first.stats.hashes == {clip: content_hash(clip.path) for clip in clips}
    assert sorted(decoded) == sorted(clip.path.name for clip in clips)

    def never(*_args: Any) -> Any:
        raise AssertionError("was called")

    monkeypatch.setattr("vidfuse.data.content.content_hash", never)
    monkeypatch.setattr(DecodePool, "__init__", never)
    second = extractor(cache, backbone=never)
    again = entries(second, clips)
    assert (second.stats.computed, second.stats.reused) == (0, 6)
    assert second.stats.hashes == first.stats.hashes
    for clip in clips:
        assert again[clip].info == computed[clip].info
        assert np.array_equal(again[clip].features, computed[clip].features)
    assert list(extractor(cache, backbone=never).run(clips, read=False)) == []


def test_a_changed_file_is_computed_again(cache: Path, make_clip: Any) -> None:
    clip = Clip(make_clip("a.mkv", seed=1))
    before = entries(extractor(cache), [clip])[clip]
    make_clip("a.mkv", seed=2)
    run = extractor(cache)
    after = entries(run, [clip])[clip]
    assert run.stats.computed == 1
    assert not close(before, after)
    assert close(after, entries(extractor(None), [clip])[clip])


def test_the_same_content_is_decoded_once_under_any_name(
    cache: Path, make_clip: Any, decoded: list[str]
) -> None:
    clip = Clip(make_clip("a.mkv"))
    copies = [Clip(Path(shutil.copy(clip.path, clip.path.with_name(f"{i}.mkv")))) for i in range(3)]
    run = extractor(cache, reporter=Heard())
    found = entries(run, [clip, *copies[:2], clip])
    assert (run.stats.computed, run.stats.reused) == (1, 3)
    assert decoded == ["a.mkv"]
    assert all(close(found[clip], found[copy]) for copy in copies[:2])
    later = extractor(cache)
    entries(later, [copies[2]])
    assert (later.stats.computed, later.stats.reused) == (0, 1)
    uncached = extractor(None)
    assert len(list(uncached.run([clip, copies[0], clip]))) == 3
    assert (uncached.stats.computed, uncached.stats.reused) == (1, 2)


def test_segments_of_one_file_are_clips_of_their_own(cache: Path, make_clip: Any) -> None:
    path = make_clip("a.mkv", frames=20)
    whole, first, second = (
        Clip(path),
        Clip(path, start=0.0, end=1.0),
        Clip(path, start=1.0, end=2.0),
    )
    run = extractor(cache)
    found = entries(run, [whole, first, second])
    assert run.stats.computed == 3
    assert found[first].times.max() < 1.0 <= found[second].times.min()
    again = entries(extractor(cache), [second])[second]
    assert np.array_equal(again.times, found[second].times)


def test_one_bad_clip_among_good_ones(cache: Path, clips: list[Clip], tmp_path: Path) -> None:
    torn, text, missing = (Clip(tmp_path / name) for name in ("torn.mkv", "notes.mp4", "no.mp4"))
    torn.path.write_bytes(clips[0].path.read_bytes()[:100])
    text.path.write_text("Not a video.\n" * 50)
    run = extractor(cache, reporter=Heard())
    results = dict(run.run([torn, *clips[:2], missing, text, clips[2]]))
    bad = {clip for clip, result in results.items() if isinstance(result, InputError)}
    assert bad == {torn, text, missing}
    assert {clip for clip, _ in run.stats.failures} == bad
    assert len(run.stats.failures) == 3
    assert run.stats.computed == 3
    assert sum(1 for _ in cache.rglob("*.safetensors")) == 3
    alone = entries(extractor(None), clips[:3])
    assert all(close(results[clip], alone[clip]) for clip in clips[:3])


def test_stopping_midway_leaves_whole_entries_and_the_next_run_goes_on(
    cache: Path, clips: list[Clip]
) -> None:
    heard = Heard()
    run = extractor(cache, reporter=heard, workers=1)
    results = run.run(clips)
    for _ in range(2):
        next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # it is a generator
    assert heard.finished == 1
    kept = list(cache.rglob("*.safetensors"))
    assert len(kept) >= 2
    assert not list(cache.rglob("*.partial"))
    later = extractor(cache)
    found = entries(later, clips)
    assert (later.stats.reused, later.stats.computed) == (len(kept), len(clips) - len(kept))
    assert set(found) == set(clips)


def test_a_full_disk_stops_and_keeps_what_is_there(
    cache: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries(extractor(cache), clips[:2])
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.suffix == ".partial":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left") as error:
            list(extractor(cache).run(clips))
    assert str(cache) in error.value.message
    later = extractor(cache)
    entries(later, clips)
    assert later.stats.reused == 2


def test_damage_is_reported_and_computed_again(cache: Path, clips: list[Clip]) -> None:
    sound = entries(extractor(cache), clips[:2])
    damaged = sorted(cache.rglob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    heard = Heard()
    run = extractor(cache, reporter=heard)
    again = entries(run, clips[:2])
    assert (run.stats.computed, run.stats.reused) == (1, 1)
    assert len(heard.warnings) == 1
    assert str(damaged) in heard.warnings[0]
    assert all(close(again[clip], sound[clip]) for clip in clips[:2])


class Scaled(Backbone):
    """Multiplies features, as unsound weights do."""

    factor: float

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels) * self.factor


@pytest.mark.parametrize("factor", [1e9, float("nan"), float("inf")])
@pytest.mark.parametrize("cached", [True, False])
def test_features_that_fit_no_float16_are_refused(
    cache: Path, clips: list[Clip], factor: float, cached: bool
) -> None:
    def build() -> Backbone:
        network: Any = load_backbone(choose("resnet18", "random", "layer1"))
        network.__class__ = Scaled
        network.factor = factor
        return network

    ((clip, found),) = extractor(cache if cached else None, backbone=build).run(clips[:1])
    assert clip == clips[0]
    assert isinstance(found, InputError)
    assert "float16" in found.reason
    assert not list(cache.rglob("*.safetensors"))


def test_one_clip_that_overflows_a_narrow_precision_is_computed_in_fp32(
    cache: Path, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = Backbone.forward

    def overflowing(network: Backbone, pixels: Tensor) -> Tensor:
        maps = ordinary(network, pixels)
        return maps if network.dtype == torch.float32 else maps * torch.inf

    made = extractor(cache, precision="bf16")
    assert entries(made, clips[2:3])  # which shows that bf16 agrees with fp32 here
    monkeypatch.setattr(Backbone, "forward", overflowing)
    found = entries(made, clips[:2])
    monkeypatch.undo()
    assert all(near(entry, clip) for clip, entry in found.items())


def test_a_batch_too_large_for_the_memory_is_divided(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, sizes = Backbone.forward, []

    def small(network: Backbone, pixels: Tensor, most: int = 3) -> Tensor:
        sizes.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError
        return ordinary(network, pixels)

    monkeypatch.setattr(Backbone, "forward", small)
    found = entries(extractor(None, precision="fp32"), clips)
    assert max(sizes) > 3
    monkeypatch.setattr(Backbone, "forward", ordinary)
    assert all(near(entry, clip) for clip, entry in found.items())
    monkeypatch.setattr(Backbone, "forward", lambda network, pixels: small(network, pixels, most=0))
    with pytest.raises(UserError, match="too little memory"):
        entries(extractor(None, precision="fp32"), clips)


@pytest.mark.parametrize(
    ("layer", "finer"), [("layer1", 2), ("layer1", 8), ("layer1", "native"), ("layer4", "native")]
)
def test_coarser_grids_come_from_finer_ones(
    cache: Path, clips: list[Clip], decoded: list[str], finer: Any, layer: str
) -> None:
    clips = clips[:2]
    entries(extractor(cache, on_grid(finer, layer=layer)), clips)
    decoded.clear()
    for grid in (1, 2, 4):
        if finer != "native" and grid > finer:
            continue
        run = extractor(cache, on_grid(grid, layer=layer))
        derived = entries(run, clips)
        assert (run.stats.reused, run.stats.computed) == (len(clips), 0)
        assert decoded == []
        direct = entries(extractor(None, on_grid(grid, layer=layer)), clips)
        decoded.clear()
        for clip in clips:
            assert derived[clip].features.shape[-2:] == (grid, grid)
            assert close(derived[clip], direct[clip])


def test_a_finer_grid_is_not_made_up_from_a_coarser(cache: Path, clips: list[Clip]) -> None:
    entries(extractor(cache, on_grid(2)), clips[:2])
    for grid in (4, 3, "native"):
        run = extractor(cache, on_grid(grid))
        entries(run, clips[:2])
        assert run.stats.computed == 2


def test_a_native_map_of_14_by_14_gives_its_grids(cache: Path, make_clip: Any) -> None:
    clip = Clip(make_clip(frames=2))
    native = replace(SPEC, layer="layer3", size=224, grid="native")
    found = entries(extractor(cache, native), [clip])[clip]
    assert found.features.shape == (2, 256, 14, 14)
    for grid in (1, 2, 4):
        run = extractor(cache, replace(native, grid=grid))
        derived = entries(run, [clip])[clip]
        assert run.stats.reused == 1
        assert close(derived, entries(extractor(None, replace(native, grid=grid)), [clip])[clip])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_module, "LARGE", 3)


@pytest.mark.usefixtures("large")
def test_a_large_extraction_says_how_large(cache: Path, clips: list[Clip]) -> None:
    heard = Heard()
    entries(extractor(cache, reporter=heard), clips[:2])
    assert heard.infos == []
    entries(extractor(cache, on_grid(4), reporter=heard), clips)
    (line,) = heard.infos
    size = 6 * 4 * 64 * 4 * 4 * 2 / 1e9  # clips, frames, channels, cells, bytes
    assert line.startswith(f"6 clips to extract: at most {size:.2f} GB in {cache}, about ")


@pytest.mark.usefixtures("large")
def test_too_little_disk_stops_a_large_extraction_before_it_begins(
    cache: Path, clips: list[Clip], decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 6 * 4 * 64 * 2 * 2 * 2
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
        with pytest.raises(UserError, match="free") as error:
            list(extractor(cache).run(clips))
    assert str(cache) in error.value.message
    assert "--grid" in str(error.value.hint)
    assert decoded == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    assert len(entries(extractor(cache), clips)) == 6


def test_memory_does_not_grow_with_the_number_of_clips(
    cache: Path, make_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more frames and features are alive than workers and a batch explain."""
    pixels: list[weakref.ref[Any]] = []
    most = 0
    add = Encoding.add

    class Pixels(np.ndarray[Any, Any]):
        """An array that can be counted."""

    def hook(encoding: Encoding, job: Job) -> list[Job]:
        nonlocal most
        assert job.frames is not None
        counted = job.frames.pixels.copy().view(Pixels)
        pixels.append(weakref.ref(counted))
        most = max(most, sum(each() is not None for each in pixels))
        job.frames = replace(job.frames, pixels=counted)
        del counted
        return add(encoding, job)

    monkeypatch.setattr(Encoding, "add", hook)
    monkeypatch.setattr("vidfuse.backbones.engine.CPU_BATCH", 8)
    clips = [Clip(make_clip(f"{seed}.mkv", seed=seed, frames=4)) for seed in range(40)]
    seen = 0
    for _, result in extractor(cache).run(clips):
        assert isinstance(result, Entry)
        seen += 1
        del result
    assert seen == 40
    assert most <= 6, f"{most} clips in memory at once"


def test_progress_counts_the_clips_to_compute(cache: Path, clips: list[Clip]) -> None:
    entries(extractor(cache), clips[:2])
    heard = Heard()
    entries(extractor(cache, reporter=heard), clips)
    assert (heard.total, heard.steps, heard.finished) == (4, 4, 1)


def test_timings_say_where_the_time_went(cache: Path, clips: list[Clip]) -> None:
    run: Extractor = extractor(cache)
    began = time.perf_counter()
    entries(run, clips)
    seconds = run.reporter.seconds
    assert set(seconds) >= {"cache", "decode", "forward", "write"}
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) < time.perf_counter() - began


def test_an_entry_says_how_it_came_about(cache: Path, make_clip: Any) -> None:
    clip = Clip(make_clip("a.mkv", frames=12, fps=10))
    info = entries(extractor(cache), [clip])[clip].info
    assert (info.width, info.height, info.count) == (48, 32, 12)
    assert info.start == pytest.approx(0.0, abs=1e-3)
    assert info.end == pytest.approx(1.2, abs=1e-3)
    assert info.decoder == "pyav"
    assert info.path == str(clip.path)
    assert Store(cache).specs() == [SPEC]
