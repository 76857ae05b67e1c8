"""What is written is read again, as far as the format holds it, and by the format's own library."""

from __future__ import annotations

import html
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import FORMATS, read_timelines, write_timelines
from vidfuse.data.timelines.common import timeline

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = pytest.importorskip("hypothesis.strategies")

READABLE = [name for name, about in FORMATS.items() if about.readable]
SCORED = ("jsonl", "csv", "label-studio")  # with more than two decimals
SHORT_SCORES = ("webvtt", "srt")
EXACT = ("jsonl", "csv", "audacity", "textgrid")  # to a microsecond
NO_POINTS = ("webvtt", "srt", "eaf")  # last a millisecond there
FPS = 25.0

LABELS = st.text(st.sampled_from("ab é&<\"'>,;\t-|\\😀!{}#"), min_size=1, max_size=8).map(
    lambda text: " ".join(f"x{text}".split())
)
TIMES = st.one_of(
    st.integers(0, 5000).map(lambda ms: ms / 1000),
    st.integers(0, 40).map(float),
    st.floats(0, 500_000),
)
SCORES = st.none() | st.integers(0, 10_000).map(lambda score: score / 10_000)


@st.composite
def segments(draw):
    start, end = sorted((draw(TIMES), draw(TIMES)))
    tier = draw(st.sampled_from([None, None, "left", "right hand"]))
    return Segment(start, draw(st.sampled_from([start, end])), draw(LABELS), draw(SCORES), tier)


@st.composite
def videos(draw, name="clips/a b.mp4"):
    inside = draw(st.lists(segments(), max_size=6))
    end = max((each.end for each in inside), default=1.0)
    duration = draw(st.none() | st.just(end + 1))
    return timeline(Path(name), inside, duration, FPS)


def write_and_read(folder, timelines, name):
    file = folder / f"a{FORMATS[name].suffixes[0]}"
    write_timelines(timelines, file, format=name)
    return read_timelines(file, format=name)


def few(**arguments):
    given = hypothesis.given(**arguments)
    checks = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    settings = hypothesis.settings(
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=checks,
    )
    return lambda test: settings(given(test))


@pytest.mark.parametrize("name", READABLE)
@few(video=videos())
def test_all_that_a_format_holds_is_read_again(name, video, tmp_path):
    found = write_and_read(tmp_path, [video], name)
    assert found.problems == []
    assert found.format == name
    if not video.segments and name in ("csv", "boris-events"):
        assert found.timelines == []
        return
    (read,) = found.timelines
    if FORMATS[name].several or name == "eaf":
        assert read.path == video.path
    assert read.segments == sorted(read.segments, key=lambda s: (s.start, s.end, s.label))
    compare(video.segments, read.segments, name)


def compare(written, read, name):
    """Hold segments against each other in the units in which the format counts time."""
    assert Counter(counted(each, name) for each in written) == Counter(
        counted(each, name, read=True) for each in read
    )


def counted(segment, name, *, read=False):
    times = (segment.start, segment.end)
    if name == "label-studio":
        shortest, (start, end) = 1, (math.floor(time * FPS + 0.5) for time in times)
    else:
        digits, shortest = 6 if name in EXACT else 3, int(name in NO_POINTS)
        start, end = (round(round(time, digits) * 10**digits) for time in times)
    score = segment.score
    if not read:
        end = max(end, start + shortest)
        if name in SHORT_SCORES and score is not None:
            score = float(f"{score:.2f}")
        elif name not in SCORED:
            score = None
    tier = segment.tier if name in ("jsonl", "csv") else None
    return start, end, segment.label, score, tier


@pytest.mark.parametrize("name", [name for name in READABLE if FORMATS[name].several])
@few(first=videos(), second=videos(name="clips/b.mov"))
def test_several_videos_in_one_file(name, first, second, tmp_path):
    found = write_and_read(tmp_path, [first, second], name)
    assert found.problems == []
    kept = [each for each in (first, second) if each.segments]
    if name in ("jsonl", "boris", "label-studio"):
        kept = [first, second]
    assert [each.path for each in found.timelines] == [each.path for each in kept]
    for mine, theirs in zip(kept, found.timelines, strict=True):
        compare(mine.segments, theirs.segments, name)


