"""What a comparison has in its folder while it runs: features, and a lock."""

from __future__ import annotations

import pytest

from vidfuse.comparison import tables
from vidfuse.errors import UserError
from vidfuse.runs import LOCK, alone_in
from vidfuse.training.data import TrainingData


def test_a_clip_that_fails_on_one_grid_is_in_the_table_of_none(compare, monkeypatch):
    gather, save_table = TrainingData.gather, tables.save_table
    saved = {}

    def unlucky(self, clips, *, grid=None, **more):
        found = gather(self, clips, grid=grid, **more)
        if grid == 2:
            found.mirrored_rows.popitem()
        return found

    def counted(table, path):
        saved[path] = len(table.chosen_lengths)
        save_table(table, path)

    monkeypatch.setattr(TrainingData, "gather", unlucky)
    monkeypatch.setattr(tables, "save_table", counted)
    summary = compare(heads="lstm,convlstm", seeds=1, epochs=1, mirror=True)
    assert summary["clips"] == 24
    assert list(saved.values()) == [24 + 23] * 3, "grids 4, 2 and 1, without the mirrored one"


def test_views_lie_behind_the_clips_and_their_mirrored_ones(compare, monkeypatch):
    save_table = tables.save_table
    saved = []

    def noted(table, path):
        saved.append(table)
        save_table(table, path)

    monkeypatch.setattr(tables, "save_table", noted)
    summary = compare(heads="mean", seeds=1, epochs=1, mirror=True, views=2)
    assert summary["clips"] == 24
    (table,) = saved
    first = table.features[table.firsts].reshape(96, -1)
    assert len({row.tobytes() for row in first}) == 96, "every view is another one"
    for row, (start, end) in enumerate(zip(table.starts, table.ends, strict=True)):
        clip = row if row < 24 else row - 24 if row < 48 else (row - 48) // 2
        assert (start, end) == (table.starts[clip], table.ends[clip])


def test_a_folder_has_one_comparison_at_a_time(compare, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    other = "another comparison"
    with alone_in(out, other), pytest.raises(UserError, match=f"{other} is at work in {out}"):
        compare()
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_results_of_another_dataset_are_not_overwritten(compare, grouped, tmp_path):
    settings = {"heads": "mean", "seeds": 1, "epochs": 1}
    compare(**settings)
    out = tmp_path / "out"
    before = (out / "results.json").read_bytes()
    other = tmp_path / "other.csv"
    other.write_text(grouped.read_text())
    with pytest.raises(UserError, match="holds the comparison of another dataset") as error:
        compare(other, **settings)
    assert str(grouped) in error.value.message
    assert "--out" in str(error.value.hint)
    assert (out / "results.json").read_bytes() == before
    compare(**{**settings, "seeds": 2})
    compare(other, **settings, out=str(tmp_path / "elsewhere"))
    (out / "results.json").write_text("torn")
    compare(other, **settings)
