from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vidfuse.data.clip import Clip, Dataset
from vidfuse.data.folds import make_folds
from vidfuse.data.layouts import read_dataset
from vidfuse.data.splits import PARTS, Split, duplicates_across, make_split
from vidfuse.errors import UnknownNameError, UserError


def dataset(clips, **more) -> Dataset:
    return Dataset(Path("set"), "manifest", list(clips), **more)


def parts(split: Split) -> dict[str, list[Clip]]:
    return {part: getattr(split, part) for part in PARTS}


def sides(split: Split, attribute: str) -> dict[object, set[str]]:
    found: dict[object, set[str]] = {}
    for part, clips in parts(split).items():
        for clip in clips:
            found.setdefault(getattr(clip, attribute), set()).add(part)
    return found


def random_dataset(seed: int) -> Dataset:
    """Groups of very different sizes; some with one class only, some clips without a group."""
    rng = random.Random(seed)
    classes = [f"c{i}" for i in range(rng.randint(2, 8))]
    pure = rng.random() < 0.3
    clips = []
    for g in range(rng.randint(5, 40)):
        own = [rng.choice(classes)] if pure else rng.sample(classes, rng.randint(1, len(classes)))
        for _ in range(rng.choice([1, 2, 5, 20])):
            group = None if rng.random() < 0.05 else f"g{g}"
            path = Path(f"set/{g}/{rng.randint(0, 10)}.avi")
            clips.append(Clip(path, rng.choice(own), group, None, start := rng.random(), start + 1))
    return dataset(clips)


@pytest.mark.parametrize("seed", range(60))
def test_properties_of_a_group_split(seed):
    data = random_dataset(seed)
    try:
        split = make_split(data, split="group", seed=seed)
    except UserError as error:
        assert "validation or test is empty" in error.message  # noqa: PT017
        return
    assert all(len(where) == 1 for group, where in sides(split, "group").items() if group)
    assert all(len(where) == 1 for where in sides(split, "path").values())
    assert Counter([*split.train, *split.val, *split.test]) == Counter(data.clips)
    assert {clip.label for clip in split.train} == set(data.classes)
    assert split.val
    assert split.test

    shuffled = list(data.clips)
    random.Random(seed + 1).shuffle(shuffled)
    assert make_split(dataset(shuffled), split="group", seed=seed) == split


@pytest.mark.parametrize("seed", range(20))
def test_enough_groups_give_the_wanted_sizes_and_all_classes_everywhere(seed):
    rng = random.Random(seed)
    clips = [
        Clip(Path(f"{c}/{i}.avi"), f"c{c}", f"c{c}/g{rng.randint(0, 19)}")
        for c in range(5)
        for i in range(100)
    ]
    split = make_split(dataset(clips), seed=seed)
    for clips_of_part, share in zip(parts(split).values(), (350, 75, 75), strict=True):
        assert len(clips_of_part) == pytest.approx(share, abs=15)
        assert len({clip.label for clip in clips_of_part}) == 5
    assert split.protocol.startswith(f"by group 70/15/15, seed {seed} (")
    assert split.warnings == []


@pytest.mark.parametrize("seed", range(10))
def test_three_groups_with_all_classes_give_one_each(seed):
    clips = [Clip(Path(f"{g}{c}.avi"), c, g) for g in "123" for c in "abcd"]
    split = make_split(dataset(clips), seed=seed)
    assert [len(clips) for clips in parts(split).values()] == [4, 4, 4]
    assert "far from their shares" in split.warnings[0]


def test_seeds_differ_and_paths_of_the_dataset_do_not_matter():
    def files(root: str, seed: int) -> list[str]:
        clips = [Clip(Path(root, f"{c}{i}.avi"), c, f"g{i}") for c in "ab" for i in range(20)]
        return [clip.path.name for clip in make_split(dataset(clips), seed=seed).test]

    assert files("/one", 0) == files("/other/place", 0)
    assert len({tuple(files("/one", seed)) for seed in range(8)}) > 4