@pytest.mark.parametrize("name", READABLE)
def test_what_is_written_twice_is_the_same(name, tmp_path):
    video = timeline(
        Path("a.mp4"),
        [
            Segment(0, 1.5, "jump", 0.25),
            Segment(1, 2, "run"),
            Segment(1, 2, "run"),
            Segment(3, 3, "x"),
        ],
        10,
        FPS,
    )
    first = write_and_read(tmp_path, [video], name).timelines
    again = write_and_read(tmp_path, first, name).timelines
    assert again == first


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("path", [None, Path("/videos/a.mp4")])
def test_a_timeline_without_anything(name, path, tmp_path):
    found = write_and_read(tmp_path, [Timeline(path, [])], name)
    assert found.problems == []
    assert [each.segments for each in found.timelines] in ([[]], [])


def the_video():
    return timeline(
        Path("a.mp4"),
        [
            Segment(0.5, 1.25, 'say "a" & <b>', 0.5),
            Segment(1.0, 2.0, "walk --> run"),
            Segment(1.0, 2.0, "été"),
            Segment(360_000.0, 360_001.5, "after 100 hours"),
        ],
        400_000,
        FPS,
    )


@pytest.mark.parametrize("name", ["webvtt", "srt"])
def test_subtitles_by_webvtt(name, tmp_path):
    webvtt = pytest.importorskip("webvtt", reason="webvtt-py is not installed")
    file = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    write_timelines([the_video()], file)
    cues = list(webvtt.read(file) if name == "webvtt" else webvtt.from_srt(file))
    assert [(each.start, each.end) for each in cues] == [
        ("00:00:00.500", "00:00:01.250"),
        ("00:00:01.000", "00:00:02.000"),
        ("00:00:01.000", "00:00:02.000"),
        ("100:00:00.000", "100:00:01.500"),
    ]
    texts = [html.unescape(each.text) for each in cues]
    assert texts[1:] == ["walk --> run", "été", "after 100 hours"]
    if name == "webvtt":
        assert texts[0] == 'say "a" & <b> (0.50)'


def test_eaf_by_pympi(tmp_path):
    pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed")
    video = the_video()
    file = tmp_path / "a.eaf"
    write_timelines([video], file)
    found = pympi.Elan.Eaf(str(file))
    rows = [
        row for tier in found.get_tier_names() for row in found.get_annotation_data_for_tier(tier)
    ]
    expected = [(round(s.start * 1000), round(s.end * 1000), s.label) for s in video.segments]
    assert sorted(row[:3] for row in rows) == sorted(expected)
    assert found.media_descriptors[0]["RELATIVE_MEDIA_URL"] == "./a.mp4"


def test_eaf_of_pympi(tmp_path):
    pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed")
    document = pympi.Elan.Eaf()
    document.add_tier("hands")
    document.add_annotation("hands", 400, 1200, "wave & go")
    document.add_linked_file("file:///videos/a.mp4", "./a.mp4", "video/mp4")
    document.to_file(str(tmp_path / "a.eaf"))
    found = read_timelines(tmp_path / "a.eaf")
    assert found.problems == []
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(0.4, 1.2, "wave & go", None, "hands")])
    ]


def test_textgrid_by_pympi(tmp_path):
    pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed")
    video = the_video()
    write_timelines([video], tmp_path / "a.TextGrid")
    found = pympi.Praat.TextGrid(str(tmp_path / "a.TextGrid"))
    rows = [row for tier in found.get_tiers() for row in tier.get_intervals() if row[2]]
    assert sorted(rows) == sorted((s.start, s.end, s.label) for s in video.segments)


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_textgrid_by_praatio(form, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    video = the_video()
    points = replace(
        video, segments=[*video.segments, Segment(5.0, 5.0, "beep"), Segment(6.0, 6.0, "beep")]
    )
    write_timelines([points], tmp_path / "a.TextGrid")
    found = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    rows = [tuple(row) for tier in found.tiers for row in tier.entries]
    expected = [(s.start, s.end, s.label) for s in video.segments] + [(5.0, "beep"), (6.0, "beep")]
    assert sorted(map(str, rows)) == sorted(map(str, expected))
    found.save(str(tmp_path / "b.TextGrid"), format=form, includeBlankSpaces=True)
    again = read_timelines(tmp_path / "b.TextGrid")
    assert again.problems == []
    assert again.timelines[0].duration == 400_000
    labels = [(s.start, s.end, s.label) for s in again.timelines[0].segments]
    assert labels == sorted((s.start, s.end, s.label) for s in points.segments)
