from __future__ import annotations

import pytest
from trees import make_tree

from vidfuse.data.layouts import hmdb51, read_dataset
from vidfuse.errors import UserError

CLIPS = {
    "brush_hair/Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_le_goo_1.avi": "1",
    "brush_hair/Faith_Rewarded_brush_hair_u_nm_np1_fr_med_0.avi": "2",
    "catch/Goalkeeper_Training_Day_#_7_catch_f_cm_np1_le_bad_3.avi": "1",
    "catch/Goalkeeper_Training_Day_#_2_catch_f_cm_np1_fr_bad_2.avi": "0",
    "draw_sword/VERGIL_(DEVIL_MAY_CRY)_swinging_his_sword_draw_sword_f_cm_np1_fr_med_0.avi": "2",
    "sword_exercise/VERGIL_(DEVIL_MAY_CRY)_swinging_his_sword_sword_exercise_f_cm_np1_fr_med_5.avi": "1",  # noqa: E501
    "hug/Cox_&_J.D.;_hug_u_cm_np2_ba_med_0.avi": "2",
}


def write_lists(folder, number=1, swap=False):
    folder.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {}
    for clip, code in CLIPS.items():
        label, name = clip.split("/")
        code = {"1": "2", "2": "1"}.get(code, code) if swap else code
        lines.setdefault(label, []).append(f"{name} {code} ")
    for label, rows in lines.items():
        (folder / f"{label}_test_split{number}.txt").write_text("\r\n".join([*rows, ""]))


@pytest.mark.parametrize(
    "place",
    ["set/testTrainMulti_7030_splits", "testTrainMulti_7030_splits", "set",
     "test_train_splits/testTrainMulti_7030_splits"],
)  # fmt: skip
def test_lists_inside_or_beside(tmp_path, place):
    root = make_tree(tmp_path / "set", *CLIPS)
    write_lists(tmp_path / place)
    write_lists(tmp_path / place, 2, swap=True)
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.split_number, dataset.problems) == ("hmdb51", "1", [])
    assert dataset.count("split") == {"train": 3, "test": 3, None: 1}
    assert dataset.classes == sorted({name.split("/")[0] for name in CLIPS})
    assert dataset.split_source == f"{(tmp_path / place).name}, split 1"
    second = read_dataset(root, split="2")
    assert {c.path.name for c in second.clips if c.split == "train"} == {
        c.path.name for c in dataset.clips if c.split == "test"
    }
    with pytest.raises(UserError, match=r"(?s)no split '3'.*has: 1, 2"):
        read_dataset(root, split="3")


def test_groups_are_films(tmp_path):
    root = make_tree(tmp_path, *CLIPS)
    groups = {clip.path.parent.name: clip.group for clip in read_dataset(root).clips}
    assert groups["sword_exercise"] == "VERGIL_(DEVIL_MAY_CRY)_swinging_his_sword"
    assert groups["draw_sword"] == groups["sword_exercise"]
    assert groups["catch"] == "Goalkeeper_Training_Day"
    assert read_dataset(root).count("group")["Goalkeeper_Training_Day"] == 2


@pytest.mark.parametrize(
    ("stem", "folder", "film", "label"),
    [
        ("A_draw_sword_f_cm_np1_fr_med_0", None, "A", "draw_sword"),
        ("A_draw_sword_f_cm_np1_fr_med_0", "sword", "A_draw", "sword"),
        ("Finding_Forrester_3_clap_u_nm_np1_ri_med_0", None, "Finding_Forrester", "clap"),
        ("kick_ball_kick_f_cm_np2_ba_bad_12", "kick", "kick_ball", "kick"),
        ("2012_run_f_cm_np2_ba_bad_1", None, "2012", "run"),
        ("Film_my_class_f_cm_np2_ba_bad_1", "my_class", "Film", "my_class"),
    ],
)
def test_names_are_read_through_the_class(stem, folder, film, label):
    assert hmdb51.split_name(stem, folder) == (film, label)


@pytest.mark.parametrize("stem", ["v_Archery_g01_c01", "run_f_cm_np1_fr_med_0", "a_run_f_cm_fr_0"])
def test_other_names(stem):
    assert hmdb51.split_name(stem) is None


def test_a_flat_folder_of_frame_folders(tmp_path):
    names = [name.split("/")[1].removesuffix(".avi") for name in CLIPS]
    root = make_tree(tmp_path / "frames", *(f"{n}/{i}.jpg" for n in names for i in (1, 2)))
    write_lists(tmp_path / "testTrainMulti_7030_splits")
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.problems) == ("hmdb51", [])
    assert dataset.count("split") == {"train": 3, "test": 3, None: 1}


def test_one_list_for_each_part(tmp_path):
    root = make_tree(tmp_path / "set", *CLIPS)
    parts = {"1": "train", "2": "test", "0": "test"}
    for part in ("train", "test"):
        lines = [c.split("/")[1][:-4] + " 3" for c, code in CLIPS.items() if parts[code] == part]
        (root / f"{part}list01.txt").write_text("\n".join(lines))
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.problems) == ("hmdb51", [])
    assert dataset.count("split") == {"train": 3, "test": 4}


def test_what_lists_and_folder_disagree_on_is_reported(tmp_path):
    root = make_tree(
        tmp_path, *list(CLIPS)[1:], "hug/holiday.avi", "hug/New_hug_u_cm_np2_ba_med_0.avi"
    )
    write_lists(root / "testTrainMulti_7030_splits")
    (root / "testTrainMulti_7030_splits" / "hug_test_split1.txt").open("a").write("odd 7\n")
    problems = read_dataset(root, layout="hmdb51").problems
    assert problems[0].startswith("1 lines of the lists are not 'name 0|1|2'")
    assert problems[1] == "1 videos not named <film>_<class>_…_<n> were left out: holiday.avi"
    assert problems[2].startswith("1 listed clips are missing: Brushing_Her_Hair")
    assert problems[3].startswith("1 clips are on no list and belong to no part: New_hug")


def test_no_lists(tmp_path):
    root = make_tree(tmp_path, *CLIPS)
    assert read_dataset(root).split_source is None
    with pytest.raises(UserError, match="no testTrainMulti_7030_splits was found"):
        read_dataset(root, split="1")


def test_train_and_test_folders_win_over_names_alone(tmp_path):
    names = list(CLIPS)
    root = make_tree(tmp_path, f"train/{names[0]}", f"test/{names[1]}")
    assert read_dataset(root).layout == "split-folders"


def test_the_real_names(tmp_path, reference_data):
    """Every name of the first official split, as an empty file."""
    lists = reference_data("splits/hmdb51")
    labels: dict[str, set[str]] = {}
    for part in ("train", "test"):
        text = (lists / f"{part}list01.txt").read_text()
        (tmp_path / f"{part}list01.txt").write_text(text)
        for line in text.splitlines():
            name, number = line.rsplit(None, 1)
            (tmp_path / "videos").mkdir(exist_ok=True)
            (tmp_path / "videos" / f"{name}.avi").touch()
            named = hmdb51.split_name(name)
            assert named is not None
            labels.setdefault(number, set()).add(named[1])
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, dataset.problems) == ("hmdb51", [])
    assert dataset.count("split") == {"train": 3570, "test": 1530}
    assert len(dataset.classes) == 51
    assert all(len(names) == 1 for names in labels.values())  # names agree with class numbers
    assert len(dataset.count("group")) > 1000