def test_the_hash_seed_does_not_matter():
    code = (
        "from pathlib import Path; from vidfuse.data.clip import Clip, Dataset\n"
        "from vidfuse.data.splits import make_split\n"
        "clips = [Clip(Path(f'{c}{i}'), c, f'g{i % 7}{c}') for c in 'abcde' for i in range(30)]\n"
        "print(make_split(Dataset(Path('s'), 'm', clips), seed=3))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


class TestFewGroups:
    def test_two_groups_are_an_error_that_names_the_way_out(self):
        clips = [Clip(Path(f"{g}{c}.avi"), c, g) for g in "12" for c in "ab"]
        with pytest.raises(UserError, match=r"(?s)2 groups are too few.*--split random"):
            make_split(dataset(clips))
        assert make_split(dataset(clips), split="random").test

    def test_random_is_advised_only_where_it_would_do(self):
        few = [Clip(Path(f"{n}.avi"), "ab"[n % 2], "g") for n in range(2)]
        for split in ("auto", "random"):
            with pytest.raises(UserError) as error:
                make_split(dataset(few), split=split)
            assert "random" not in str(error.value.hint)
        many = [Clip(Path(f"{n}.avi"), "ab"[n % 2], "g") for n in range(20)]
        with pytest.raises(UserError) as error:
            make_split(dataset(many), split="auto")
        assert "--split random" in str(error.value.hint)
        assert make_split(dataset(many), split="random").test

    def test_one_group_per_class_is_an_error(self):
        clips = [Clip(Path(f"{c}{i}.avi"), c, c) for c in "abcdef" for i in range(5)]
        with pytest.raises(UserError, match=r"(?s)validation or test is empty.*--split random"):
            make_split(dataset(clips))

    @pytest.mark.parametrize("seed", range(10))
    def test_two_groups_per_class_share_out_validation_and_test(self, seed):
        clips = [
            Clip(Path(f"{c}{g}{i}.avi"), c, f"{c}{g}")
            for c in "abcdef"
            for g in "12"
            for i in "xyz"
        ]
        split = make_split(dataset(clips), seed=seed)
        assert [len({c.label for c in found}) for found in parts(split).values()] == [6, 3, 3]
        assert any(w.startswith("classes not in test, so they are not") for w in split.warnings)

    def test_a_class_with_one_group_is_for_training(self):
        clips = [Clip(Path(f"{c}{g}.avi"), c, f"g{g}") for c in "ab" for g in range(9)]
        clips.append(Clip(Path("rare.avi"), "rare", "h"))
        split = make_split(dataset(clips))
        assert "rare" in {clip.label for clip in split.train}
        assert "classes not in test, so they are not measured: rare" in split.warnings


class TestRandom:
    def test_without_groups_auto_is_random_and_says_so(self):
        clips = [Clip(Path(f"{c}{i}.avi"), c) for c in "ab" for i in range(20)]
        split = make_split(dataset(clips))
        assert [len(found) for found in parts(split).values()] == [28, 6, 6]
        assert split.protocol == (
            "random 70/15/15, seed 0: no groups known, "
            "so similar clips may be in both train and test"
        )
        assert "similar clips" in split.warnings[0]
        with pytest.raises(UserError, match="no groups are known"):
            make_split(dataset(clips), split="group")

    @pytest.mark.parametrize("seed", range(10))
    def test_segments_of_a_file_stay_together(self, seed):
        clips = [
            Clip(Path(f"{f}.avi"), "ab"[s % 2], f"g{f % 2}", None, s, s + 1)
            for f in range(12)
            for s in range(4)
        ]
        split = make_split(dataset(clips), split="random", seed=seed)
        assert all(len(where) == 1 for where in sides(split, "path").values())
        assert "groups ignored as asked" in split.protocol

    def test_too_few_files(self):
        clips = [Clip(Path("a.avi"), "a", None, None, s, s + 1) for s in range(9)]
        with pytest.raises(UserError, match="1 video files are too few"):
            make_split(dataset(clips))


def test_a_file_joins_the_groups_of_its_segments():
    clips = [Clip(Path(f"{i}.avi"), "a", f"g{i}") for i in range(8)]
    clips += [
        Clip(Path("0.avi"), "a", "g1", None, 1, 2),
        Clip(Path("0.avi"), "a", None, None, 3, 4),
    ]
    split = make_split(dataset(clips))
    assert all(len(where) == 1 for where in sides(split, "path").values())
    assert all(len(where) == 1 for where in sides(split, "group").values())
    assert "(7 groups)" in split.protocol
    assert "1 clips have no group: each file counts as its own" in split.warnings


def official(groups="123456", splits=("train", "train", "train", "train", "train", "test")):
    return [
        Clip(Path(f"{g}{c}{i}.avi"), c, g, part)
        for g, part in zip(groups, splits, strict=True)
        for c in "ab"
        for i in range(3)
    ]


class TestOfficial:
    def test_validation_is_carved_out_of_train_by_group(self):
        data = dataset(official(), split_source="testlist01.txt", split_number="1")
        split = make_split(data, seed=4)
        assert {clip.group for clip in split.test} == {"6"}
        assert [len(found) for found in parts(split).values()] == [24, 6, 6]
        assert all(len(where) == 1 for where in sides(split, "group").values())
        assert split.protocol == (
            "official split 1 (testlist01.txt); validation: 15 % of train by group, seed 4"
        )
        assert split.warnings == []
        assert make_split(data, split="1", seed=4) == split

    def test_its_own_validation_is_kept(self):
        clips = official(splits=("train", "train", "train", "val", "test", "test"))
        split = make_split(dataset(clips, split_source="manifest.csv, column split"))
        assert {clip.group for clip in split.val} == {"4"}
        assert split.protocol == "official split (manifest.csv, column split)"

    def test_group_and_random_ignore_it(self):
        data = dataset(official(), split_source="x")
        assert make_split(data, split="group").protocol.startswith("by group")
        assert make_split(data, split="random").protocol.startswith("random")

    def test_groups_that_it_puts_on_both_sides_are_named(self):
        clips = [*official(), Clip(Path("leak.avi"), "a", "2", "test")]
        clips.append(Clip(Path("1a0.avi"), "a", None, "test", 1, 2))
        split = make_split(dataset(clips))
        assert Path("leak.avi") in {clip.path for clip in split.test}
        assert "the official split has 1 groups in both train and test: 2" in split.warnings
        assert "the official split has 1 files in both train and test: 1a0.avi" in split.warnings
        train, val = ({clip.group for clip in found} for found in (split.train, split.val))
        assert not train & val

    def test_without_groups_validation_is_random_and_says_so(self):
        clips = [Clip(c.path, c.label, None, c.split) for c in official()]
        split = make_split(dataset(clips))
        assert "validation: 15 % of train at random, seed 0: no groups known" in split.protocol
        assert len(split.warnings) == 1

    def test_clips_outside_and_classes_unseen_are_reported(self):
        clips = [
            *official(),
            Clip(Path("x.avi"), "a", "9"),
            Clip(Path("y.avi"), "new", "8", "test"),
        ]
        warnings = make_split(dataset(clips)).warnings
        assert "1 clips belong to no part of the official split: left out" in warnings
        assert "classes not in train, so they cannot be learned: new" in warnings

    def test_no_test_part(self):
        clips = official(splits=("train", "train", "train", "train", "val", "val"))
        split = make_split(dataset(clips))
        assert split.test == []
        assert split.protocol.endswith("; no test part")

    def test_one_part_is_no_split(self):
        split = make_split(dataset(official(splits=("train",) * 6)))
        assert split.protocol.startswith("by group")
        assert "has only train clips and was not used" in split.warnings[0]

    def test_errors(self):
        plain = dataset([Clip(Path(f"{i}.avi"), "a") for i in range(5)])
        with pytest.raises(UserError, match="no official split '1'"):
            make_split(plain, split="1")
        with pytest.raises(UserError, match="split 1 was read"):
            make_split(dataset(official(), split_number="1"), split="2")
        with pytest.raises(UserError, match="no labelled train clips"):
            make_split(dataset(official(splits=("val", "val", "val", "test", "test", "test"))))
        lone = official("12", ("train", "test"))
        with pytest.raises(UserError, match="cannot give up a validation part"):
            make_split(dataset(lone))
        with pytest.raises(UnknownNameError, match="Did you mean 'random'"):
            make_split(plain, split="randm")


def test_unlabelled_clips():
    clips = [Clip(Path(f"{i}.avi"), "a" if i else None, f"g{i}") for i in range(9)]
    split = make_split(dataset(clips))
    assert sum(map(len, parts(split).values())) == 8
    assert "1 clips without a label were left out" in split.warnings
    with pytest.raises(UserError, match="none of the 1 clips has a label"):
        make_split(dataset(clips[:1]))


def test_duplicates_across_parts():
    whole = {name: Clip(Path(f"{name}.avi"), "x") for name in "abcdef"}
    one, two = (Clip(Path("s.avi"), "x", None, None, start, 9) for start in (1, 2))
    lines = duplicates_across(
        {
            "train": [(whole["a"], "h1"), (whole["b"], "h2"), (whole["c"], "h2"), (one, "h3")],
            "val": [(whole["d"], "h1")],
            "test": iter([(whole["e"], "h1"), (whole["f"], "h4"), (two, "h3")]),
        }
    )
    assert lines == ["same content: a.avi (train) and d.avi (val) and e.avi (test)"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["ut_interaction", "fight_surv"])
def test_real_datasets(name, seed, reference_data):
    split = make_split(read_dataset(reference_data(name)), seed=seed)
    assert all(len(where) == 1 for where in sides(split, "group").values())
    assert len({len({clip.label for clip in found}) for found in parts(split).values()}) == 1
    assert split.warnings == []


def test_copies_of_a_file_stay_together():
    clips = [Clip(Path(f"{label}{i}.avi"), label) for label in "ab" for i in range(12)]
    contents = {clip.path: f"content {i // 4}" for i, clip in enumerate(clips)}
    moved = 0
    for seed in range(10):
        for split in (
            make_split(dataset(clips), seed=seed, contents=contents),
            *make_folds(dataset(clips), 3, seed=seed, contents=contents).splits,
        ):
            where: dict[str, set[str]] = {}
            for part, found in parts(split).items():
                for clip in found:
                    where.setdefault(contents[clip.path], set()).add(part)
            assert all(len(sides) == 1 for sides in where.values())
        plain = make_split(dataset(clips), seed=seed)
        assert plain == make_split(
            dataset(clips), seed=seed, contents={c.path: c.name for c in clips}
        )
        moved += plain.train != make_split(dataset(clips), seed=seed, contents=contents).train
    assert moved


def test_copies_in_two_groups_join_them():
    clips = [Clip(Path(f"{label}{i}.avi"), label, f"g{i}") for label in "ab" for i in range(6)]
    contents = {Path("a0.avi"): "same", Path("a1.avi"): "same"}
    for seed in range(10):
        split = make_split(dataset(clips), seed=seed, contents=contents)
        groups = sides(split, "group")
        assert groups["g0"] == groups["g1"]
        assert "(5 groups)" in split.protocol
