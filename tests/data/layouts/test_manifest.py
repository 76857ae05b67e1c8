from __future__ import annotations

import json
import sys

import pytest
from trees import make_tree

from vidfuse.data.layouts import manifest, read_dataset
from vidfuse.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return make_tree(tmp_path / "set", "a.avi", "b.avi", "c, d.avi", "sub/e.avi")


def read(folder, text, name="manifest.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return read_dataset(folder)


def rows(dataset):
    return [(c.path.name, c.label, c.group, c.split, c.start, c.end) for c in dataset.clips]


def test_all_columns(folder):
    dataset = read(
        folder,
        "path,label,group,split,start,end\n"
        "a.avi,jump,p1,training,0,1.5\n"
        "a.avi,run,p1,train,1.5,\n"
        '"c, d.avi",run,p2,valid,,\n'
        "sub/e.avi,,,Testing,,3\n"
        "b.avi,run,,,,\n",
    )
    assert rows(dataset) == [
        ("a.avi", "jump", "p1", "train", 0.0, 1.5),
        ("a.avi", "run", "p1", "train", 1.5, None),
        ("c, d.avi", "run", "p2", "val", None, None),
        ("e.avi", None, None, "test", None, 3.0),
        ("b.avi", "run", None, None, None, None),
    ]
    assert dataset.problems == []
    assert (dataset.name, dataset.layout) == ("set", "manifest")
    assert dataset.split_source == "manifest.csv, column split"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffPATH , Label\r\na.avi, jump\r\n\r\nb.avi,run\r\n",
        "path;label\na.avi;jump\n;\nb.avi;run\n",
        "label\tpath\njump\ta.avi\nrun\tb.avi\n",
        "\n\nid,path,label,note,label2\n1,a.avi,jump,x,y\n2,b.avi,run\n",
        "path,label\rа.avi,jump\ra.avi,jump\rb.avi,run\r",
        "\ufeffpath,label\na.avi,jump\nb.avi,run\n".encode("utf-16-le"),
        'path,label,,\n"a.avi","jump",,\nb.avi,run,,\n,,,\n',
    ],
)
def test_spreadsheet_habits(folder, text):
    assert [row[:2] for row in rows(read(folder, text))] == [("a.avi", "jump"), ("b.avi", "run")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",jump,,,", "the path is empty"),
        ("b.avi,jump,,2,1", "start 2 is not before end 1"),
        ("b.avi,jump,,1,1", "start 1 is not before end 1"),
        ("b.avi,jump,,-1,", "start is not a time in seconds: '-1'"),
        ("b.avi,jump,,nan,", "start is not a time in seconds: 'nan'"),
        ("b.avi,jump,,,inf", "end is not a time in seconds: 'inf'"),
        ("b.avi,jump,,,0", "start 0 is not before end 0"),
        ("b.avi,jump,,soon,", "start is not a time in seconds: 'soon'"),
        ("b.avi,jump,dev?,,", "unknown split 'dev?'"),
        ("nope.avi,jump,,,", "there is no file"),
        ("sub,jump,,,", "is a folder without frames"),
        ("c, d.avi,jump,test,1,2", "6 cells under 5 columns"),
        ("a.avi,jump,,,", "the same as line 2, left out"),
        ("./sub/../a.avi,jump,,0,", "the same as line 2, left out"),
    ],
)
def test_a_bad_row_is_left_out_and_reported(folder, row, reason):
    dataset = read(folder, f"path,label,split,start,end\na.avi,jump,,,\n\n{row}\nb.avi,run,,,\n")
    assert [r[0] for r in rows(dataset)] == ["a.avi", "b.avi"]
    (problem,) = dataset.problems
    assert problem.startswith("manifest.csv, line 4: ")
    assert reason in problem


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [("label", "jump", "run"), ("group", "p1", "p2"), ("split", "train", "test")],
)
def test_rows_that_contradict_each_other_are_kept_and_reported(folder, column, one, other):
    dataset = read(folder, f"path,{column}\na.avi,{one}\na.avi,{other}\n")
    assert len(dataset.clips) == 2
    (problem,) = dataset.problems
    assert f"has {column} '{other}' here and '{one}' on line 2" in problem


