"""Small files of each format, in the shapes in which their programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidfuse.data.timeline import Segment, Timeline
from vidfuse.data.timelines import FORMATS, read_timelines, write_timelines
from vidfuse.errors import UserError


def read(folder, name, text, **options):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return read_timelines(folder / name, **options)


def rows(found):
    return [(s.start, s.end, s.label) for video in found.timelines for s in video.segments]


def test_jsonl(tmp_path):
    found = read(
        tmp_path,
        "a.jsonl",
        '{"path": "a.mp4", "ok": true, "duration": 9.5, "model": "x", "segments": ['
        '{"start": 1, "end": 2.5, "label": "jump", "score": 0.25, "other": 1},'
        '{"start": 0, "end": 1, "label": "run", "score": null},'
        '{"start": 3, "end": 1, "label": "run"}, 7]}\n\n'
        '{"path": "b.mp4", "ok": false, "error": "not a video"}\n'
        '{"path": "c.mp4", "ok": true, "segments": []}\n',
    )
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(0, 1, "run"), Segment(1, 2.5, "jump", 0.25)], 9.5),
        Timeline(Path("c.mp4"), []),
    ]
    assert found.problems == [
        "a.jsonl, line 1: segment 3: end 1 is before start 3",
        "a.jsonl, line 1: segment 4: not a JSON object",
        "a.jsonl, line 3: the video has failed (not a video)",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,start,end,label\na.mp4,0.5,2,jump\nb.mp4,0,1,run\na.mp4,3,3,hop\n"),
        ("a.csv", "\ufeffLabel;End;Start;Path;id\r\njump;2;.5;a.mp4;1\r\nrun;1;0;b.mp4;2\r\n"
                  "hop;3;3;a.mp4;3\r\n"),
        ("a.tsv", "path\tstart\tend\tlabel\tscore\na.mp4\t0.5\t2\tjump\t\nb.mp4\t0\t1\trun\t\n"
                  "a.mp4\t3\t3\thop\t\n"),
        ("a.csv", "path,start,end,label\na.mp4,0.5,2,jump\nb.mp4,0,1,run\na.mp4,3,3,hop\n"
                  .encode("utf-16")),
    ],
)  # fmt: skip
def test_csv(name, text, tmp_path):
    found = read(tmp_path, name, text)
    assert found.problems == []
    assert found.format == "csv"
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(0.5, 2, "jump"), Segment(3, 3, "hop")]),
        Timeline(Path("b.mp4"), [Segment(0, 1, "run")]),
    ]


def test_bad_rows_of_a_table(tmp_path):
    found = read(
        tmp_path,
        "a.csv",
        "path,start,end,label,score\na.mp4,nan,1,x,\na.mp4,-1,1,x,\na.mp4,2,1,x,\na.mp4,1,,x,\n"
        "a.mp4,1,2,,\na.mp4,1,2,x,1.5\na.mp4,1,1e300,x,\na.mp4,1,2,x,0.5\na.mp4,0:01,2,x,\n",
    )
    assert found.problems == [
        "a.csv, line 2: start is not a number: 'nan'",
        "a.csv, line 3: start is not a time in seconds: '-1'",
        "a.csv, line 4: end 1 is before start 2",
        "a.csv, line 5: end is empty",
        "a.csv, line 6: there is no label",
        "a.csv, line 7: score is not from 0 to 1: '1.5'",
        "a.csv, line 8: end is not a time in seconds: '1e300'",
        "a.csv, line 10: start is not a number: '0:01'",
    ]
    assert rows(found) == [(1, 2, "x")]


def test_webvtt(tmp_path):
    found = read(
        tmp_path,
        "a.vtt",
        "\ufeffWEBVTT - made by hand\r\nKind: captions\r\n\r\nNOTE\r\na note --\r\n\r\n"
        "STYLE\r\n::cue { color: red }\r\n\r\n"
        "first\r\n00:01.500 --> 00:02.000 align:start position:0%\r\n"
        "<v Ann>fish &amp; <b>chips</b>\r\n&lt;3\r\n\r\n"
        "100:00:00.000 --> 100:00:01.000\r\njump (0.93)\r\n\r\n"
        "00:00:03.000 --> 00:00:02.000\r\nback\r\n\r\n"
        "00:00:61.000 --> 00:02:00.000\r\nno minute\r\n\r\nonly text\r\n\r\n"
        "00:00:00.000 --> 00:00:00.250\r\nlast",
    )
    assert found.timelines[0].segments == [
        Segment(0, 0.25, "last"),
        Segment(1.5, 2, "fish & chips <3"),
        Segment(360_000, 360_001, "jump", 0.93),
    ]
    assert found.problems == [
        "a.vtt, line 18: end 2 is before start 3",
        "a.vtt, line 21: no time: 00:00:61",
        "a.vtt, line 24: no times of a cue: only text",
    ]


def test_srt(tmp_path):
    found = read(
        tmp_path,
        "a.srt",
        "1\n00:00:01,500 --> 00:00:02,000\n<i>fish</i> & chips\nand <3\n\n"
        "2\n100:00:00,000 --> 100:00:01,000 X1:1 X2:2\njump (1.00)\n\n\n"
        "00:00:05.000 --> 00:00:06.000\nwithout a number\n\n4\n00:00:07,000 -> 00:00:08,000\nx\n",
    )
    assert found.timelines[0].segments == [
        Segment(1.5, 2, "fish & chips and <3"),
        Segment(5, 6, "without a number"),
        Segment(360_000, 360_001, "jump", 1.0),
    ]
    assert found.problems == ["a.srt, line 14: no times of a cue: 4"]


def test_audacity(tmp_path):
    found = read(
        tmp_path,
        "Label Track.txt",
        "0.500000\t2.000000\tjump\n\\\t100.000000\t2000.000000\n3,25\t3,25\thop\twith a tab\n"
        "4.0\t5.0\t\n6.0 7.0 x\n-1.0\t2.0\tx\n",
    )
    assert rows(found) == [(0.5, 2, "jump"), (3.25, 3.25, "hop with a tab")]
    assert found.problems == [
        "Label Track.txt, line 4: there is no label",
        "Label Track.txt, line 5: no tab between start and end",
        "Label Track.txt, line 6: start is not a time in seconds: '-1.0'",
    ]


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "hands"
        xmin = 0
        xmax = 4.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = ""
        intervals [2]:
            xmin = 1.25
            xmax = 3
            text = "say ""hi"" 2 you"
        intervals [3]:
            xmin = 3
            xmax = 4.5
            text = ""
    item [2]:
        class = "TextTier"
        name = "beeps"
        xmin = 0
        xmax = 4.5
        points: size = 1
        points [1]:
            number = 2.5
            mark = "beep"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
4.5
<exists>
2
"IntervalTier"
"hands"
0
4.5
3
0
1.25
""
1.25
3
"say ""hi"" 2 you"
3
4.5
""
"TextTier"
"beeps"
0
4.5
1
2.5
"beep"
"""


