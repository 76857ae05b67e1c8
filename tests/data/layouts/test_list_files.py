from __future__ import annotations

import pytest
from trees import make_tree

from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UserError


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def rows(dataset):
    return {(clip.path.name, clip.label, clip.split) for clip in dataset.clips}


@pytest.mark.parametrize(
    ("videos", "lists"),
    [("", ""), ("videos/", ""), ("", "annotations/"), ("videos/", "annotations/")],
)
def test_paths_relative_to_the_list_or_a_folder_near(tmp_path, videos, lists):
    root = make_tree(
        tmp_path / "set", f"{videos}run/1.avi", f"{videos}run/my clip 2.avi", f"{videos}jump/3.avi"
    )
    write(root / lists / "x_train_list_videos.txt", "run/1.avi 0", "jump/3.avi 1")
    write(root / lists / "x_val_list_videos.txt", "run/my clip 2.avi 0", "gone.avi 1", "")
    dataset = read_dataset(root)
    assert dataset.layout == "list-files"
    assert rows(dataset) == {
        ("1.avi", "0", "train"), ("3.avi", "1", "train"), ("my clip 2.avi", "0", "val")
    }  # fmt: skip
    assert all(clip.path.exists() for clip in dataset.clips)
    assert dataset.problems == ["1 listed clips are missing: gone.avi"]
    assert dataset.split_source == "x_train_list_videos.txt, x_val_list_videos.txt"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "run\nlong jump\n"),
        ("label_map_k400.txt", "run\nlong jump\n"),
        ("classInd.txt", "0 run\r\n1 long jump\r\n"),
    ],
)
def test_names_of_classes(tmp_path, name, text):
    make_tree(tmp_path, "a.avi", "b.avi")
    write(tmp_path / "train.txt", "a.avi 0", "b.avi 1")
    (tmp_path / name).write_text(text)
    assert read_dataset(tmp_path).classes == ["long jump", "run"]


def test_labels_may_be_names(tmp_path):
    make_tree(tmp_path, "a.avi", "b.avi")
    write(tmp_path / "train.txt", "a.avi run", "b.avi\tlong jump")
    assert read_dataset(tmp_path).classes == ["long jump", "run"]


def test_frame_folders_with_their_numbers_of_frames(tmp_path):
    make_tree(tmp_path, *(f"raw frames/{c}/img_0000{i}.jpg" for c in ("a", "b 7") for i in (1, 2)))
    write(tmp_path / "hmdb51_train_split_1_rawframes.txt", "a 2 0", "b 7 2 1")
    write(tmp_path / "hmdb51_train_split_1_videos.txt", "a.avi 0", "b 7.avi 1")
    dataset = read_dataset(tmp_path)
    assert rows(dataset) == {("a", "0", "train"), ("b 7", "1", "train")}
    assert (dataset.split_number, dataset.problems) == ("1", [])


def test_numbered_splits(tmp_path):
    make_tree(tmp_path, "a.avi", "b.avi")
    for number, (train, test) in enumerate([("a", "b"), ("b", "a")], start=1):
        write(tmp_path / f"trainlist0{number}.txt", f"{train}.avi 0")
        write(tmp_path / f"testlist0{number}.txt", f"{test}.avi 0")
    assert rows(read_dataset(tmp_path)) == {("a.avi", "0", "train"), ("b.avi", "0", "test")}
    second = read_dataset(tmp_path, split="2")
    assert rows(second) == {("b.avi", "0", "train"), ("a.avi", "0", "test")}
    assert second.split_number == "2"
    with pytest.raises(UserError, match=r"(?s)no split '3'.*has: 1, 2"):
        read_dataset(tmp_path, split="3")


def test_one_list_alone(tmp_path):
    make_tree(tmp_path, "a.avi", "b.avi", "c.avi", "d.avi")
    write(tmp_path / "mine.txt", "a.avi x", "b.avi y", "c.avi", "d.avi 1 5 7 9")
    dataset = read_dataset(tmp_path / "mine.txt")
    assert (dataset.layout, dataset.name, dataset.split_source) == ("list-files", "mine", None)
    assert rows(dataset) == {("a.avi", "x", None), ("b.avi", "y", None), ("c.avi", None, None)}
    assert dataset.problems == ["1 lines with several labels were left out: d.avi 1 5 7 9"]


def test_lists_win_over_names_and_class_folders(tmp_path):
    make_tree(tmp_path, "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g02_c01.avi")
    assert read_dataset(tmp_path).layout == "ucf101"
    write(tmp_path / "train.txt", "Archery/v_Archery_g01_c01.avi 0")
    write(tmp_path / "test.txt", "Archery/v_Archery_g02_c01.avi 0")
    assert read_dataset(tmp_path).layout == "list-files"


@pytest.mark.parametrize("text", ["", "See the training log.", "\0\1\2", "nothing.avi 0\n"])
def test_other_texts_are_no_lists(tmp_path, text):
    make_tree(tmp_path, "run/1.avi", "jump/1.avi")
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\xff")
    assert read_dataset(tmp_path).layout == "class-folders"


def test_no_list(tmp_path):
    make_tree(tmp_path, "a.avi")
    with pytest.raises(UserError, match="no list of clips"):
        read_dataset(tmp_path, layout="list-files")


def test_a_line_that_is_too_long_for_a_name_is_one_problem(tmp_path):
    make_tree(tmp_path, "a.avi", "b.avi")
    write(tmp_path / "train.txt", "a.avi run", "x" * 5000, "b.avi jump", "y" * 300 + ".avi run")
    dataset = read_dataset(tmp_path)
    assert rows(dataset) == {("a.avi", "run", "train"), ("b.avi", "jump", "train")}
    (problem,) = dataset.problems
    assert problem.startswith("2 listed clips are missing: xxx")
    assert len(problem) < 600


def test_a_single_line_that_never_ends_is_quickly_read(tmp_path):
    make_tree(tmp_path, "a.avi")
    write(tmp_path / "train.txt", "a.avi run", "x " * 100_000)
    assert len(read_dataset(tmp_path).clips) == 1
