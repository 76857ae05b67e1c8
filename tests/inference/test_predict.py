"""One record per input, in order, whatever the input."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import vidfuse
from vidfuse.backbones import BACKBONES, DEFAULT_BACKBONE, choose, place_of
from vidfuse.backbones.load import read_weights
from vidfuse.data import content as stamp
from vidfuse.errors import InputError, UserError
from vidfuse.rpc import Child

INFO = BACKBONES["thin_resnet"]
assert INFO.weights is not None
WEIGHTS = INFO.weights
FIELDS = ["path", "ok", "label", "score", "top", "warnings", "error"]


@pytest.fixture
def predict(run: str, shared_cache: str) -> Any:
    def go(*inputs: Any, **settings: Any) -> list[dict[str, Any]]:
        options = {"model": run, "cache": shared_cache, "workers": 1}
        return [record.to_dict() for record in vidfuse.predict(inputs, **{**options, **settings})]

    return go


def test_a_record(predict: Any, dataset: Path) -> None:
    path = next(dataset.rglob("*.mkv"))
    (record,) = predict(str(path))
    assert list(record) == FIELDS
    assert (record["path"], record["ok"], record["error"]) == (str(path), True, None)
    assert {"label": record["label"], "score": record["score"]} == record["top"][0]
    scores = [each["score"] for each in record["top"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    (short,) = predict(path, top=1)
    assert short["top"] == record["top"][:1]


def test_every_input_gets_its_record_in_order(predict: Any, dataset: Path, tmp_path: Path) -> None:
    good, other = sorted(dataset.rglob("*.mkv"))[:2]
    empty, text, torn, folder = (tmp_path / name for name in ("e.mp4", "t.mp4", "x.mkv", "d"))
    empty.touch()
    text.write_text("this is no video\n" * 100)
    torn.write_bytes(good.read_bytes()[:90])
    folder.mkdir()
    copy = shutil.copy(good, tmp_path / "ein schöner Name.mkv")
    missing = tmp_path / "missing.mp4"
    inputs = [good, missing, empty, InputError("*.avi", "matches nothing"), text, good, torn]
    records = predict(*inputs, other, copy, folder)
    assert [record["path"] for record in records] == [
        *(str(each.path if isinstance(each, InputError) else each) for each in inputs),
        *(str(other), str(copy), str(folder)),
    ]
    ok = [True, False, False, False, False, True, False, True, True, False]
    assert [record["ok"] for record in records] == ok
    for record in records:
        assert list(record) == FIELDS
        if not record["ok"]:
            assert record["error"]
            assert (record["label"], record["score"], record["top"]) == (None, None, [])
    assert "empty" in records[2]["error"]
    assert records[3]["error"] == "matches nothing"
    assert records[0]["top"] == records[5]["top"] == records[8]["top"]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_clips_shorter_than_the_sampling_wants(predict: Any, make_clip: Any, frames: int) -> None:
    path = make_clip(f"{frames}.mkv", seed=70, frames=frames)
    (record,) = predict(path)
    assert record["ok"], record["error"]


def test_an_hour(predict: Any, tmp_path: Path) -> None:
    """A frame every ten seconds, as a surveillance camera may give."""
    import av

    path = tmp_path / "hour.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.gop_size = 10
        for i in range(360):
            image = np.full((32, 32, 3), rng.integers(0, 255), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i * 100
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(3600e6, rel=0.01)
    (record,) = predict(path)
    assert record["ok"], record["error"]


def test_inputs_are_taken_as_they_come(dataset: Path, run: str) -> None:
    """A list without an end is answered in parts."""
    path = next(dataset.rglob("*.mkv"))

    def endless() -> Any:
        while True:
            yield path

    records = vidfuse.predict(endless(), model=run, workers=1)
    assert next(records).ok


def test_what_came_is_answered_before_more_is_asked_for(
    run: str, shared_cache: str, dataset: Path
) -> None:
    asked: list[Any] = []
    paths = sorted(dataset.rglob("*.mkv"))[:3]

    def arriving() -> Any:
        for item in (None, paths[0], None, None, paths[1], paths[2], None):
            asked.append(item)
            yield item

    records = vidfuse.predict(arriving(), model=run, cache=shared_cache, workers=1)
    assert next(records).path == str(paths[0])
    assert asked == [None, paths[0], None]
    assert [record.path for record in records] == [str(path) for path in paths[1:]]


def test_decode_processes_are_kept_for_the_whole_command(
    run: str, dataset: Path, started: list[Child]
) -> None:
    inputs = [each for path in sorted(dataset.rglob("*.mkv"))[:3] for each in (path, None)]
    records = vidfuse.predict(inputs, model=run, use_cache=False, workers=1)
    assert all(record.ok for record in records)
    assert len(started) == 1
    assert not started[0].alive()


def test_clips_are_being_decoded_before_torch_is_imported(run: str, dataset: Path) -> None:
    """The import takes as long as all the rest of a short command."""
    code = """
import sys
import vidfuse
from vidfuse import rpc

