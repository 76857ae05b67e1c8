from __future__ import annotations

import pytest
from trees import make_tree

from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UserError

NAMES = [f"person{p:02}_{a}_d1_uncomp.avi" for p in (1, 2, 11) for a in ("boxing", "jogging")]
SEQUENCES = """\
The frames of each segment, counted from 1:

person01_boxing_d1\t\tframes\t1-95, 96-185, 186-245, 246-360
person01_jogging_d1\t\tframes\t1-50, 120-170, 250-300
person02_boxing_d1    frames\t1-64, 270-332, 194-264, 253-500
person02_jogging_d1\t*missing*
person11_boxing_d1\tframes\t10-5, 7-9
person11_jogging_d1\tframes\t1-9
person12_boxing_d1\tframes\t1-9
"""


@pytest.mark.parametrize("place", ["kth", "."])
@pytest.mark.parametrize("flat", [True, False])
def test_segments_inside_or_beside(tmp_path, place, flat):
    names = NAMES if flat else [f"{name.split('_')[1]}/{name}" for name in NAMES]
    root = make_tree(tmp_path / "kth", *names)
    (tmp_path / place / "00sequences.txt").write_bytes(
        SEQUENCES.replace("\n", "\r\n").encode("ascii")
    )
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.split_number) == ("kth", "1")
    first = [clip for clip in dataset.clips if clip.path.name.startswith("person01_boxing")]
    assert [(clip.start, clip.end) for clip in first] == [
        (0, 3.8), (3.8, 7.4), (7.4, 9.8), (9.8, 14.4)
    ]  # fmt: skip
    assert {(c.label, c.group, c.split) for c in first} == {("boxing", "person01", "val")}
    assert dataset.count("group") == {"person01": 7, "person02": 5, "person11": 2}
    assert dataset.problems == [
        "1 lines of 00sequences.txt have segments that cannot be used: "
        "person11_boxing_d1\tframes\t10-5, 7-9",
        "1 listed videos are missing: person12_boxing_d1",
        "1 videos are not in 00sequences.txt: taken as one clip each: "
        "person02_jogging_d1_uncomp.avi",
    ]


def test_what_cannot_be_read_as_a_segment_is_reported(tmp_path):
    root = make_tree(tmp_path, *NAMES)
    lines = ["person01_boxing_d1 frames 1-9, 10_20, 30-40", "person01_boxing_d1 frames 1-9"]
    lines += ["person02_boxing_d1 frames 1-9,", "person11_boxing_d1 frames"]
    (root / "00sequences.txt").write_text("\n".join(lines))
    problems = read_dataset(root).problems
    assert problems[0].startswith("3 lines of 00sequences.txt have segments that cannot be used")
    assert problems[1].startswith("1 lines of 00sequences.txt are of a video that an earlier one")


def test_without_the_file_each_video_is_a_clip(tmp_path):
    root = make_tree(tmp_path, *NAMES, "notes.txt", "other.avi")
    dataset = read_dataset(root, layout="kth")
    assert dataset.count("split") == {"train": 2, "val": 2, "test": 2}
    assert {clip.start for clip in dataset.clips} == {None}
    assert "each video is one clip" in dataset.problems[0]
    assert "1 videos not named personNN" in dataset.problems[1]


def test_the_split_is_by_person(tmp_path):
    root = make_tree(tmp_path, *(f"person{p:02}_walking_d4.avi" for p in range(1, 26)))
    parts = read_dataset(root).count("split")
    assert parts == {"train": 8, "val": 8, "test": 9}
    with pytest.raises(UserError, match="no split '2'"):
        read_dataset(root, split="2")


def test_train_and_test_folders_win(tmp_path):
    root = make_tree(tmp_path, f"train/a/{NAMES[0]}", f"test/a/{NAMES[2]}")
    assert read_dataset(root).layout == "split-folders"


def test_all_of_the_dataset(tmp_path, reference_data):
    """Its 599 files, empty, with its own table of segments."""
    text = reference_data("splits/kth/00sequences.txt").read_text()
    (tmp_path / "00sequences.txt").write_text(text)
    actions = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
    names = [
        f"{action}/person{person:02}_{action}_d{scenario}_uncomp.avi"
        for person in range(1, 26)
        for action in actions
        for scenario in range(1, 5)
    ]
    names.remove("handclapping/person13_handclapping_d3_uncomp.avi")
    dataset = read_dataset(make_tree(tmp_path, *names))
    assert (len(dataset.clips), dataset.problems) == (2391, [])
    assert dataset.count("split") == {"train": 760, "val": 768, "test": 863}
