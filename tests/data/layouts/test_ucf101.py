from __future__ import annotations

import shutil

import pytest
from trees import make_tree

from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UserError

CLIPS = [f"{c}/v_{c}_g{g:02}_c01.avi" for c in ("Archery", "HandstandPushups") for g in (1, 8, 15)]


def write_lists(folder, numbers=(1, 2)):
    folder.mkdir(parents=True)
    (folder / "classInd.txt").write_bytes(b"1 Archery\r\n2 HandstandPushups\r\n")
    for n in numbers:
        test = [c for c in CLIPS if f"_g{(1, 8, 15)[n - 1]:02}_" in c]
        train = [f"{c} {1 + c.startswith('H')}" for c in CLIPS if c not in test]
        (folder / f"testlist0{n}.txt").write_bytes("\r\n".join(test).encode())
        (folder / f"trainlist0{n}.txt").write_bytes("\r\n".join([*train, ""]).encode())


@pytest.mark.parametrize("place", ["UCF-101/ucfTrainTestlist", "ucfTrainTestlist"])
def test_lists_inside_or_beside(tmp_path, place):
    root = make_tree(tmp_path / "UCF-101", *CLIPS)
    write_lists(tmp_path / place)
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.name, dataset.problems) == ("ucf101", "UCF-101", [])
    assert dataset.split_source == "ucfTrainTestlist/trainlist01.txt, testlist01.txt"
    assert dataset.split_number == "1"
    assert dataset.count("split") == {"train": 4, "test": 2}
    test = {clip.group for clip in read_dataset(root, split="2").clips if clip.split == "test"}
    assert test == {"Archery/g08", "HandstandPushups/g08"}
    with pytest.raises(UserError, match=r"(?s)no split '3'.*has: 1, 2"):
        read_dataset(root, split="3")


def test_the_folder_above_both_works_too(tmp_path):
    make_tree(tmp_path / "UCF-101", *CLIPS)
    write_lists(tmp_path / "ucfTrainTestlist")
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "ucf101"
    assert dataset.count("split") == {"train": 4, "test": 2}


@pytest.mark.parametrize("folder", ["HandStandPushups", "HandstandPushups"])
@pytest.mark.parametrize("file", ["HandStandPushups", "HandstandPushups"])
def test_the_class_of_two_spellings(tmp_path, folder, file):
    names = [c.replace("v_Handstand", "v_" + file[:9]) for c in CLIPS]
    names = [n.replace("HandstandPushups/", folder + "/") for n in names]
    root = make_tree(tmp_path / "UCF-101", *names)
    alone = read_dataset(root)
    assert alone.classes == ["Archery", folder]
    write_lists(root / "ucfTrainTestlist")
    dataset = read_dataset(root)
    assert dataset.classes == ["Archery", "HandstandPushups"]
    assert dataset.problems == []
    assert dataset.count("split") == {"train": 4, "test": 2}


def test_what_lists_and_folder_disagree_on_is_reported(tmp_path):
    root = make_tree(
        tmp_path / "u",
        *CLIPS[1:],
        "Archery/v_Archery_g99_c01.avi",
        "Archery/holiday.avi",
        "copy/v_Archery_g08_c01.mp4",
    )
    write_lists(root / "ucfTrainTestlist")
    dataset = read_dataset(root)
    assert dataset.count("split") == {"train": 4, "test": 1, None: 1}
    assert dataset.problems == [
        "1 videos not named v_<class>_gNN_cMM were left out: holiday.avi",
        "1 clips are there twice under one name: the first was taken: v_Archery_g08_c01.mp4",
        "1 listed clips are missing: v_Archery_g01_c01.avi",
        "1 clips are on no list and belong to no part of the split: v_Archery_g99_c01.avi",
    ]


def test_names_alone_give_groups_and_no_split(tmp_path):
    root = make_tree(tmp_path / "u", *CLIPS)
    dataset = read_dataset(root)
    assert (dataset.layout, dataset.split_source, dataset.split_number) == ("ucf101", None, None)
    assert dataset.clips[0].group == "Archery/g01"
    assert dataset.count("split") == {None: 6}
    with pytest.raises(UserError, match="no ucfTrainTestlist was found"):
        read_dataset(root, split="1")


def test_train_and_test_folders_win_over_names_alone(tmp_path):
    root = make_tree(tmp_path / "u", f"train/{CLIPS[0]}", f"test/{CLIPS[1]}")
    assert read_dataset(root).layout == "split-folders"


def test_lists_without_videos(tmp_path):
    write_lists(tmp_path / "ucfTrainTestlist")
    with pytest.raises(UserError, match=r"no usable clip.*6 listed clips are missing"):
        read_dataset(tmp_path)


def test_real_clips(reference_data):
    dataset = read_dataset(reference_data("real_clips/ucf101"))
    assert (dataset.layout, len(dataset.clips), dataset.problems) == ("ucf101", 10, [])
    assert dataset.count("group")["Biking/g01"] == 2


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory, reference_data):
    """All of UCF101 as empty files, with the capital S that its files have on disk."""
    lists = reference_data("splits/ucfTrainTestlist")
    root = tmp_path_factory.mktemp("ucf") / "UCF-101"
    shutil.copytree(lists, root.parent / lists.name)
    for number in (1, 2, 3):
        for file in ("train", "test"):
            for line in (lists / f"{file}list0{number}.txt").read_text().splitlines():
                name = line.split()[0].replace("v_HandstandPushups", "v_HandStandPushups")
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("split", "train", "test"), [(None, 9537, 3783), ("2", 9586, 3734), ("3", 9624, 3696)]
)
def test_official_counts(ucf101, split, train, test):
    dataset = read_dataset(ucf101, split=split)
    assert dataset.problems == []
    assert dataset.count("split") == {"train": train, "test": test}
    assert (len(dataset.classes), len(dataset.count("group"))) == (101, 2525)
