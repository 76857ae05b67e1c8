"""Whatever Python code gives to the public functions is taken, or refused in a user's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidfuse
from vidfuse.errors import InputError, UserError

untyped: Any = vidfuse  # as code without types calls it
CHEAP: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "random",
    "layer": "layer1",
    "size": 32,
    "frames": 4,
}


@pytest.fixture(scope="module")
def model(dataset: Path, shared_cache: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arguments") / "run"
    vidfuse.train(dataset, **CHEAP, epochs=1, workers=1, cache=Path(shared_cache), out=out)
    return out


@pytest.fixture(scope="module")
def clip(dataset: Path) -> Path:
    return next(iter(sorted(dataset.rglob("*.mkv"))))


@pytest.mark.parametrize(
    "given",
    [
        str,
        Path,
        lambda clip: str(clip).encode(),
        lambda clip: [str(clip).encode()],
        lambda clip: (clip,),
        lambda clip: {clip},
        lambda clip: iter([clip]),
        lambda clip: np.array([str(clip)]),
    ],
)
def test_a_clip_may_be_named_in_any_way(
    model: Path, clip: Path, shared_cache: str, given: Callable[[Path], Any]
) -> None:
    (record,) = vidfuse.predict(given(clip), model=model, cache=Path(shared_cache), workers=1)
    assert (record.path, record.ok) == (str(clip), True)


@pytest.mark.parametrize("empty", ["", b"", [""], [b""]])
def test_an_empty_path_is_an_input_that_fails(model: Path, empty: Any) -> None:
    (record,) = vidfuse.predict(empty, model=model)
    assert record.error == "an empty path"


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([5], r"inputs\[0\]: 5 is not a path \(text, bytes or os.PathLike\)"),
        (["a", ["b"]], r"inputs\[1\]: \['b'\] is not a path"),
        (5, "inputs: 5 is not a path .*, or several"),
        (None, "inputs: None is not a path"),
        (True, "inputs: True is not a path"),
        ({"a.mp4": 1}, "inputs: {.*} is not a path"),
    ],
)
def test_what_is_no_input_is_refused_at_the_call(model: Path, inputs: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        vidfuse.predict(inputs, model=model)


def test_an_open_file_is_not_its_lines(model: Path) -> None:
    with (
        Path(__file__).open() as file,
        pytest.raises(UserError, match=r"inputs: <.*> is not"),
    ):
        vidfuse.predict(file, model=model)


def test_what_comes_before_a_mistake_is_answered(
    model: Path, clip: Path, shared_cache: str
) -> None:
    def inputs() -> Iterator[Any]:
        yield from (clip, InputError("b.mp4", "gone"), 5, clip)

    records = vidfuse.predict(inputs(), model=model, cache=shared_cache, workers=1)
    assert [next(records).ok, next(records).ok] == [True, False]
    with pytest.raises(UserError, match=r"inputs\[2\]: 5 is not a path"):
        next(records)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"top": 0}, "top: 0 is not a whole number of at least 1"),
        ({"top": True}, "top: True is not a whole number"),
        ({"model": 5}, "model: 5 is not a path"),
        ({"model": []}, "model: no path at all"),
        ({"model": [None]}, r"model\[0\]: None is not a path"),
        ({"model": ""}, "model: an empty path"),
        ({"cache": 5}, "cache: 5 is not text"),
        ({"reporter": True}, "reporter: True is not Reporter"),
    ],
)
def test_predict_refuses_at_the_call(
    model: Path, clip: Path, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        vidfuse.predict(clip, **{"model": model, **arguments})


@pytest.mark.parametrize("path", [5, None, "", [], ["a"], object()])
@pytest.mark.parametrize("name", ["compare", "evaluate", "inspect", "load_model"])
def test_a_dataset_is_one_path(name: str, path: Any) -> None:
    with pytest.raises(UserError, match=r"is not a path|an empty path"):
        getattr(vidfuse, name)(path)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: untyped.train(5), "dataset: 5 is not a path"),
        (lambda: untyped.train("data", folds=1), "folds: 1 is not a whole number of at least 2"),
        (lambda: untyped.train(resume=5), "resume: 5 is not a path"),
        (lambda: untyped.evaluate("data", subset="tset"), "subset 'tset'. Did you mean 'test'"),
        (lambda: untyped.evaluate("data", split=1), "split: 1 is not text"),
        (lambda: untyped.compare("data", heads=[5]), r"heads\[0\]: 5 is not text"),
        (lambda: untyped.extract(5), "clips: 5 is not a path .* or a Clip"),
        (lambda: untyped.extract([5]), r"clips\[0\]: 5 is not a path"),
        (lambda: untyped.extract("data", heads=[]), "heads: no name"),
        (lambda: untyped.extract("data", out=5), "out: 5 is not a path"),
        (lambda: untyped.adapt([5], out="a.safetensors"), r"clips\[0\]: 5 is not a path"),
        (lambda: untyped.adapt("data", out=5), "out: 5 is not a path"),
        (lambda: untyped.bench([5]), r"clips\[0\]: 5 is not a path"),
        (lambda: untyped.bench("data", repeats=0), "repeats: 0 is not a whole number of at least"),
        (lambda: untyped.bench("data", seconds=float("nan")), "seconds: nan is not a number of"),
        (lambda: untyped.list_heads(5), "names: 5 is not text"),
        (lambda: untyped.list_heads(frames=0), "frames: 0 is not a whole number of at least 1"),
        (lambda: untyped.inspect("data", read=1), "read: 1 is not True or False"),
        (lambda: untyped.inspect("data", cache=5), "cache: 5 is not a path"),
    ],
)
def test_every_function_says_what_it_takes(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        call()


def test_videos_may_be_extracted_by_their_paths(
    clip: Path, shared_cache: str, tmp_path: Path
) -> None:
    report = vidfuse.extract([clip], **CHEAP, cache=Path(shared_cache), out=tmp_path / "out")
    assert (report.clips, report.failed) == (1, 0)


def test_one_name_of_a_head_is_not_its_letters() -> None:
    assert [head.name for head in vidfuse.list_heads("mean")] == ["mean"]
