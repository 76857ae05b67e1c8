from __future__ import annotations

from collections import Counter

import pytest
from trees import make_tree

from vidfuse.data.layouts import read_dataset
from vidfuse.errors import UnknownNameError, UserError


def labels(dataset):
    return Counter((clip.split, clip.label) for clip in dataset.clips)


class TestClassFolders:
    def test_every_folder_is_a_class(self, tmp_path):
        make_tree(
            tmp_path,
            "run/1.avi", "run/day 2/deep/2.avi", "jump/x/1.mp4", "empty/", "notes/readme.txt",
            ".cache/a.avi", "__MACOSX/run/1.avi", "loose.avi", "run/info.txt",
        )  # fmt: skip
        dataset = read_dataset(tmp_path)
        assert dataset.layout == "class-folders"
        assert labels(dataset) == {(None, "run"): 2, (None, "jump"): 1}
        assert dataset.split_source is None
        assert dataset.name == tmp_path.name
        assert {clip.group for clip in dataset.clips} == {None}
        assert len(dataset.problems) == 3
        assert "empty: no video" in dataset.problems[0]
        assert "notes: no video" in dataset.problems[1]
        assert "1 videos outside any class folder" in dataset.problems[2]

    def test_frame_folders_are_clips(self, tmp_path):
        make_tree(tmp_path, *(f"{c}/v{v}/{i}.jpg" for c in "ab" for v in (1, 2) for i in (1, 2)))
        assert labels(read_dataset(tmp_path)) == {(None, "a"): 2, (None, "b"): 2}

    def test_links_do_not_bring_in_other_classes(self, tmp_path):
        make_tree(tmp_path, "run/1.avi", "jump/1.avi")
        (tmp_path / "run/loop").symlink_to(tmp_path)
        assert labels(read_dataset(tmp_path)) == {(None, "run"): 1, (None, "jump"): 1}

    def test_linked_class_folders_are_read(self, tmp_path):
        make_tree(tmp_path, "store/run/1.avi", "set/jump/1.avi")
        (tmp_path / "set/run").symlink_to(tmp_path / "store/run")
        assert labels(read_dataset(tmp_path / "set")) == {(None, "run"): 1, (None, "jump"): 1}

    def test_a_folder_too_high_is_noticed(self, tmp_path):
        make_tree(tmp_path, "videos/run/1.avi", "videos/jump/1.avi")
        (problem,) = read_dataset(tmp_path).problems
        assert f"if these are the classes, give {tmp_path / 'videos'}" in problem

    def test_no_numbered_split(self, tmp_path):
        make_tree(tmp_path, "run/1.avi", "jump/1.avi")
        with pytest.raises(UserError, match="no official split"):
            read_dataset(tmp_path, split="1")


class TestSplitFolders:
    def test_parts_and_classes(self, tmp_path):
        make_tree(
            tmp_path,
            "Training/run/1.avi", "Training/jump/s/1.avi", "valid/run/2.avi", "valid/jump/2.avi",
            "testing/run/3.avi", "testing/jump/3.avi", "annotations/a.txt",
        )  # fmt: skip
        dataset = read_dataset(tmp_path)
        assert dataset.layout == "split-folders"
        assert dataset.split_source == "folders Training, valid, testing"
        assert labels(dataset) == Counter(
            (p, c) for p in ("train", "val", "test") for c in ("run", "jump")
        )
        assert dataset.problems == []

    def test_lonely_and_empty_classes_are_reported(self, tmp_path):
        make_tree(
            tmp_path,
            "train/run/1.avi", "train/jump/1.avi", "train/void/", "val/run/1.avi", "val/hop/1.avi",
            "test/run/1.avi", "test/hop/1.avi", "test/loose.avi",
        )  # fmt: skip
        problems = read_dataset(tmp_path).problems
        assert len(problems) == 4
        assert "void: no video" in problems[0]
        assert "1 videos outside any class folder" in problems[1]
        assert problems[2] == "class 'hop' is in val and test, but not in train"
        assert problems[3] == "class 'jump' is in train only"

    def test_train_can_be_a_class(self, tmp_path):
        make_tree(tmp_path, "train/a/1.avi", "bus/1.avi", "plane/1.avi")
        dataset = read_dataset(tmp_path)
        assert dataset.layout == "class-folders"
        assert dataset.classes == ["bus", "plane", "train"]

    def test_parts_without_class_folders_are_not_classes(self, tmp_path):
        make_tree(tmp_path, "train/1.avi", "test/2.avi")
        with pytest.raises(UserError, match=r"not a dataset.*2 folders \(test, train\)"):
            read_dataset(tmp_path)

    def test_named_layout_without_train(self, tmp_path):
        make_tree(tmp_path, "test/run/1.avi")
        with pytest.raises(UserError, match="needs a folder 'train'"):
            read_dataset(tmp_path, layout="split-folders")


class TestReadDataset:
    def test_a_manifest_wins_and_a_layout_can_be_named(self, tmp_path):
        make_tree(tmp_path, "train/run/1.avi", "test/run/2.avi")
        (tmp_path / "manifest.csv").write_text("path,label\ntrain/run/1.avi,x\n")
        assert read_dataset(tmp_path).layout == "manifest"
        assert read_dataset(str(tmp_path), layout="split-folders").classes == ["run"]

    def test_unknown_layout(self, tmp_path):
        with pytest.raises(UnknownNameError, match="Did you mean 'class-folders'"):
            read_dataset(tmp_path, layout="class-folder")

    def test_rules_of_splitting_are_no_numbers(self, tmp_path):
        make_tree(tmp_path, "run/1.avi", "jump/1.avi")
        assert read_dataset(tmp_path, split="group").split_number is None

    @pytest.mark.parametrize(
        ("names", "path", "message"),
        [
            (["a.avi"], "nope", "no such file or folder"),
            (["empty/"], "empty", "the folder is empty"),
            (["hidden/.DS_Store"], "hidden", "the folder is empty"),
            (["a.avi"], "a.avi", "(?s)not a manifest.*predict"),
            (["a.txt"], "a.txt", "not a manifest"),
            (["x/a.avi", "x/b.txt"], "x", r"found 0 folders, 1 videos, 1 other files"),
            (["x/y/b.txt"], "x", r"found 1 folders \(y\), 0 videos, 0 other files"),
        ],
    )
    def test_errors_say_what_was_found_and_what_next(self, tmp_path, names, path, message):
        make_tree(tmp_path, *names)
        with pytest.raises(UserError, match=message) as caught:
            read_dataset(tmp_path / path)
        assert caught.value.hint
        assert str(tmp_path / path) in caught.value.message


def test_folders_with_one_picture_each_are_told(tmp_path):
    make_tree(tmp_path, "run/1/a.png", "jump/2/a.png")
    with pytest.raises(UserError, match="one frame alone in a folder is no clip"):
        read_dataset(tmp_path)
    make_tree(tmp_path, "run/3/a.png", "run/3/b.png", "jump/4.avi")
    dataset = read_dataset(tmp_path)
    assert len(dataset.clips) == 2
    assert any("one frame alone" in line and "run/1" in line for line in dataset.problems)