def lines_run(module, action):
    """How many lines of a module an action runs."""
    count = 0

    def within(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return within

    def entered(frame, _event, _argument):
        return within if frame.f_code.co_filename == module.__file__ else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def test_rows_on_one_clip_are_not_all_compared_with_each_other(folder):
    """With 20,000 of them that took minutes."""

    def work(rows):
        text = "\n".join(["path,label", *(f"a.avi,{number}" for number in range(rows))])
        return lines_run(manifest, lambda: read(folder, text))

    assert work(400) < 5 * work(100)


def test_the_first_row_is_named_by_all_that_contradict_it(folder):
    dataset = read(folder, "path,label\na.avi,0\na.avi,1\na.avi,2\na.avi,1\n")
    assert len(dataset.clips) == 3
    assert "has label '2' here and '0' on line 2; both rows were kept" in dataset.problems[1]
    assert dataset.problems[2].endswith("line 5: the same as line 3, left out")


def test_an_open_quote_is_named_where_it_begins(folder):
    dataset = read(folder, 'path,label\na.avi,jump\n"b.avi,run\nsub/e.avi,run\n')
    assert [r[0] for r in rows(dataset)] == ["a.avi"]
    assert "line 3: a cell runs on to line 4" in dataset.problems[0]


def test_an_open_quote_in_a_long_file_is_an_error(folder):
    with pytest.raises(UserError, match="line 2 cannot be read"):
        read(folder, 'path,label\n"a.avi,jump\n' + "b.avi,run\n" * 20_000)


def test_json_lines(folder):
    lines = [
        json.dumps({"path": "a.avi", "label": 3, "end": 2.5, "more": [1]}),
        "",
        json.dumps({"Path": "b.avi", "label": None, "split": "test", "start": "1"}),
        "{broken",
        "[1, 2]",
        json.dumps({"path": "b.avi", "label": ["x"]}),
        json.dumps({"path": "b.avi", "start": True}),
        json.dumps({"path": "b.avi", "start": float("nan")}),
        json.dumps({"label": "x"}),
        r'{"path": "b.avi", "label": "\ud800"}',
        r'{"path": "b\u0000.avi"}',
    ]
    dataset = read(folder, "\r\n".join(lines), "manifest.jsonl")
    assert rows(dataset) == [
        ("a.avi", "3", None, None, None, 2.5),
        ("b.avi", None, None, "test", 1.0, None),
    ]
    assert [p.split(":")[0] for p in dataset.problems] == [
        f"manifest.jsonl, line {n}" for n in range(4, 12)
    ]


def test_the_manifest_itself_can_be_given(folder):
    (folder / "mine.csv").write_text("path,label\nsub\\e.avi,jump\n")
    dataset = read_dataset(folder / "mine.csv")
    assert dataset.name == "mine"
    assert dataset.clips[0].path == folder / "sub/e.avi"


def test_a_frame_folder_is_a_clip(folder):
    make_tree(folder, "frames/1.jpg", "frames/2.jpg")
    assert rows(read(folder, "path,label\nframes,jump\n"))[0][0] == "frames"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,class\na.avi,jump\n", "no column 'path'"),
        ("a.avi,jump\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,label,Path\na.avi,x,y\n", "a column occurs twice"),
        ("path,label\n", "no usable clip"),
        (
            "path,label\nx.avi,jump\ny.avi,run\n",
            r"no usable clip.*line 2: there is no.*line 3",
        ),
        (b"path,label\nb\xe9.avi,x\n", "line 2 is not UTF-8"),
    ],
)
def test_manifests_that_are_errors(folder, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(folder, text)
    assert caught.value.hint


def test_json_lines_without_paths(folder):
    with pytest.raises(UserError, match="no line is a JSON object with a 'path'"):
        read(folder, '{"video": "a.avi"}\n', "manifest.jsonl")


def test_numbered_splits(folder):
    (folder / "manifest.csv").write_text("path,label,split\na.avi,x,train\nb.avi,x,test\n")
    assert read_dataset(folder, split="1").split_source
    with pytest.raises(UserError, match="no split '2'"):
        read_dataset(folder, split="2")
    (folder / "manifest.csv").write_text("path,label\na.avi,x\n")
    with pytest.raises(UserError, match="no official split"):
        read_dataset(folder, split="1")


def test_real_manifests(reference_data):
    dataset = read_dataset(reference_data("ut_interaction"))
    assert (len(dataset.clips), len(dataset.classes)) == (60, 6)
    assert len(dataset.count("group")) == 10
    assert dataset.problems == []
