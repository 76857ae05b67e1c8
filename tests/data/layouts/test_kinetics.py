from __future__ import annotations

import pytest
from trees import make_tree

from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UserError

TABLE = """\
label,youtube_id,time_start,time_end,split,is_cc
playing guitar,-AbC_1xY2zA,1,11,train,0
playing guitar,bbbbbbbbbbb,100,110,train,0
"eating, fast",ccccccccccc,3,13,validate,0
"eating, fast",ccccccccccc,33.5,43.5,validate,0
,ddddddddddd,0,10,test,1
eating,eeeeeeeeeee,5,15,train,0
eating,fffffffffff,9,x,train,0
"""


@pytest.mark.parametrize(
    "places",
    [
        ["playing guitar/", "eating, fast/", ""],
        ["playing_guitar/", "eating_fast/", ""],
        ["train/playing guitar/", "val/eating, fast/", "test/"],
        ["", "", ""],
    ],
)
def test_trimmed_and_whole_videos(tmp_path, places):
    guitar, eating, test = places
    root = make_tree(
        tmp_path / "k400",
        f"{guitar}-AbC_1xY2zA_000001_000011.mp4",
        f"{guitar}bbbbbbbbbbb.webm",
        f"{eating}ccccccccccc.mp4",
        f"{test}ddddddddddd_000000_000010.mp4",
        f"{test}stray_000000_000010.mp4",
    )
    (root / "table.csv").write_bytes(b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode())
    for path in (root, root / "table.csv"):
        dataset = read_dataset(path)
        assert dataset.layout == "kinetics"
        rows = {(c.label, c.group, c.split, c.start, c.end, c.path.suffix) for c in dataset.clips}
        assert rows == {
            ("playing guitar", "-AbC_1xY2zA", "train", None, None, ".mp4"),
            ("playing guitar", "bbbbbbbbbbb", "train", 100, 110, ".webm"),
            ("eating, fast", "ccccccccccc", "val", 3, 13, ".mp4"),
            ("eating, fast", "ccccccccccc", "val", 33.5, 43.5, ".mp4"),
            (None, "ddddddddddd", "test", None, None, ".mp4"),
        }
        assert dataset.split_source == "table.csv"
        assert dataset.problems == [
            "1 rows of table.csv have no times that make sense: line 8",
            "1 listed clips are missing: eeeeeeeeeee_000005_000015",
            "1 videos are in no table and were left out: stray_000000_000010.mp4",
        ]


@pytest.mark.parametrize("folder", ["", "annotations/"])
def test_one_table_for_each_part(tmp_path, folder):
    root = make_tree(tmp_path, "a/x_000001_000011.mp4", "a/y_000001_000011.mp4", folder or "a/")
    for part, name in (("train", "x"), ("val", "y")):
        (tmp_path / folder / f"kinetics_{part}.csv").write_text(
            f"label,youtube_id,time_start,time_end\na,{name},1,11\n"
        )
    dataset = read_dataset(root, split="1")
    assert dataset.count("split") == {"train": 1, "val": 1}
    assert dataset.split_source == "kinetics_train.csv, kinetics_val.csv"
    with pytest.raises(UserError, match="no split '2'"):
        read_dataset(root, split="2")


def test_a_manifest_of_the_users_own_wins(tmp_path):
    make_tree(tmp_path, "x_000001_000011.mp4")
    (tmp_path / "table.csv").write_text(TABLE)
    (tmp_path / "manifest.csv").write_text("path,label\nx_000001_000011.mp4,a\n")
    assert read_dataset(tmp_path).layout == "manifest"


def test_no_table(tmp_path):
    make_tree(tmp_path, "x.mp4")
    with pytest.raises(UserError, match="no table of Kinetics"):
        read_dataset(tmp_path, layout="kinetics")


def test_no_video_left(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    with pytest.raises(UserError, match=r"no usable clip.*listed clips are missing"):
        read_dataset(tmp_path)
