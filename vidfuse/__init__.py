"""Turn a folder of videos into a trained, honestly measured action classifier.

The functions are those of ``vidfuse.api``; importing the package imports none of what they need.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as of typing, whose import takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from vidfuse.api import (
        LoadedModel,
        adapt,
        bench,
        compare,
        cut,
        evaluate,
        evaluate_timelines,
        extract,
        inspect,
        list_backbones,
        list_heads,
        load_model,
        predict,
        predict_live,
        predict_timelines,
        trace_clips,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "LoadedModel",
    "__version__",
    "adapt",
    "bench",
    "compare",
    "cut",
    "evaluate",
    "evaluate_timelines",
    "extract",
    "inspect",
    "list_backbones",
    "list_heads",
    "load_model",
    "predict",
    "predict_live",
    "predict_timelines",
    "trace_clips",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vidfuse import api

        return getattr(api, name)
    raise AttributeError(f"module 'vidfuse' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
