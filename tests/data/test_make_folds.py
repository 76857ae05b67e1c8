"""Cross-validation keeps groups whole, inside and out."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.folds import Folds, make_folds
from vidfuse.errors import UnknownNameError, UserError


def dataset(clips) -> Dataset:
    return Dataset(Path("set"), "manifest", list(clips))


def grid(groups: int, classes: int = 3, takes: int = 2, **more) -> Dataset:
    """Every group has clips of every class."""
    return dataset(
        Clip(Path(f"set/{g}_{c}_{take}.avi"), f"c{c}", f"g{g}", **more)
        for g in range(groups)
        for c in range(classes)
        for take in range(takes)
    )


def ungrouped(count: int, classes: int = 3) -> Dataset:
    return dataset(Clip(Path(f"set/{i}.avi"), f"c{i % classes}") for i in range(count))


def check(folds: Folds, data: Dataset, count: int, *attributes: str) -> None:
    assert len(folds.splits) == count
    tested = [clip for split in folds.splits for clip in split.test]
    assert Counter(tested) == Counter(clip for clip in data.clips if clip.label)
    assert Counter(folds.clips) == Counter(tested)
    for split in folds.splits:
        parts = [split.train, split.val, split.test]
        assert all(parts)
        assert Counter(clip for part in parts for clip in part) == Counter(tested)
        for attribute in attributes:
            sides = [{getattr(clip, attribute) for clip in part} - {None} for part in parts]
            assert len(set().union(*sides)) == sum(map(len, sides)), attribute


@pytest.mark.parametrize("seed", range(20))
def test_no_group_and_no_file_is_on_two_sides(seed):
    rng = random.Random(seed)
    clips = []
    for g in range(rng.randint(8, 30)):
        for label in rng.sample("abcde", rng.randint(2, 5)):
            for _ in range(rng.choice([1, 2, 6])):
                group = None if rng.random() < 0.1 else f"g{g}"
                path = Path(f"set/{g}/{label}{rng.randint(0, 4)}.avi")
                clips.append(Clip(path, label, group, None, start := rng.random(), start + 1))
    data, count = dataset(clips), rng.randint(2, 5)
    folds = make_folds(data, count, seed=seed)
    check(folds, data, count, "group", "path")
    for split in folds.splits:
        known = {clip.label for clip in [*split.train, *split.val]}
        assert {clip.label for clip in split.train} == known

    rng.shuffle(clips)
    assert make_folds(dataset(clips), count, seed=seed) == folds, "the order of clips plays no part"


def test_folds_are_alike():
    folds = make_folds(grid(20), 5)
    for split in folds.splits:
        assert Counter(clip.label for clip in split.test) == {"c0": 8, "c1": 8, "c2": 8}
        assert len(split.val) == 12  # 15 % of 96 in whole groups
    assert folds.warnings == []
    assert folds.protocol == "5 folds by group, seed 0 (20 groups); validation: 15 % of the rest"


def test_the_seed_decides():
    data = grid(12)
    assert make_folds(data, 4, seed=3) == make_folds(data, 4, seed=3)
    assert make_folds(data, 4, seed=3).splits != make_folds(data, 4, seed=4).splits


@pytest.mark.parametrize(("groups", "count"), [(3, 3), (10, 10), (11, 10)])
def test_as_many_folds_as_groups(groups, count):
    data = grid(groups)
    check(make_folds(data, count), data, count, "group")


@pytest.mark.parametrize(("clips", "count"), [(12, 12), (12, 11), (24, 24), (30, 29)])
def test_as_many_folds_as_files_of_one_class_each(clips, count):
    data = ungrouped(clips)
    folds = make_folds(data, count)
    check(folds, data, count, "path")
    assert max(len(split.test) for split in folds.splits) <= 2


def test_groups_of_one_class_are_dealt_evenly():
    data = dataset(
        Clip(Path(f"set/{c}{g}{take}.avi"), c, f"{c}{g}")
        for c in "ab"
        for g in range(4)
        for take in range(3)
    )
    folds = make_folds(data, 4)
    check(folds, data, 4, "group")
    assert all({clip.label for clip in split.test} == {"a", "b"} for split in folds.splits)
    check(make_folds(data, 8), data, 8, "group")


@pytest.mark.parametrize(
    ("data", "count", "message", "hint"),
    [
        (grid(4), 5, "4 groups cannot make 5 folds", "--folds from 2 to 4"),
        (grid(4), 1, "4 groups cannot make 1 folds", "--folds from 2 to 4"),
        (grid(2), 2, "2 groups cannot make folds", "Three are the least"),
        (grid(3), 5, "3 groups cannot make 5 folds", "Use --folds 3."),
        (grid(3), 2, "3 groups cannot make 2 folds", "Use --folds 3."),
        (ungrouped(4), 7, "4 video files cannot make 7 folds", "--folds from 2 to 4"),
        (dataset([]), 2, "0 video files cannot make folds", "Add clips"),
        (dataset([Clip(Path(f"{i}.avi")) for i in range(9)]), 2, "0 video files", "Add clips"),
    ],
)
def test_what_cannot_be_divided(data, count, message, hint):
    with pytest.raises(UserError, match=message) as error:
        make_folds(data, count)
    assert hint in str(error.value.hint)


def test_without_groups_it_is_random_and_says_so():
    folds = make_folds(ungrouped(12), 3)
    assert any("similar clips" in line for line in folds.warnings)
    assert folds.protocol.startswith("3 folds at random, seed 0 (12 video files)")
    with pytest.raises(UserError, match="no groups are known"):
        make_folds(ungrouped(12), 3, split="group")


def test_random_folds_of_grouped_clips_when_asked_for():
    data = grid(4, takes=5)
    folds = make_folds(data, 5, split="random")
    check(folds, data, 5, "path")
    assert any("similar clips" in line for line in folds.warnings)
    together = [{clip.group for clip in split.test} for split in folds.splits]
    assert any(len(groups) > 1 for groups in together)


def test_other_splits_are_refused():
    with pytest.raises(UserError, match="--split 1 and --folds exclude each other"):
        make_folds(grid(5), 3, split="1")
    with pytest.raises(UnknownNameError, match="Did you mean 'group'"):
        make_folds(grid(5), 3, split="gruop")


def test_the_datasets_own_split_is_ignored():
    data = grid(6, split="train")
    assert [len(split.test) for split in make_folds(data, 3).splits] == [12, 12, 12]


def test_warnings():
    clips = [*grid(6).clips, Clip(Path("set/x.avi"), "c0"), Clip(Path("set/y.avi"))]
    clips += [Clip(Path("set/z.avi"), "alone", "g0")]
    assert make_folds(dataset(clips), 3).warnings == [
        "1 clips without a label were left out",
        "1 clips have no group: each file counts as its own",
        "classes in one fold only, so its model cannot know them: alone",
    ]
