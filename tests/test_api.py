"""Extraction and training as a Python program calls them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heard import Heard
from safetensors.torch import load_file

import vidfuse
from vidfuse import api
from vidfuse.data.clip import Clip
from vidfuse.errors import InputError, UserError
from vidfuse.results import TrainResult
from vidfuse.runs import latest_run
from vidfuse.training.fit import Epoch, Fit
from vidfuse.video.pool import DecodePool

CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}
QUICK: dict[str, Any] = {**CHEAP, "epochs": 2, "workers": 1}


def train(dataset: Path, cache: str, **settings: Any) -> TrainResult:
    return vidfuse.train(dataset, **{**QUICK, "cache": cache, **settings})


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> None:
        raise AssertionError("something was decoded")

    monkeypatch.setattr(DecodePool, "map", never)


class TestExtract:
    def test_the_report(self, dataset: Path, tmp_path: Path) -> None:
        settings: dict[str, Any] = {**CHEAP, "cache": str(tmp_path / "cache"), "workers": 1}
        report = vidfuse.extract(dataset, **settings)
        assert set(report.to_dict()) == {
            *("clips", "computed", "reused", "failed", "failures", "timings", "cache", "spec")
        }
        assert (report.clips, report.computed, report.reused) == (24, 24, 0)
        assert (report.failed, report.failures) == (0, [])
        assert report.spec["grid"] == 2
        assert {"imports", "scan", "cache", "decode", "forward", "total"} <= set(report.timings)
        json.dumps(report.to_dict())
        again = vidfuse.extract(dataset, heads=["mean", "lstm"], **settings)
        assert (again.computed, again.reused) == (0, 24)

    def test_bad_inputs_are_records(self, dataset: Path, tmp_path: Path, shared_cache: str) -> None:
        good = sorted(dataset.rglob("*.mkv"))[0]
        torn = tmp_path / "torn.mkv"
        torn.write_bytes(good.read_bytes()[:80])
        heard = Heard()
        report = vidfuse.extract(
            [Clip(good), Clip(torn), InputError("x*.mp4", "matches nothing"), Clip(good)],
            reporter=heard,
            cache=shared_cache,
            **CHEAP,
        )
        assert (report.clips, report.failed) == (3, 2)
        assert [failure.path for failure in report.failures] == ["x*.mp4", str(torn)]
        assert len(heard.warnings) == 2

    def test_arrays_for_other_tools(self, dataset: Path, tmp_path: Path, shared_cache: str) -> None:
        out = tmp_path / "features"
        vidfuse.extract(dataset, out=out, cache=shared_cache, workers=1, **CHEAP)
        with (out / "index.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 24
        for row in rows:
            features = np.load(out / row["file"])
            assert features.shape == (4, 64, 2, 2)
            assert features.dtype == np.float32
            assert Path(row["path"]).parent.name == row["label"]

    def test_an_index_never_lists_other_arrays(
        self, dataset: Path, tmp_path: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "features"
        vidfuse.extract(dataset, out=out, cache=shared_cache, workers=1, **CHEAP)

        def interrupted(*_given: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("numpy.save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vidfuse.extract(dataset, out=out, cache=shared_cache, workers=1, **CHEAP)
        assert not (out / "index.csv").exists()

    def test_out_that_is_a_file(self, dataset: Path, tmp_path: Path, shared_cache: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write"):
            vidfuse.extract(dataset, out=tmp_path / "file", cache=shared_cache, **CHEAP)

    def test_unknown_names(self, dataset: Path) -> None:
        with pytest.raises(UserError, match="unknown head 'lsmt'"):
            vidfuse.extract(dataset, heads=["lsmt"], **CHEAP)
        with pytest.raises(UserError, match="did you mean 'backbone'"):
            vidfuse.extract(dataset, bakbone="resnet18")  # type: ignore[call-arg]


class TestTrain:
    def test_a_run_leaves_what_is_needed_to_repeat_it(self, dataset: Path, tmp_path: Path) -> None:
        cache = str(tmp_path / "cache")
        report = train(dataset, cache)
        assert (report.clips, report.computed, report.reused) == (21, 21, 0)
        assert report.split == {"train": 18, "val": 3, "test": 3}
        assert report.classes == ["class0", "class1", "class2"]
        assert report.validation is not None
        assert report.validation.clips == 3
        assert {"imports", "scan", "cache", "decode", "forward", "first_step", "total"} <= set(
            report.timings
        )
        json.dumps(report.to_dict())
        run = Path(report.run)
        assert sorted(path.name for path in run.iterdir()) == [
            ".lock",
            "config.toml",
            "metrics.jsonl",
            "model.safetensors",
            "run.json",
        ]
        assert run.parent == Path("runs")
        assert latest_run() == run
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        refit = [*range(1, report.best_epoch + 1)]
        assert [epoch["epoch"] for epoch in epochs] == [1, 2, *refit]
        # The configuration says all there is to say: the same settings give the same bits.
        settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
        again = vidfuse.train(dataset, **settings)
        assert again.run != report.run
        one, other = (load_file(each.model) for each in (report, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert again.validation == report.validation

    def test_another_head_decodes_nothing(
        self, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = str(tmp_path / "cache")
        train(dataset, cache, head="lstm", grid="4")
        no_decoding(monkeypatch)
        for head, grid in (("mean", None), ("lstm", None), ("middle", "1")):
            report = train(dataset, cache, head=head, grid=grid)
            assert report.reused == report.clips == 21

    @pytest.mark.parametrize("option", [{"hiden": 8}, {"hidden": "many"}, {"hidden": 0}])
    def test_settings_that_the_head_refuses_are_known_before_anything_is_decoded(
        self, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: Any
    ) -> None:
        no_decoding(monkeypatch)
        with pytest.raises(UserError, match="head 'lstm'"):
            train(dataset, str(tmp_path / "cache"), head_options=option)

    def test_another_seed_gives_another_model(self, dataset: Path, shared_cache: str) -> None:
        one = load_file(train(dataset, shared_cache, split="random", seed=0).model)
        other = load_file(train(dataset, shared_cache, split="random", seed=1).model)
        assert not all(torch.equal(one[name], other[name]) for name in one)

    def test_jitter_caches_more_and_predicts_with_the_same_frames(
        self, dataset: Path, shared_cache: str
    ) -> None:
        report = train(dataset, shared_cache, sampling="segment")
        assert report.spec["frames"] == 12
        model = vidfuse.load_model(report.model)
        assert (model.spec.frames, model.cached.frames, model.sampling) == (4, 12, "segment")

    def test_failing_clips_within_the_limit(
        self, dataset: Path, tmp_path: Path, shared_cache: str
    ) -> None:
        data = shutil.copytree(dataset, tmp_path / "data")
        torn = data / "class0" / "v00.mkv"
        torn.write_bytes(torn.read_bytes()[:80])
        heard = Heard()
        with pytest.raises(InputError, match="1 of 21 clips") as error:
            train(data, shared_cache, max_failed=0.0)
        assert str(torn) in str(error.value)
        assert error.value.exit_code == 1
        assert not Path("runs").exists()
        report = train(data, shared_cache, max_failed=0.05, reporter=heard)
        assert report.failed == 1
        assert [failure.path for failure in report.failures] == [str(torn)]
        (line,) = (Path(report.run) / "failures.jsonl").read_text().splitlines()
        assert json.loads(line) == report.failures[0].to_dict()
        assert any(str(torn) in warning for warning in heard.warnings)

    def test_the_same_content_on_two_sides_is_reported(
        self, dataset: Path, tmp_path: Path, shared_cache: str
    ) -> None:
        heard = Heard()
        rows = ["path,label,split"]
        for i, path in enumerate(sorted(dataset.rglob("*.mkv"))):
            rows.append(f"{path},{path.parent.name},{('train', 'val', 'test')[i % 3]}")
        copy = shutil.copy(rows[1].split(",")[0], tmp_path / "copy.mkv")
        manifest = tmp_path / "manifest.csv"
        manifest.write_text("\n".join([*rows, f"{copy},class0,test"]))
        report = train(manifest, shared_cache, reporter=heard)
        leaks = [line for line in report.warnings if line.startswith("same content")]
        assert leaks
        assert set(leaks) <= set(heard.warnings)

    def test_the_same_content_is_on_one_side_of_a_split_of_our_own(
        self, dataset: Path, tmp_path: Path, shared_cache: str
    ) -> None:
        data = shutil.copytree(dataset, tmp_path / "data")
        for label in range(3):
            original = sorted((data / f"class{label}").iterdir())[0]
            for copy in range(4):
                shutil.copy(original, original.with_name(f"copy{copy}.mkv"))
        for seed in range(3):
            report = train(data, shared_cache, seed=seed, epochs=1, head="mean", head_options={})
            assert not [line for line in report.warnings if line.startswith("same content")]

    def test_splits_by_group_and_official(
        self, dataset: Path, tmp_path: Path, shared_cache: str
    ) -> None:
        paths = sorted(dataset.rglob("*.mkv"))
        rows = ["path,label,group,split"]
        for i, path in enumerate(paths):
            part = ("train", "train", "val", "test")[i % 4]
            rows.append(f"{path},{path.parent.name},g{i % 8},{part}")
        manifest = tmp_path / "manifest.csv"
        manifest.write_text("\n".join(rows))
        official = train(manifest, shared_cache)
        assert official.split == {"train": 12, "val": 6, "test": 6}
        grouped = train(manifest, shared_cache, split="group")
        assert "by group" in grouped.protocol
        assert "random" in train(manifest, shared_cache, split="random").protocol
        with pytest.raises(UserError, match="split"):
            train(manifest, shared_cache, split="7")
        with pytest.raises(UserError, match="unknown split"):
            train(manifest, shared_cache, split="gruop")

    def test_no_validation_clips(self, dataset: Path, tmp_path: Path, shared_cache: str) -> None:
        """A class that only validation has leaves nothing to validate on, and no error."""
        paths = sorted(dataset.rglob("*.mkv"))
        rows = ["path,label,split"]
        rows += [f"{path},{path.parent.name},train" for path in paths if "class2" not in str(path)]
        rows += [f"{path},{path.parent.name},val" for path in paths if "class2" in str(path)]
        manifest = tmp_path / "manifest.csv"
        manifest.write_text("\n".join(rows))
        report = train(manifest, shared_cache)
        assert report.validation is None
        assert report.best_epoch == report.epochs == 2

    def test_one_class_is_not_enough(
        self, dataset: Path, tmp_path: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        no_decoding(monkeypatch)
        manifest = tmp_path / "manifest.csv"
        paths = sorted((dataset / "class0").iterdir())
        manifest.write_text("path,label\n" + "".join(f"{path},one\n" for path in paths))
        with pytest.raises(UserError, match="classes"):
            train(manifest, shared_cache)
        assert not Path("runs").exists()

    def test_out_is_the_run_folder_and_no_model_is_overwritten(
        self, dataset: Path, tmp_path: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "größer run"
        report = train(dataset, shared_cache, out=str(out))
        assert report.run == str(out)
        assert (out / "model.safetensors").exists()
        assert latest_run() is None, "this run is not in runs/"
        before = (out / "model.safetensors").read_bytes()
        # Told at once, and not after the features were extracted.
        monkeypatch.setattr("vidfuse.training.data.TrainingData.gather", None)
        with pytest.raises(UserError, match="already holds a model"):
            train(dataset, shared_cache, out=str(out))
        assert (out / "model.safetensors").read_bytes() == before

    def test_out_that_is_a_file(self, dataset: Path, tmp_path: Path, shared_cache: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write "):
            train(dataset, shared_cache, out=str(tmp_path / "file"))

    def test_ctrl_c_saves_the_best_weights(
        self, dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        epochs = Fit.__iter__

        def interrupted(fit: Fit) -> Iterator[Epoch]:
            yield from islice(epochs(fit), 2)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Fit, "__iter__", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(dataset, shared_cache, epochs=50)
        run = latest_run()
        assert run is not None
        model = vidfuse.load_model(run)
        assert model.metadata["interrupted"] is True
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
        assert len(list(vidfuse.predict([next(dataset.rglob("*.mkv"))], cache=shared_cache))) == 1

    def test_ctrl_c_before_the_first_epoch_leaves_no_model(
        self, dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_fit: Fit) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(Fit, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(dataset, shared_cache)
        assert latest_run() is None
        assert not list(Path("runs").rglob("*.safetensors"))

    def test_the_model_knows_what_it_saw(self, dataset: Path, shared_cache: str) -> None:
        from vidfuse.data.content import content_hash

        model = vidfuse.load_model(train(dataset, shared_cache).model)
        assert {part: len(hashes) for part, hashes in model.seen.items()} == {"train": 21, "val": 0}
        kept = vidfuse.load_model(train(dataset, shared_cache, refit=False).model)
        assert {part: len(hashes) for part, hashes in kept.seen.items()} == {"train": 18, "val": 3}
        unseen = [
            path for path in dataset.rglob("*.mkv") if not model.in_training(content_hash(path))
        ]
        assert len(unseen) == 3
        facts = model.metadata
        assert {"dataset", "split", "protocol", "seed", "config", "versions", "created"} <= set(
            facts
        )
        assert facts["validation"]["clips"] == 3

    def test_own_weights_are_in_the_model(
        self, dataset: Path, tmp_path: Path, shared_cache: str
    ) -> None:
        from torchvision.models import resnet18

        torch.manual_seed(3)
        weights = tmp_path / "own.pth"
        torch.save(resnet18(weights=None).state_dict(), weights)
        report = train(dataset, shared_cache, weights=os.path.relpath(weights))
        settings = tomllib.loads((Path(report.run) / "config.toml").read_text(encoding="utf-8"))
        assert settings["weights"] == str(weights)  # read again in another folder, too
        clip = next(dataset.rglob("*.mkv"))
        options: dict[str, Any] = {"model": report.model, "use_cache": False}
        (before,) = vidfuse.predict([clip], **options)
        weights.unlink()
        (after,) = vidfuse.predict([clip], **options)
        assert before == after

    def test_a_full_disk_at_the_run_folder(
        self, dataset: Path, shared_cache: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_bytes = Path.write_bytes

        def full(path: Path, content: bytes) -> int:
            if path.name.startswith("config.toml"):
                raise OSError(28, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left"):
            train(dataset, shared_cache)


SECOND_RUN = """
import sys
import vidfuse
assert not {"torch", "numpy", "torchvision"} & set(sys.modules)
report = vidfuse.train(sys.argv[1], backbone="resnet18", weights=sys.argv[3], layer="layer1",
                       size=32, frames=4, epochs=2, cache=sys.argv[2])
