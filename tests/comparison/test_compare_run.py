"""A whole comparison, on clips: what it finds, what it keeps, what it says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from heard import Heard

from vidfuse import rpc
from vidfuse.comparison import fits
from vidfuse.comparison.workers import WorkerPool
from vidfuse.errors import UserError
from vidfuse.heads import registry
from vidfuse.heads.pooling import Mean


def scores(summary):
    names = ("name", "accuracy", "accuracy_interval", "shuffled", "reversed", "p_value", "chosen")
    return [{name: row[name] for name in names} for row in summary["heads"]]


def test_a_comparison(compare, tmp_path):
    heard = Heard()
    summary = compare(reporter=heard, heads="middle,lstm")
    assert {row["name"] for row in summary["heads"]} == {"mean", "middle", "lstm"}
    assert (summary["clips"], summary["groups"], summary["failed_heads"]) == (24, 8, [])
    wanted = {
        *("name", "accuracy", "accuracy_interval", "macro_f1", "difference", "p_value"),
        *("parameters", "multiply_adds", "latency_ms", "latency_batched_ms", "training_seconds"),
        *("shuffled", "tested_shuffled", "reversed", "grid"),
    }
    for row in summary["heads"]:
        assert wanted <= set(row)
        assert row["latency_ms"] > 0
    assert {row["name"]: row["grid"] for row in summary["heads"]}["lstm"] == 2
    assert set(summary["baselines"]) == {"majority", "geometry"}
    assert summary["protocol"]["epochs"] == 2
    assert "2 folds by group" in summary["protocol"]["split"]
    out = tmp_path / "out"
    assert json.loads((out / "results.json").read_text()) == summary
    assert sorted(path.name for path in out.iterdir()) == [
        *(".lock", "fits", "leaderboard.png", "pareto.png", "results.csv", "results.json")
    ]
    for image in ("leaderboard.png", "pareto.png"):
        assert (out / image).read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "fits").iterdir())) == 3 * 2 * 2
    assert [row[-1] for row in heard.boards[-1]] == ["4 of 4"] * 3
    assert len(heard.boards) == 13
    assert any(line.startswith("40 fits of 2 epochs in 1 process") for line in heard.infos)


def count_fits(monkeypatch):
    done = []
    run = fits.FitRunner.run

    def counted(self, *task):
        done.append(task)
        return run(self, *task)

    monkeypatch.setattr(fits.FitRunner, "run", counted)
    return done


def test_it_goes_on_and_never_uses_what_has_other_settings(compare, monkeypatch, tmp_path):
    done = count_fits(monkeypatch)
    first = compare()
    assert len(done) == 2 * 2 * 2
    assert scores(compare()) == scores(first)
    assert len(done) == 8, "nothing is done twice"
    next((tmp_path / "out" / "fits").glob("middle-seed1-fold2-*")).unlink()
    assert scores(compare()) == scores(first)
    assert len(done) == 9
    compare(heads="max")
    assert len(done) == 13, "only the new head"
    compare(seeds=3)
    assert len(done) == 17, "only the new seed"
    compare(epochs=3)
    assert len(done) == 25, "other epochs are other fits"
    compare(lrs="0.02")
    assert len(done) == 33


def test_orders_can_be_left_out(compare, monkeypatch):
    done = count_fits(monkeypatch)
    heard = Heard()
    summary = compare(heads="policy,lstm", seeds=1, orders=False, reporter=heard)
    # A fit and its refit in each of two folds.
    assert any(line.startswith("12 fits of 2 epochs") for line in heard.infos)
    rows = {row["name"]: row for row in summary["heads"]}
    for row in rows.values():
        names = ("shuffled", "shuffled_p_value", "tested_shuffled", "reversed")
        assert [row[name] for name in names] == [None] * 4
    assert rows["policy"]["frame_budget"]["own"]["policy"] == rows["policy"]["accuracy"]
    measured = {row["name"]: row for row in compare(heads="policy,lstm", seeds=1)["heads"]}
    assert len(done) == 12, "what was left out is measured now"
    assert {name: row["accuracy"] for name, row in measured.items()} == {
        name: row["accuracy"] for name, row in rows.items()
    }
    assert all(row["shuffled"] is not None for row in measured.values())


def test_ctrl_c_keeps_what_is_done(compare, monkeypatch):
    heard = Heard()
    run = fits.FitRunner.run
    done = []

    def interrupted(self, *task):
        done.append(task)
        if len(done) == 4:
            raise KeyboardInterrupt
        return run(self, *task)

    monkeypatch.setattr(fits.FitRunner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(reporter=heard)
    assert any("interrupted: 3 of 8 folds are kept" in line for line in heard.warnings)
    compare()
    assert len(done) == 4 + 5


def test_processes_give_what_one_alone_gives(compare, tmp_path):
    alone = compare(heads="lstm", seeds=1)
    beside = compare(heads="lstm", seeds=1, jobs=2, out=str(tmp_path / "beside"))
    assert scores(alone) == scores(beside)
    for path in (tmp_path / "out" / "fits").iterdir():
        with np.load(path) as one, np.load(tmp_path / "beside" / "fits" / path.name) as other:
            for kind in ("ordered", "shuffled", "tested_shuffled", "reversed"):
                assert (one[kind] == other[kind]).all()


class Broken(Mean):
    """Fails at its first clip."""

    name = "broken"

    def forward(self, features, lengths):
        raise RuntimeError("it is broken\nin many ways")


def test_a_head_that_fails_is_named_and_the_others_are_measured(compare, monkeypatch):
    monkeypatch.setitem(registry.HEADS, "broken", f"{Broken.__module__}:Broken")
    heard = Heard()
    summary = compare(reporter=heard, heads="broken")
    assert [row["name"] for row in summary["heads"]] == ["mean"]
    assert summary["failed_heads"] == [
        {"name": "broken", "error": "RuntimeError: it is broken"},
    ]
    assert heard.warnings == ["head 'broken' failed: RuntimeError: it is broken"]


def test_a_head_that_cannot_be_built(compare, monkeypatch):
    monkeypatch.setattr(
        registry, "HEADS", {"mean": registry.HEADS["mean"], "gcn": registry.HEADS["gcn"]}
    )
    gcn = registry.head_class("gcn")
    monkeypatch.setattr(gcn, "requires", ("no_such_module",))
    with pytest.raises(UserError, match="needs the package no_such_module"):
        compare(heads="gcn")
    heard = Heard()
    summary = compare(reporter=heard, heads="all")
    assert [row["name"] for row in summary["heads"]] == ["mean"]
    assert [each["name"] for each in summary["left_out"]] == ["gcn"]
    assert heard.warnings[0].startswith("left out: head 'gcn' needs the package")


def test_a_process_that_dies_costs_its_head(tmp_path, monkeypatch):
    worker = "import sys, os; line = sys.stdin.readline(); os.kill(os.getpid(), 9)"
    monkeypatch.setattr(rpc, "PROGRAM", worker)
    with WorkerPool(tmp_path / "none.json", 2) as pool:
        found = list(pool.run([{"head": "a"}, {"head": "b"}]))
    assert sorted(request["head"] for request, _ in found) == ["a", "b"]
    for _, answered in found:
        assert answered["error"].startswith("the process that fitted it was killed by signal 9")


def test_what_is_wrong_with_any_head_ends_it_all(tmp_path, monkeypatch):
    answer = '{"fatal": "x: No space left", "bytes": 0}'
    worker = f"import sys\nfor line in sys.stdin: print({answer!r}, flush=True)"
    monkeypatch.setattr(rpc, "PROGRAM", worker)
    with (
        WorkerPool(tmp_path / "none.json", 2) as pool,
        pytest.raises(UserError, match="No space left"),
    ):
        list(pool.run([{"head": "a"}, {"head": "b"}]))


def test_a_process_that_cannot_be_started_ends_it_all(tmp_path, monkeypatch):
    def refuse(*_arguments, **_more):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with WorkerPool(tmp_path / "none.json", 2) as pool, pytest.raises(UserError) as raised:
        list(pool.run([{"head": "a"}, {"head": "b"}]))
    assert raised.value.message == "a process cannot be started (Too many open files)"
    assert "ulimit -n" in (raised.value.hint or "")


def test_an_error_in_the_choice_of_requests_is_raised(tmp_path):
    def wanted(_request):
        raise IndexError("a bug")

    with WorkerPool(tmp_path / "none.json", 2) as pool, pytest.raises(IndexError, match="a bug"):
        list(pool.run([{"head": "a"}, {"head": "b"}], wanted))


def test_requests_that_are_no_longer_wanted_are_left_out(tmp_path, monkeypatch):
    worker = "import sys\nfor line in sys.stdin: print('{\"bytes\": 0}', flush=True)"
    monkeypatch.setattr(rpc, "PROGRAM", worker)
    requests = [{"head": name} for name in "abcd"]
    with WorkerPool(tmp_path / "none.json", 2) as pool:
        found = [request["head"] for request, _ in pool.run(requests, lambda r: r["head"] != "b")]
    assert sorted(found) == ["a", "c", "d"]


def test_a_budget_decides_the_epochs_once(compare, monkeypatch):
    times = iter([2.0] * 4)
    monkeypatch.setattr(fits.FitRunner, "seconds_per_epoch", lambda self, candidate: next(times))
    heard = Heard()
    # 4 folds of 2 heads; one candidate, and middle once more shuffled, each followed by a fit of
    # all clips: 24 fits.
    summary = compare(reporter=heard, budget="4m", epochs=9)
    assert summary["protocol"]["epochs"] == int(240 / (1.15 * 24 * 2)) == 4
    assert "Budget of 4 min: 4 epochs for every head" in heard.infos
    assert any("4 epochs are few" in line for line in heard.warnings)
    assert scores(compare(budget="4m", epochs=9)) == scores(summary)
    assert len(list(times)) == 2, "the second call takes over what the first one chose"
    monkeypatch.setattr(fits.FitRunner, "seconds_per_epoch", lambda self, candidate: 20.0)
    with pytest.raises(UserError, match="is too small"):
        compare(budget="1s")


def test_clips_that_cannot_be_read(grouped, compare, tmp_path):
    rows = grouped.read_text().splitlines()
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(b"not a video")
    manifest = tmp_path / "more.csv"
    manifest.write_text("\n".join([*rows, f"{bad},class0,g3"]))
    heard = Heard()
    summary = compare(manifest, reporter=heard, heads="middle,lstm", seeds=1)
    assert summary["clips"] == 24
    assert [each["path"] for each in summary["failures"]] == [str(bad)]
    assert sum(str(bad) in line for line in heard.warnings) == 1


def test_grids_that_nest_are_extracted_in_one_pass(compare, monkeypatch, tmp_path):
    from vidfuse.features import extract

    decoded = []
    compute = extract.Extractor.compute

    def counted(self, waiting, *, many):
        if waiting:
            decoded.append((self.spec.grid, len(waiting)))
        return compute(self, waiting, many=many)

    monkeypatch.setattr(extract.Extractor, "compute", counted)
    compare(heads="lstm,convlstm", seeds=1, epochs=1, cache=str(tmp_path / "cache"))
    assert decoded == [(4, 24)]


def test_too_few_groups_for_the_folds(compare):
    with pytest.raises(UserError, match="8 groups cannot make 9 folds"):
        compare(folds=9)


def test_the_folder_has_a_name_by_default(compare):
    summary = compare(out=None, heads=["mean"], seeds=1)
    assert Path(summary["out"]) == Path("runs/compare-grouped")