@pytest.mark.parametrize("text", [LONG, SHORT, SHORT.replace("4.5\n<", "4.5 ! the end\n<")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_textgrid(text, encoding, tmp_path):
    found = read(tmp_path, "a.TextGrid", text.replace("\n", "\r\n").encode(encoding))
    assert found.problems == []
    assert found.timelines == [
        Timeline(
            None,
            [
                Segment(1.25, 3, 'say "hi" 2 you', None, "hands"),
                Segment(2.5, 2.5, "beep", None, "beeps"),
            ],
            4.5,
        )
    ]


def test_a_textgrid_that_breaks_off(tmp_path):
    found = read(tmp_path, "a.TextGrid", SHORT[: SHORT.index('"TextTier"') + 20])
    assert rows(found) == [(1.25, 3, 'say "hi" 2 you')]
    assert found.problems == [
        "a.TextGrid, line 24: the file ends where it should go on; the rest was left out"
    ]
    found = read(tmp_path, "a.TextGrid", SHORT.replace("1.25\n3\n", "1.25\n"))
    assert found.problems == [
        "a.TextGrid, line 17: a number was expected, and there is the text "
        'say "hi" 2 you; the rest was left out'
    ]
    found = read(tmp_path, "a.TextGrid", LONG.replace("xmax = 3\n", "xmax = 0.5\n", 1))
    assert found.problems == ["a.TextGrid, line 22: end 0.5 is before start 1.25"]
    assert rows(found) == [(2.5, 2.5, "beep")]


EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-05-01T10:00:00+01:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/a b.mp4" MIME_TYPE="video/mp4"/>
        <PROPERTY NAME="lastUsedAnnotationId">4</PROPERTY>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="760"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1570"/>
        <TIME_SLOT TIME_SLOT_ID="ts3"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="gesture">
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
                <ANNOTATION_VALUE>wave &amp; go</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
                <ANNOTATION_VALUE>open</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="notes" PARENT_REF="gesture" TIER_ID="note">
        <ANNOTATION>
            <REF_ANNOTATION ANNOTATION_ID="a2" ANNOTATION_REF="a1">
                <ANNOTATION_VALUE>friendly</ANNOTATION_VALUE>
            </REF_ANNOTATION>
        </ANNOTATION>
        <ANNOTATION>
            <REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a4">
                <ANNOTATION_VALUE>itself</ANNOTATION_VALUE>
            </REF_ANNOTATION>
        </ANNOTATION>
    </TIER>
</ANNOTATION_DOCUMENT>
"""


def test_eaf(tmp_path):
    found = read(tmp_path, "a.eaf", EAF)
    assert found.timelines == [
        Timeline(
            Path("C:/films/a b.mp4"),
            [
                Segment(0.76, 1.57, "friendly", None, "note"),
                Segment(0.76, 1.57, "wave & go", None, "gesture"),
            ],
        )
    ]
    assert found.problems == [
        "a.eaf, line 21: time slot ts3 has no time",
        "a.eaf, line 33: it refers to others again and again, and none has a time",
    ]
    shifted = EAF.replace(' MIME_TYPE="video/mp4"', ' MIME_TYPE="video/mp4" TIME_ORIGIN="1500"')
    assert read(tmp_path, "a.eaf", shifted).problems[0] == (
        "a.eaf, MEDIA_DESCRIPTOR: annotations and video are 1500 ms apart (TIME_ORIGIN), and times "
        "are read as they stand"
    )


def test_the_relative_name_of_a_video_comes_first(tmp_path):
    text = EAF.replace('MIME_TYPE="', 'RELATIVE_MEDIA_URL="./x/a b.mp4" MIME_TYPE="')
    assert read(tmp_path, "a.eaf", text).timelines[0].path == Path("x/a b.mp4")
    text = EAF.replace("file:///C:/films", "file:///films")
    assert read(tmp_path, "a.eaf", text).timelines[0].path == Path("/films/a b.mp4")


ENTITIES = """<?xml version="1.0"?>
<!DOCTYPE x [
<!ENTITY secret SYSTEM "file://{secret}">
<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
]>
<ANNOTATION_DOCUMENT><TIER TIER_ID="&secret;&b;"/></ANNOTATION_DOCUMENT>"""


def test_entities_of_xml_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with pytest.raises(UserError, match="a document type"):
        read(tmp_path, "a.eaf", ENTITIES.format(secret=secret))


TABULAR = (
    "Observation id\tObservation date\tDescription\tObservation duration\tObservation type\t"
    "Source\tTime offset (s)\tMedia duration (s)\tFPS\tSubject\tBehavior\tBehavioral category\t"
    "Modifier #1\t"
    "Behavior type\tTime\tMedia file name\tImage index\tImage file path\tComment\n"
)


def tabular(*events, source="player #1:a.mp4", length="20.000", offset="0.0", fps="25.000"):
    about = f"o1\t2024-01-01 10:00:00\t\t30\tMedia file(s)\t{source}\t{offset}\t{length}\t{fps}"
    lines = (
        f"{about}\t{subject}\t{behaviour}\t\t{modifier}\t{kind}\t{time}\ta.mp4\tNA\tNA\t\n"
        for subject, behaviour, modifier, kind, time in events
    )
    return TABULAR + "".join(lines)


def test_boris_tabular(tmp_path):
    text = tabular(
        ("No focal subject", "rest", "", "START", "1.000"),
        ("rat 1", "rest", "", "START", "1.500"),
        ("rat 1", "sniff", "", "POINT", "2.000"),
        ("No focal subject", "rest", "", "STOP", "3.000"),
        ("rat 1", "rest", "deep", "STOP", "4.000"),
        ("rat 1", "rest", "", "STOP", "5.000"),
        ("rat 2", "run", "", "START", "6.000"),
        ("rat 2", "run", "", "START", "7.000"),
        ("rat 2", "run", "", "STOP", "8.000"),
        ("rat 2", "run", "", "START", "9.000"),
        ("rat 2", "run", "", "JUMP", "9.000"),
        ("rat 2", "", "", "START", "9.000"),
        ("rat 2", "run", "", "STOP", "nan"),
    )
    found = read(tmp_path, "o1.tsv", text)
    assert found.format == "boris-events"
    assert found.timelines == [
        Timeline(
            Path("a.mp4"),
            [
                Segment(1, 3, "rest"),
                Segment(1.5, 5, "rest", None, "rat 1"),
                Segment(2, 2, "sniff", None, "rat 1"),
                Segment(7, 8, "run", None, "rat 2"),
            ],
            20,
            25,
        )
    ]
    assert found.problems == [
        "o1.tsv, line 12: 'run' is neither START, STOP nor POINT: JUMP",
        "o1.tsv, line 13: there is no behavior",
        "o1.tsv, line 14: time of 'run' is not a number: 'nan'",
        "o1.tsv, line 6: STOP of 'rest' without a START",
        "o1.tsv, line 8: START of 'run' without a STOP",
        "o1.tsv, line 11: START of 'run' without a STOP",
    ]


def test_boris_with_several_media_and_an_offset(tmp_path):
    text = tabular(
        ("No focal subject", "rest", "", "START", "101.000"),
        ("No focal subject", "rest", "", "STOP", "112.000"),
        ("No focal subject", "sniff", "", "POINT", "110.000"),
        source="player #1:a.mp4;b.mp4|player #2:c.mp4",
        length="10.000;20.000|30.000",
        fps="25.000;50.000|25.000",
        offset="100.0",
    )
    assert read(tmp_path, "o1.tsv", text).timelines == [
        Timeline(Path("a.mp4"), [Segment(1, 10, "rest")], 10, 25),
        Timeline(Path("b.mp4"), [Segment(0, 0, "sniff"), Segment(0, 2, "rest")], 20, 50),
    ]


def test_boris_tabular_of_older_versions(tmp_path):
    text = (
        "Observation id\to1\t\t\nMedia file(s)\t\t\t\n\t\t\t\nPlayer #1\ta.mp4\t\t\n"
        "Time offset (s)\t0.5\t\t\n\t\t\t\n"
        "Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tComment\tStatus\n"
        "1.500\ta.mp4\t20.0\t25.0\trat\trest\t\tSTART\n2.500\ta.mp4\t20.0\t25.0\trat\trest\t\tSTOP\n"
        "30.000\tb.mp4\t20.0\t25.0\trat\tsniff\t\tPOINT\n"
    )
    found = read(tmp_path, "o1.tsv", text)
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(1, 2, "rest", None, "rat")], None, 25),
        Timeline(Path("b.mp4"), [], None, 25),
    ]
    assert found.problems == [
        "o1.tsv, line 10: how long 'a.mp4' is, which was shown before, is not known"
    ]


def test_boris_aggregated(tmp_path):
    found = read(
        tmp_path,
        "all.csv",
        "Observation id,Observation date,Description,Observation type,Source,Time offset (s),"
        "Coding duration,Media duration (s),FPS (frame/s),Subject,"
        "Observation duration by subject by observation,Behavior,Behavioral category,Behavior type,"
        "Start (s),Stop (s),Duration (s),Media file name,Comment start,Comment stop\n"
        "o1,2024-01-01,,Media file,player #1:a.mp4,0.0,9,20.000,25.000,rat,2,rest,Not defined,"
        "STATE,1.000,2.500,1.500,a.mp4,,\n"
        "o1,2024-01-01,,Media file,player #1:a.mp4,0.0,9,20.000,25.000,No focal subject,2,beep,"
        "Not defined,POINT,4.000,4.000,NA,a.mp4,,\n"
        "o2,2024-01-01,,Live observation,NA,0.0,9,NA,NA,rat,2,rest,Not defined,STATE,1.000,2.000,"
        "1.000,NA,,\n"
        "o2,2024-01-01,,Live observation,NA,0.0,9,NA,NA,rat,2,rest,Not defined,STATE,3.000,NA,"
        "NA,NA,,\n",
    )
    assert found.format == "boris-events"
    assert found.timelines == [
        Timeline(
            Path("a.mp4"),
            [Segment(1, 2.5, "rest", None, "rat"), Segment(4, 4, "beep")],
            20,
            25,
        ),
        Timeline(None, [Segment(1, 2, "rest", None, "rat")]),
    ]
    assert found.problems == ["all.csv, line 5: stop of 'rest' is not a number: 'NA'"]


def project(events, **changes):
    observation = {
        "file": {"1": ["a.mp4"], "2": []},
        "type": "MEDIA",
        "date": "2024-01-01T10:00:00",
        "time offset": 0.0,
        "events": events,
        "media_info": {"length": {"a.mp4": 20.0}, "fps": {"a.mp4": 25.0}},
    }
    return json.dumps(
        {
            "project_format_version": "7.0",
            "behaviors_conf": {
                "0": {"type": "State event", "code": "rest"},
                "1": {"type": "Point event with coding map", "code": "beep"},
            },
            "observations": {"o1": observation | changes},
        }
    )


def test_boris_project(tmp_path):
    events = [
        [1.0, "", "rest", "", ""],
        [1.5, "rat", "rest", "", "", 37],
        [2.0, "", "beep", "", ""],
        [3.0, "", "rest", "", ""],
        [4.0, "", "jump", "", ""],
        ["x", "", "rest", "", ""],
        7,
    ]
    found = read(tmp_path, "p.boris", project(events))
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(1, 3, "rest"), Segment(2, 2, "beep")], 20, 25)
    ]
    assert found.problems == [
        "p.boris, observation 'o1', event 5: 'jump' is not in the ethogram",
        "p.boris, observation 'o1', event 6: time of 'rest' is not a number: 'x'",
        "p.boris, observation 'o1', event 7: not a list of time, subject and behavior",
        "p.boris, observation 'o1', event 2: START of 'rest' without a STOP",
    ]


def test_a_live_observation_and_one_of_two_media(tmp_path):
    events = [[9.0, "", "rest", "", ""], [12.0, "", "rest", "", ""]]
    found = read(tmp_path, "p.boris", project(events, type="LIVE", file={}))
    assert found.timelines == [Timeline(None, [Segment(9, 12, "rest")])]
    media = {"length": {"a.mp4": 10, "b.mp4": 10}, "fps": {}}
    text = project(events, file={"1": ["a.mp4", "b.mp4"]}, media_info=media)
    assert read(tmp_path, "p.boris", text).timelines == [
        Timeline(Path("a.mp4"), [Segment(9, 10, "rest")], 10),
        Timeline(Path("b.mp4"), [Segment(0, 2, "rest")], 10),
    ]


def span(start, end, *labels):
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": list(labels)}
    return {
        "id": "x",
        "type": "timelinelabels",
        "from_name": "l",
        "to_name": "video",
        "value": value,
    }


def test_label_studio(tmp_path):
    box = {
        "type": "videorectangle",
        "value": {"framesCount": 250, "duration": 10.0, "sequence": []},
    }
    tasks = [
        {
            "id": 1,
            "data": {"video": "/data/upload/3/0a1b2c3d-a%20b.mp4"},
            "annotations": [
                {"result": [span(26, 50, "jump"), box, span(60, 55, "x")]},
                {"result": [span(1, 25, "run")], "was_cancelled": True},
            ],
            "predictions": [{"result": [span(1, 2, "hop")]}],
        },
        {
            "id": 2,
            "data": {"audio": "/data/local-files/?d=films/b.mp4", "title": "x", "fps": 50},
            "annotations": [],
            "predictions": [{"result": [{**span(51, 100, "run"), "score": 0.5}]}],
        },
        {
            "id": 3,
            "data": {"audio": "s3://bucket/films/c.wav"},
            "annotations": [
                {
                    "result": [
                        {"type": "labels", "value": {"start": 1.5, "end": 2, "labels": ["speech"]}},
                        {"type": "choices", "value": {"choices": ["good"]}},
                        span(1, 25, "run"),
                    ]
                }
            ],
        },
    ]
    found = read(tmp_path, "a.json", json.dumps(tasks))
    assert found.timelines == [
        Timeline(Path("a b.mp4"), [Segment(1, 2, "jump")], None, 25),
        Timeline(Path("films/b.mp4"), [Segment(1, 2, "run", 0.5)], None, 50),
        Timeline(Path("c.wav"), [Segment(1.5, 2, "speech")]),
    ]
    assert found.problems == [
        "a.json, task 1, result 3: end 55 is before start 60",
        "a.json, task 3, result 3: spans are counted in frames, and the frames per second are not "
        'known: say them, or put "fps" into the data of the task',
    ]
    assert read(tmp_path, "a.json", json.dumps(tasks), fps=25).timelines[2].segments == [
        Segment(0, 1, "run"),
        Segment(1.5, 2, "speech"),
    ]


def test_label_studio_min(tmp_path):
    task = {
        "video": "https://example.org/films/a.mp4?x=1",
        "id": 4,
        "videoLabels": [{"ranges": [{"start": 31, "end": 60}], "timelinelabels": ["jump", "run"]}],
        "annotator": 1,
    }
    found = read(tmp_path, "a.json", json.dumps([task]), fps=30)
    assert found.problems == []
    assert found.timelines == [
        Timeline(Path("a.mp4"), [Segment(1, 2, "jump"), Segment(1, 2, "run")], None, 30)
    ]


def test_text(tmp_path):
    video = Timeline(
        Path("a.mp4"),
        [
            Segment(12.4, 15.2, "jump", 0.93),
            Segment(59.999, 3723.4, "run away"),
            Segment(7e3, 7e3, "x", 1),
        ],
    )
    file = tmp_path / "a.txt"
    write_timelines([video], file, format="text")
    assert file.read_text(encoding="utf-8") == (
        "      0:12.40 – 0:15.20  jump      .93\n"
        "   1:00.00 – 1:02:03.40  run away\n"
        "1:56:40.00 – 1:56:40.00  x         1.00\n"
    )
    write_timelines([video, Timeline(None, [])], file, format="text")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "a.mp4:"
    assert lines[-1] == "a video without a name:"
    with pytest.raises(UserError, match="for people"):
        read_timelines(file, format="text")


def test_a_file_that_holds_one_video(tmp_path):
    videos = [Timeline(Path("x/a.mp4"), [Segment(0, 1, "jump")]), Timeline(None, [])]
    with pytest.raises(UserError, match="holds one video") as raised:
        write_timelines(videos, tmp_path / "all.srt")
    assert "jsonl" in (raised.value.hint or "")
    assert not (tmp_path / "all.srt").exists()


def test_the_format_of_a_suffix(tmp_path):
    video = Timeline(Path("a.mp4"), [Segment(0, 1, "jump")])
    assert FORMATS["audacity"].suffixes == FORMATS["text"].suffixes == (".txt",)
    for suffix, name in {
        ".csv": "csv",
        ".tsv": "csv",
        ".txt": "audacity",
        ".TextGrid": "textgrid",
    }.items():
        file = tmp_path / f"a{suffix}"
        write_timelines([video], file)
        assert read_timelines(file).format == name
    assert (tmp_path / "a.tsv").read_text().startswith("path\tstart\tend")
    file = tmp_path / "b.csv"
    write_timelines([video], file, format="boris-events")
    assert read_timelines(file).format == "boris-events"