assert report.reused == report.clips, report
for name in ("torchvision", "torch._dynamo", "av", "decord", "sklearn", "scipy", "pandas"):
    assert name not in sys.modules, f"{name} was imported"
"""


@pytest.mark.parametrize("own", [False, True])
def test_a_run_from_the_cache_imports_only_what_it_uses(
    dataset: Path, tmp_path: Path, shared_cache: str, own: bool
) -> None:
    weights = "random"
    if own:
        from torchvision.models import resnet18

        weights = str(tmp_path / "own.pth")
        torch.save(resnet18().state_dict(), weights)
    train(dataset, shared_cache, weights=weights)
    done = subprocess.run(
        [sys.executable, "-c", SECOND_RUN, str(dataset), shared_cache, weights],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


class TestLoadedModel:
    @pytest.fixture
    def run(
        self, dataset: Path, shared_cache: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Path:
        out = tmp_path_factory.mktemp("runs") / "one"
        train(dataset, shared_cache, out=out)
        (out.parent / "latest").write_text("one\n")
        return out

    def test_it_predicts_as_the_function_does(
        self, dataset: Path, run: Path, shared_cache: str
    ) -> None:
        clips = sorted(dataset.rglob("*.mkv"))[:3]
        expected = list(vidfuse.predict(clips, model=run, cache=shared_cache, workers=1))
        with vidfuse.load_model(run.parent / "latest", cache=shared_cache, workers=1) as model:
            assert model.predict(clips) == expected
            assert model.predict(str(clips[0]), top=1).top == expected[0].top[:1]
            assert [record.ok for record in model.predict([clips[0], ""])] == [True, False]
            metrics = model.evaluate(dataset)
        assert (metrics.clips, metrics.in_training) == (3, 0)

    def test_what_is_known_of_it_are_attributes(self, run: Path) -> None:
        model = vidfuse.load_model(run)
        assert model.classes == ["class0", "class1", "class2"]
        assert model.head is model.model.head
        assert (model.head_name, model.spec.frames) == ("lstm", 4)
        assert "lstm, 3 classes" in repr(model)
        with pytest.raises(AttributeError):
            model.heads  # noqa: B018


def test_the_package_offers_what_the_module_does() -> None:
    assert sorted(api.__all__) == sorted(set(vidfuse.__all__) - {"__version__"})
