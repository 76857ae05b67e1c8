"""Results are what the commands print as JSON, and can be made of it again."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_type_hints

import pytest

from vidfuse import arguments, results
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.comparison.config import CompareConfig
from vidfuse.cutting.config import CutConfig
from vidfuse.features.spec import FeatureConfig
from vidfuse.inference.config import InferenceConfig, TimelineConfig
from vidfuse.results import ClassScore, Failure, Inspection, Record
from vidfuse.settings import MachineConfig, Settings, typed_fields
from vidfuse.training.config import TrainConfig

RECORD = Record(
    path="a.mp4",
    ok=True,
    label="run",
    score=0.5,
    top=[ClassScore(label="run", score=0.5)],
    warnings=[],
    error=None,
)
INSPECTION: dict[str, Any] = {
    "name": "d", "layout": "folders", "clips": 1, "classes": {"run": 1}, "unlabelled": 0,
    "groups": 0, "splits": {}, "split_source": None, "problems": [], "feature_bytes": {},
}  # fmt: skip


def test_fields_that_do_not_apply_are_left_out() -> None:
    assert list(RECORD.to_dict()) == ["path", "ok", "label", "score", "top", "warnings", "error"]
    chosen = dataclasses.replace(RECORD, glimpses=[])
    assert chosen.to_dict() == RECORD.to_dict() | {
        "glimpses": [],
        "frames_encoded": None,
        "frames_decoded": None,
    }
    assert list(Inspection(**INSPECTION).to_dict()) == list(INSPECTION)
    read = Inspection(**INSPECTION, unreadable=[Failure(path="a", error="b")])
    assert read.to_dict()["unreadable"] == [{"path": "a", "error": "b"}]
    assert read.to_dict()["frames"] is None


@pytest.mark.parametrize("result", [RECORD, Inspection(**INSPECTION, unreadable=[])])
def test_a_result_can_be_made_of_its_json_again(result: results.Result) -> None:
    assert type(result).from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize(
    ("settings", "cls"),
    [
        (arguments.MachineSettings, MachineConfig),
        (arguments.InferenceSettings, InferenceConfig),
        (arguments.TimelineSettings, TimelineConfig),
        (arguments.FeatureSettings, FeatureConfig),
        (arguments.TrainSettings, TrainConfig),
        (arguments.CompareSettings, CompareConfig),
        (arguments.AdaptSettings, AdaptConfig),
        (arguments.CutSettings, CutConfig),
    ],
)
def test_keywords_are_the_fields_of_the_settings(settings: type, cls: type[Settings]) -> None:
    keywords = get_type_hints(settings)
    known = {field.name: (field, kind, optional) for field, kind, optional in typed_fields(cls)}
    assert keywords.keys() == known.keys() - {"heads", "backbones"}
    for name, keyword in keywords.items():
        field, kind, optional = known[name]
        text = str(keyword)
        assert ("None" in text or "Optional" in text) is optional, name
        if "Literal" in text:
            named = keyword.__args__[0] if optional else keyword
            assert named.__args__ == tuple(field.metadata["choices"]), name
        else:
            assert kind.__name__ in text, name
