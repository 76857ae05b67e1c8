"""Whatever is in a file, reading it gives problems or an error for the user, and nothing else."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import FORMATS, load_format, read_timelines, write_timelines
from vidfuse.errors import UnknownNameError, UnwritableError, UserError

READABLE = [name for name, about in FORMATS.items() if about.readable]
VIDEO = Timeline(
    Path("a.mp4"),
    [Segment(0.5, 1.25, "jump", 0.5), Segment(1.0, 2.0, "run"), Segment(2.5, 2.5, "beep")],
    4.0,
    25.0,
)


def attempt(file, name):
    """What is read, or None where the user is told why not."""
    try:
        found = read_timelines(file, format=name)
    except UserError as error:
        return explain(error, file)
    for problem in found.problems:
        assert problem.startswith(file.name)
    for segment in (each for video in found.timelines for each in video.segments):
        assert 0 <= segment.start <= segment.end < math.inf
        assert segment.label == segment.label.strip() != ""
    return found


def explain(error, file):
    assert str(file) in error.message
    assert error.hint


NONSENSE = {
    "nothing": b"",
    "blank": b" \n\n\t\n",
    "a video": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20,
    "not text": b"WEBVTT\n\n\xff\xfe\xfd",
    "prose": "Once upon a time — there was: a <file>, \"with\" 3 marks.\n".encode() * 5,
    "depth": b"[" * 100_000,
    "depth of objects": b'{"segments":' * 20_000,
    "depth of elements": b"<ANNOTATION_DOCUMENT>" + b"<a>" * 100_000,
    "a number": b"1e999",
    "digits": b'{"segments": [{"start": ' + b"9" * 5000 + b"}]}",
    "a list": b"[1, null, [], {}, \"x\"]",
    "null": b"null",
    "zeros in UTF-16": b"\xff\xfe\0\0\0",
    "surrogates": b'{"path": "\\ud800", "segments": [{"start": 0, "end": 1, "label": "\\udfff"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_nonsense(name, content, tmp_path):
    file = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    file.write_bytes(content)
    found = attempt(file, name)
    assert found is None or not any(video.segments for video in found.timelines)


@pytest.mark.parametrize("name", READABLE)
def test_damaged_files(name, tmp_path):
    file = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    write_timelines([VIDEO], file, format=name)
    data = file.read_bytes()
    chance = random.Random(0)
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randrange(4)] = chance.choice(
                [
                    b"",
                    b"-",
                    b"9" * 20,
                    b"nan",
                    b"\n",
                    b"\t",
                    b'"',
                    b"<",
                    b"\xc3",
                    b"null",
                    b"[]",
                    b"1e9",
                ]
            )
        file.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
        attempt(file, name)


WRONG: list[object] = [
    None,
    True,
    -1,
    1e300,
    math.nan,
    math.inf,
    "x",
    "",
    [],
    {},
    [[]],
    {"a": 1},
    10**400,
]


@pytest.mark.parametrize("name", ["jsonl", "boris", "label-studio"])
def test_wrong_values_anywhere_in_json(name, tmp_path):
    file = tmp_path / f"a{FORMATS[name].suffixes[0]}"
    write_timelines([VIDEO], file, format=name)
    content = json.loads(file.read_text())
    chance = random.Random(0)
    for path in list(places(content)):
        for wrong in chance.sample(WRONG, 2):
            changed = json.loads(json.dumps(content))
            if not path:
                changed = wrong
            else:
                inside = changed
                for key in path[:-1]:
                    inside = inside[key]
                inside[path[-1]] = wrong
            file.write_text(json.dumps(changed))
            attempt(file, name)


def places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inside in items:
            yield from places(inside, (*path, key))


def test_paths_that_are_no_files(tmp_path):
    for path, reason in {
        tmp_path / "missing.csv": "no such file",
        tmp_path / "folder.csv": "a folder",
        tmp_path / "a.mp4": "not the suffix",
        tmp_path / "a": "not the suffix",
        tmp_path / "zero\0.csv": "no name",
    }.items():
        if path.name == "folder.csv":
            path.mkdir()
        with pytest.raises(UserError, match=reason) as raised:
            read_timelines(path)
        assert raised.value.hint


def test_unknown_formats(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'webvtt'"):
        read_timelines(tmp_path / "a.vtt", format="webvt")
    with pytest.raises(UnknownNameError):
        write_timelines([VIDEO], tmp_path / "a.vtt", format="vtt!")
    with pytest.raises(UserError, match="not the suffix"):
        write_timelines([VIDEO], tmp_path / "a.doc")


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (Segment(2, 1, "x"), "end 1 is before start 2"),
        (Segment(math.nan, 1, "x"), "start is not a number"),
        (Segment(0, math.inf, "x"), "end is not a number"),
        (Segment(0, 1, " \n"), "no label"),
        (Segment(0, 1, "x\0y"), "control characters"),
        (Segment(0, 1, "\udc80"), "control characters"),
        (Segment(0, 1, "x", 2.0), "score"),
    ],
)
def test_what_no_format_can_hold_is_not_written(segment, reason, tmp_path):
    for name in FORMATS:
        with pytest.raises(UserError, match=reason):
            write_timelines([Timeline(Path("a.mp4"), [segment])], tmp_path / "a", format=name)
    with pytest.raises(UserError, match="path"):
        write_timelines([Timeline(Path("\udc80.mp4"), [])], tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnwritableError):
        write_timelines([VIDEO], tmp_path / "file" / "a.csv")
    assert (tmp_path / "file").read_text() == "x"


def test_every_format_has_its_module():
    for name, about in FORMATS.items():
        module = load_format(name)
        assert all(suffix == suffix.lower() for suffix in about.suffixes)
        assert hasattr(module, "read") == hasattr(module, "recognise") == about.readable