begin = rpc.Child.__init__

def told(self, *arguments):
    print("torch.nn" in sys.modules)
    begin(self, *arguments)

rpc.Child.__init__ = told
(record,) = vidfuse.predict(sys.argv[2:], model=sys.argv[1], use_cache=False)
print(record.ok)
"""
    words = [sys.executable, "-c", code, run, str(next(dataset.rglob("*.mkv")))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["False", "True"]


def test_the_latest_run_is_the_model(dataset: Path, run: str, shared_cache: str) -> None:
    path = next(dataset.rglob("*.mkv"))
    with pytest.raises(UserError, match="no model yet") as error:
        vidfuse.predict([path])
    assert "vidfuse train" in str(error.value.hint)
    shutil.copytree(run, "runs/mine")
    Path("runs/latest").write_text("mine\n")
    assert next(vidfuse.predict([path], cache=shared_cache)).ok


def test_wrong_usage(predict: Any, dataset: Path) -> None:
    path = next(dataset.rglob("*.mkv"))
    with pytest.raises(UserError, match="no such model"):
        predict(path, model="nowhere")
    with pytest.raises(UserError, match="did you mean 'workers'"):
        predict(path, worker=3)
    with pytest.raises(UserError, match="is below 1"):
        predict(path, workers=0)
    with pytest.raises(UserError, match="cannot be used here"):
        predict(path, device="quantum")


class TestPublishedWeights:
    """Weights that torchvision publishes are not in the model file; these stand in for them."""

    @pytest.fixture
    def model(self, train: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        import torch
        from torchvision.models import resnet18

        path = choose("resnet18").weights
        assert path is not None
        path.parent.mkdir(parents=True)
        torch.manual_seed(9)
        torch.save(resnet18(weights=None).state_dict(), path)
        monkeypatch.setattr(stamp, "TICK_NS", -1)
        return str(train(dataset, weights=None))

    def test_they_are_found_again(self, model: str, predict: Any, dataset: Path) -> None:
        assert vidfuse.load_model(model).backbone_weights is None
        (record,) = predict(next(dataset.rglob("*.mkv")), model=model, use_cache=False)
        assert record["ok"]

    def test_others_in_their_place_are_refused(
        self, model: str, predict: Any, dataset: Path
    ) -> None:
        import torch
        from torchvision.models import resnet18

        path = choose("resnet18").weights
        assert path is not None
        torch.manual_seed(10)
        torch.save(resnet18(weights=None).state_dict(), path)
        with pytest.raises(UserError, match="are not the weights") as error:
            predict(next(dataset.rglob("*.mkv")), model=model)
        assert str(path) in error.value.message
        assert error.value.hint

    def test_they_are_fetched_where_they_are_missing(
        self, model: str, predict: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from urllib.error import URLError

        def no_network(_request: object) -> None:
            raise URLError("no route to host")

        path = choose("resnet18").weights
        assert path is not None
        path.unlink()
        monkeypatch.setattr("torch.hub.urlopen", no_network)
        with pytest.raises(UserError, match="cannot download"):
            predict(next(dataset.rglob("*.mkv")), model=model)


def test_a_decode_policy_of_another_version(run: str, dataset: Path, tmp_path: Path) -> None:
    model = vidfuse.load_model(run).model
    model.spec = replace(model.spec, decode="auto/99")
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="auto/99"):
        vidfuse.predict([next(dataset.rglob("*.mkv"))], model=tmp_path)


WITHOUT_TORCHVISION = """
import sys
import vidfuse
(record,) = vidfuse.predict(sys.argv[1], model=sys.argv[2], cache=sys.argv[3], workers=1)
assert record.ok, record
assert "vidfuse.backbones.thin_efficientnet" in sys.modules, "nothing was encoded"
assert "torchvision" not in sys.modules
"""


def test_the_default_encoder_needs_no_torchvision(
    train: Any, dataset: Path, tmp_path: Path
) -> None:
    default = {"backbone": DEFAULT_BACKBONE, "weights": None, "layer": None, "size": None}
    given = (str(next(dataset.rglob("*.mkv"))), train(dataset, **default), str(tmp_path))
    command = [sys.executable, "-c", WITHOUT_TORCHVISION, *given]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_of_another_bundled_network_is_refused(
    train: Any, predict: Any, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = {"backbone": "thin_resnet", "weights": None}
    model = str(train(dataset, **bundled))
    path = next(dataset.rglob("*.mkv"))
    (record,) = predict(path, model=model)
    assert record["ok"]
    other = tmp_path / "thin_resnet.safetensors"
    state = {name: value + 1 for name, value in read_weights(place_of(WEIGHTS)).items()}
    save_file(state, other)

    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    weights = replace(WEIGHTS, file=str(other), sha256=digest)
    monkeypatch.setitem(BACKBONES, "thin_resnet", replace(INFO, weights=weights))
    with pytest.raises(UserError, match="are not the weights") as error:
        predict(path, model=model)
    assert "another one now" in str(error.value.hint)
