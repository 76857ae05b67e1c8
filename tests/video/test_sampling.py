"""The formulas of sampling, on even, uneven, short and cut frame times."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vidfuse.errors import UnknownNameError, UserError
from vidfuse.video.sampling import FrameTimes, Sampling, even_moments, on_screen


def even(count: int, rate: float = 30, start: float = 0) -> FrameTimes:
    return FrameTimes(start + np.arange(count) / rate, start + count / rate)


def uneven(seed: int) -> FrameTimes:
    """Variable frame rate: gaps spread over two orders of magnitude, some of them none."""
    rng = np.random.default_rng(seed)
    gaps = rng.lognormal(-3, 1.5, size=rng.integers(1, 200))
    gaps[rng.random(len(gaps)) < 0.05] = 0
    times = rng.uniform(0, 5) + np.cumsum(gaps)
    return FrameTimes(times, float(times[-1] + rng.uniform(0.01, 1)))


def picks(text: str, frame_times: FrameTimes, count: int) -> list[int]:
    return Sampling.parse(text).pick(frame_times, count).tolist()


@pytest.mark.parametrize("rate", [24, 25, 30, 30000 / 1001, 12.5])
@pytest.mark.parametrize("start", [0, 0.1, 1234.567])
def test_uniform_over_even_spacing(rate: float, start: float) -> None:
    """``floor((i + 1/2) N / T)``, the formula for frame numbers."""
    for total in range(1, 200, 7):
        for count in (1, 2, 3, 8, 16):
            if total > count:
                wanted = [(2 * i + 1) * total // (2 * count) for i in range(count)]
                assert picks("uniform", even(total, rate, start), count) == wanted


def test_uniform_is_the_frame_on_screen_at_the_centre_of_each_part() -> None:
    frame_times = FrameTimes(np.array([0, 0.1, 0.2, 0.3, 5.0]), 8.0)
    # Centres 1, 3, 5, 7: the frame of 0.3 s stays on screen until 5 s.
    assert picks("uniform", frame_times, 4) == [3, 3, 4, 4]
    assert picks("segment", frame_times, 4) == [3, 3, 4, 4]


@pytest.mark.parametrize("text", ["uniform", "segment", "dense"])
def test_too_few_frames_are_all_given_once(text: str) -> None:
    for total in range(1, 17):
        assert picks(text, even(total), 16) == list(range(total))
    assert len(picks(text, even(17), 16)) == 16


def test_dense() -> None:
    assert picks("dense", even(10), 4) == [3, 4, 5, 6]
    assert picks("dense", even(11), 4) == [3, 4, 5, 6]
    assert picks("dense", even(5), 4) == [0, 1, 2, 3]
    assert picks("dense", FrameTimes(np.array([0, 9, 9.1, 9.2, 9.3]), 10.0), 3) == [1, 2, 3]


def test_stride() -> None:
    assert picks("stride:4", even(10), 16) == [0, 4, 8]
    assert picks("stride:4", even(100), 3) == [0, 4, 8]
    assert picks("stride:1", even(3), 3) == [0, 1, 2]
    assert picks("stride:500", even(3), 3) == [0]


@pytest.mark.parametrize("seed", range(20))
def test_segment_in_training_stays_in_its_part(seed: int) -> None:
    frame_times = uneven(seed)
    first, count = frame_times.times[0], 8
    edges = first + np.arange(count + 1) * (frame_times.end - first) / count
    lowest, highest = (
        on_screen(frame_times.times, edges[:-1]),
        on_screen(frame_times.times, edges[1:]),
    )
    chosen = set()
    for draw in range(30):
        rng = np.random.default_rng(draw)
        index = Sampling.parse("segment").pick(frame_times, count, rng)
        if len(frame_times.times) > count:
            assert (lowest <= index).all()
            assert (index <= highest).all()
        chosen.add(tuple(index.tolist()))
    assert len(chosen) > 1 or len(frame_times.times) <= count + 5


def test_only_segment_draws() -> None:
    frame_times = even(100)
    for text in ("uniform", "dense", "stride:3"):
        rng = np.random.default_rng(0)
        assert Sampling.parse(text).pick(frame_times, 8, rng).tolist() == picks(
            text, frame_times, 8
        )
        assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("text", ["uniform", "segment", "dense", "stride:3"])
def test_pick_is_a_pure_function_that_keeps_the_order(text: str, seed: int) -> None:
    frame_times = uneven(seed)
    before = frame_times.times.copy()
    for count in (1, 5, 64):
        index = picks(text, frame_times, count)
        assert index == picks(text, frame_times, count)
        assert index == sorted(index)
        assert 0 < len(index) <= count
        assert 0 <= index[0] <= index[-1] < len(frame_times.times)
    assert (frame_times.times == before).all()


@pytest.mark.parametrize("frame_times", [even(n) for n in (1, 3, 7, 8, 9, 20, 24, 25, 40, 41, 300)])
def test_picks_nest_for_even_spacing(frame_times: FrameTimes) -> None:
    check_nesting(frame_times)


@pytest.mark.parametrize("seed", range(200))
def test_picks_nest_for_variable_frame_rates(seed: int) -> None:
    check_nesting(uneven(seed))


def check_nesting(frame_times: FrameTimes) -> None:
    """T of the uniform picks of m T frames, m odd, are the T picks of the clip itself."""
    uniform = Sampling.parse("uniform")
    for count in (1, 2, 8, 16):
        direct = frame_times.times[uniform.pick(frame_times, count)]
        for multiple in (1, 3, 5, 7):
            stored = frame_times.times[uniform.pick(frame_times, multiple * count)]
            cached = FrameTimes(stored, frame_times.end, start=float(frame_times.times[0]))
            assert stored[uniform.pick(cached, count)].tolist() == direct.tolist()


def test_even_multiples_do_not_nest() -> None:
    """Their parts have no centre in common: such a cache must not serve T."""
    frame_times, uniform = even(300), Sampling.parse("uniform")
    stored = uniform.pick(frame_times, 16)
    assert not set(uniform.pick(frame_times, 8).tolist()) <= set(stored.tolist())


def test_on_screen() -> None:
    times = np.array([1.0, 2.0, 2.0, 3.0])
    moments = np.array([0.0, 1.0, 1.999, 2.0 - 1e-9, 2.5, 3.0, 99.0])
    assert on_screen(times, moments).tolist() == [0, 0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("start", "end", "times", "stop"),
    [
        (None, None, [1, 2, 3, 4], 5),
        (0.0, 99.0, [1, 2, 3, 4], 5),
        (2.0, 4.0, [2, 3], 4),  # the end is exclusive
        (2.5, 3.5, [2, 3], 3.5),  # the frame of 2 s is on screen at 2.5 s
        (2.2, 2.4, [2], 2.4),
        (None, 1.0, [], 1.0),
        (4.5, None, [4], 5),
        (5.0, None, [], 5),
        (7.0, 8.0, [], 5),
    ],
)
def test_cut(start: float | None, end: float | None, times: list[float], stop: float) -> None:
    part = FrameTimes(np.array([1.0, 2, 3, 4]), 5.0).cut(start, end)
    assert part.times.tolist() == times
    assert part.end == stop


def test_cut_of_a_frame_before_the_first() -> None:
    part = FrameTimes(np.array([1.0, 2]), 3.0).cut(0, 0.5)
    assert not len(part.times)


@pytest.mark.parametrize("text", ["uniform", "segment", "dense", "stride:4"])
def test_parse_and_print(text: str) -> None:
    assert str(Sampling.parse(text)) == text


def test_parse_refuses_with_advice() -> None:
    for text in ("stride", "stride:", "stride:0", "stride:-1", "stride:x", "stride:1.5"):
        with pytest.raises(UserError, match="stride:4"):
            Sampling.parse(text)
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        Sampling.parse("unifrom")
    for text in ("uniform:3", "stride:N", ""):
        with pytest.raises(UserError):
            Sampling.parse(text)


def windows(count: int, length: float, fps: float = 30.0) -> np.ndarray:
    """Times of the chosen frames ``[windows, 4]`` of a clip of so many seconds."""
    times = np.arange(round(length * fps)) / fps
    frame_times = FrameTimes(times, length)
    return times[Sampling.parse("windows:4@10").pick(frame_times, count)].reshape(-1, 4)


def test_windows_lie_side_by_side_in_the_middle_of_their_shares():
    found = windows(64, 2.0)  # a window lasts .4 s: five of them in two seconds
    assert len(found) == 5
    np.testing.assert_allclose(np.diff(found, axis=1), 0.1, atol=0.034)
    np.testing.assert_allclose(found.mean(1), np.arange(5) * 0.4 + 0.2, atol=0.034)
    assert (np.diff(found.ravel()) >= 0).all()


def test_there_are_no_more_windows_than_asked_for():
    found = windows(8, 10.0)
    assert len(found) == 2
    np.testing.assert_allclose(found.mean(1), [2.5, 7.5], atol=0.034)
    assert (np.ptp(found, axis=1) < 0.4).all()


def test_a_clip_shorter_than_a_window_gives_one_of_closer_frames():
    found = windows(64, 0.2)
    assert found.shape == (1, 4)
    assert found.max() < 0.2
    assert len(np.unique(found)) == 4
    np.testing.assert_allclose(windows(64, 1 / 30), 0.0)  # a single frame, four times


def test_the_rate_is_in_seconds_whatever_the_frame_rate():
    slow, fast = windows(64, 2.0, fps=25), windows(64, 2.0, fps=100)
    assert slow.shape == fast.shape
    np.testing.assert_allclose(slow, fast, atol=0.041)


@pytest.mark.parametrize("text", ["windows:16@15", "windows:32@7.5"])
def test_a_rule_of_windows_is_written_as_it_is_read(text):
    assert str(Sampling.parse(text)) == text


@pytest.mark.parametrize("text", ["windows", "windows:0@15", "windows:16@0", "windows:16"])
def test_other_windows_are_refused(text):
    with pytest.raises(UserError):
        Sampling.parse(text)


def test_even_moments_do_not_depend_on_where_a_video_is_cut():
    """Each moment is in one part of it, wherever between moments and frames the parts begin."""
    times = np.sort(np.random.default_rng(0).random(400)) * 20
    whole = Sampling.parse("rate:7.5").pick(FrameTimes(times, 20.0), 1000)
    assert len(whole) == pytest.approx(150, abs=1)
    cuts = [times[0], 1.0, 4.5 / 7.5, 3.33, 9.999, 20.0]
    found = []
    for start, end in pairwise(sorted(cuts)):
        part = replace(FrameTimes(times, 20.0).cut(start, end), start=start)
        rows = Sampling.parse("rate:7.5").pick(part, 1000)
        found += part.times[rows].tolist()
    assert found == times[whole].tolist()


@pytest.mark.parametrize(("fps", "rate"), [(25, 5), (30, 5), (30000 / 1001, 10), (10, 25)])
def test_a_rate_gives_so_many_frames_a_second(fps, rate):
    times = np.arange(int(fps * 10)) / fps
    end = len(times) / fps
    chosen = times[Sampling.parse(f"rate:{rate}").pick(FrameTimes(times, end), 9999)]
    moments = even_moments(rate, 0.0, end)
    assert len(chosen) == len(moments) == int(end * rate + 0.5 - 1e-6)
    assert ((moments - chosen >= -1e-6) & (moments - chosen < 1 / fps + 1e-6)).all()


def test_a_moment_between_two_samples_has_one():
    assert even_moments(5, 3.12, 3.13).tolist() == pytest.approx([3.125])
    assert even_moments(5, 0.1, 0.3).tolist() == pytest.approx([0.1])  # the end is exclusive


def test_a_rate_is_read_and_written():
    assert str(Sampling.parse("rate:12.5")) == "rate:12.5"
    for wrong in ("rate:0", "rate:-1", "rate:", "rate:x", "rate:5@3"):
        with pytest.raises(UserError, match="sampling"):
            Sampling.parse(wrong)
