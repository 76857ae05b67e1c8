"""A model in memory, as ``vidfuse.load_model`` gives it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self, overload

from vidfuse.arguments import PATHS, SUBSETS, AnyPath, Subset, as_inputs, as_path, expect
from vidfuse.errors import InputError
from vidfuse.machine import compute_alone
from vidfuse.progress import Reporter
from vidfuse.results import Evaluation, Record

if TYPE_CHECKING:
    from vidfuse.heads.base import Head
    from vidfuse.inference.config import InferenceConfig
    from vidfuse.inference.predictor import Ensemble
    from vidfuse.model import Model


class LoadedModel:
    """A model that predicts, with its weights and decode processes until it is closed.

    All attributes of the model itself (``vidfuse.model.Model``) are attributes of this, too:
    ``head_name``, ``spec``, ``metadata``, ``probabilities``, ``save``, …

    Attributes:
        model: The model itself.
        head: Its head, a ``torch.nn.Module``.
        classes: Class names in the order of the head's logits.
    """

    def __init__(self, model: Model, config: InferenceConfig, reporter: Reporter) -> None:
        self.model = model
        self.head: Head = model.head
        self.classes: list[str] = model.classes
        self._config = config
        self._reporter = reporter
        self._started: Ensemble | None = None
        self._owner = os.getpid()
        self._turn = threading.Lock()  # threads of the caller predict one after the other

    @overload  # text is also an iterable of texts
    def predict(self, inputs: AnyPath, *, top: int = 5) -> Record: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, inputs: Iterable[AnyPath | InputError], *, top: int = 5) -> list[Record]: ...
    def predict(
        self, inputs: AnyPath | Iterable[AnyPath | InputError], *, top: int = 5
    ) -> Record | list[Record]:
        """Predict the class of clips.

        Args:
            inputs: A video file, or several.
            top: How many classes each record lists.

        Returns:
            The record of one video; of several a list, in order.
        """
        from vidfuse.inference.predict import AT_ONCE, predict_part

        compute_alone()
        expect("top", top, int, least=1)
        paths = [item for item in as_inputs("inputs", inputs) if item is not None]
        records: list[Record] = []
        with self._turn:
            for start in range(0, len(paths), AT_ONCE):
                records += predict_part(self._ensemble, paths[start : start + AT_ONCE], top)
        return records[0] if isinstance(inputs, PATHS) else records

    def evaluate(
        self,
        dataset: AnyPath,
        *,
        subset: Subset = "auto",
        split: str | None = None,
        layout: str | None = None,
    ) -> Evaluation:
        """Measure it on a dataset; the arguments are those of ``vidfuse.evaluate``."""
        from vidfuse.inference.evaluate import evaluate_dataset

        compute_alone()
        root = as_path("dataset", dataset)
        expect("subset", subset, str, among=SUBSETS)
        expect("split", split, str, optional=True)
        expect("layout", layout, str, optional=True)
        with self._turn:
            return evaluate_dataset(
                self._ensemble,
                root,
                subset=subset,
                split=split,
                layout=layout,
                reporter=self._reporter,
            )

    def close(self) -> None:
        """End the decode processes; the next prediction would start new ones."""
        if self._started is not None and self._owner == os.getpid():
            self._started.close()
        self._started = None

    @property
    def _ensemble(self) -> Ensemble:
        from vidfuse.inference.predictor import Ensemble

        if self._started is None or self._owner != os.getpid():  # a fork has no threads of it
            self._owner = os.getpid()
            self._started = Ensemble([self.model], self._config, self._reporter)
        return self._started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def __repr__(self) -> str:
        name = self.model.path or "not saved"
        return f"LoadedModel({name}, {self.model.head_name}, {len(self.classes)} classes)"
