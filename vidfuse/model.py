"""The model file: a head, the backbone it needs, and all that is known about both.

One ``.safetensors`` file. Its metadata holds a JSON manifest; nothing in it is executed. What the
manifest says is read first and without torch, whose import takes seconds in which videos can be
decoded already.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidfuse.atomic import ADVICE, write_whole
from vidfuse.backbones import RANDOM_WEIGHTS, BackboneChoice, choose
from vidfuse.errors import UnknownNameError, UserError, raise_if_out_of_memory
from vidfuse.features.spec import FeatureSpec
from vidfuse.features.store import Entry
from vidfuse.fusion import build_head, head_class
from vidfuse.manifest import (
    check_finite,
    check_format,
    check_manifest,
    check_tensors,
    describe_head,
)
from vidfuse.video.sampling import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidfuse.backbones.load import Backbone
    from vidfuse.fusion.base import Head

FORMAT = 1
SEEN_DIGITS = 32  # of each content hash kept: 128 bits tell any two videos apart
BATCH = 64


@dataclass(kw_only=True)
class ModelCard:
    """What is known about a classifier besides its weights.

    Attributes:
        classes: Class names in the order of the head's logits.
        spec: The features that prediction extracts.
        cached: The features that training cached, which may hold more frames.
        sampling: The rule that chose the frames.
        choice: The backbone. Its ``weights`` path is only where they were found at training.
        facts: What is known about training: dataset, split, protocol, metrics, versions, config.
        seen: Content hashes (shortened) of the clips it saw: ``train`` and ``val``.
        path: The file it was read from.
    """

    classes: list[str]
    spec: FeatureSpec
    cached: FeatureSpec
    sampling: str
    choice: BackboneChoice
    facts: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def _seen(self) -> frozenset[str]:
        """Shortened hashes of all clips that it saw in training or validation."""
        return frozenset(digest for part in self.seen.values() for digest in part)

    def saw(self, content: str) -> bool:
        """Whether a clip of this content was used in training or validation."""
        return content[:SEEN_DIGITS] in self._seen


@dataclass(kw_only=True)
class StoredModel(ModelCard):
    """A model file of which only the manifest was read.

    Attributes:
        head: The manifest's words on the head.
        included: Whether the file carries the backbone's weights.
    """

    path: Path
    head: dict[str, Any]
    included: bool

    @property
    def head_name(self) -> str:
        """Name of the head."""
        return str(self.head["name"])

    @cached_property
    def chooses_frames(self) -> bool:
        """Whether the head chooses the frames that it looks at."""
        known = self.head.get("chooses_frames")
        return head_class(self.head_name).chooses_frames if known is None else bool(known)

    def load(self) -> Model:
        """The model, with its weights.

        Raises:
            UserError: The file is damaged, or needs a head that is not installed.
        """
        from safetensors import safe_open

        with _told(self.path):
            with safe_open(self.path, framework="pt") as tensors:
                metadata = tensors.metadata()
                slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                header = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
                with self._building():
                    check_tensors(self.head, len(self.classes), header, backbone=self.included)
                state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            if metadata["crc32"] != _checksum(state, metadata["vidfuse"]):
                raise ValueError("its checksum does not fit")
            check_finite(state)
            card = {each.name: getattr(self, each.name) for each in fields(ModelCard)}
            own = _part(state, "backbone.") if self.included else None
            return Model(**card, head=self._head(state), backbone_weights=own)

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Say of which file it is the head that cannot be built."""
        try:
            yield
        except UnknownNameError as error:
            raise UserError(
                f"{self.path}: needs the head '{self.head_name}', which is not installed here",
                "Install the package that this head came from.",
            ) from error
        except UserError as error:
            raise UserError(f"{self.path}: {error.message}", error.hint) from error

    def _head(self, state: Mapping[str, Tensor]) -> Head:
        with self._building():
            head = build_head(
                self.head_name,
                channels=self.head["channels"],
                grid=self.head["grid"],
                classes=len(self.classes),
                settings=self.head["settings"],
            )
        head.load_state_dict(_part(state, "head."))
        return head.eval()


@dataclass(kw_only=True)
class Model(ModelCard):
    """A trained classifier.

    Attributes:
        head: Reads the features.
        backbone_weights: The backbone's weights where the file carries them.
    """

    head: Head
    backbone_weights: dict[str, Tensor] | None

    @property
    def head_name(self) -> str:
        """Name of the head."""
        return self.head.name

    @property
    def chooses_frames(self) -> bool:
        """Whether the head chooses the frames that it looks at."""
        return self.head.chooses_frames

    def probabilities(
        self, entries: Sequence[Entry], device: str | torch.device = "cpu"
    ) -> NDArray[np.float64]:
        """Class probabilities ``[N, C]`` of clips, from their features."""
        import torch

        from vidfuse.features.table import FeatureTable
        from vidfuse.fusion.threads import threads_for

        if not entries:
            return np.empty((0, len(self.classes)))
        rows = []
        self.head.to(device).eval()
        for start in range(0, len(entries), BATCH):
            part = list(entries[start : start + BATCH])
            threads = threads_for(self.head, self.spec.frames, len(part), device)
            with threads, torch.inference_mode():
                table = FeatureTable.stack(part, Sampling.parse(self.sampling), self.spec.frames)
                features, lengths = table.pick(torch.arange(len(part)), None)
                self.check_features(features)
                logits = self.head(features.to(device).float(), lengths.to(device))
            rows.append(logits.double().softmax(-1).cpu())
        return torch.cat(rows).numpy()

    def check_features(self, features: Tensor) -> None:
        """See that the head reads features ``[B, T, D, g, g]``.

        Raises:
            UserError: They are of another shape.
        """
        channels, side = self.head.channels, self.head.grid
        if tuple(features.shape[2:]) != (channels, side, side):
            raise UserError(
                f"{self.path or 'the model'}: its head reads features {[channels, side, side]} of "
                f"a frame, and its backbone gives {list(features.shape[2:])}",
                "Train it again.",
            )

    def build_backbone(self, device: str | torch.device = "cpu") -> Backbone:
        """The backbone, with the weights that the features were made with.

        Raises:
            UserError: Its published weights are not on this machine and cannot be fetched, or
                are other ones.
        """
        from vidfuse.backbones.load import load_backbone

        return load_backbone(self.choice, state=self.backbone_weights, device=device)

    def save(self, path: Path, advice: str = ADVICE) -> None:
        """Write the model file, whole or not at all.

        Args:
            path: Where to.
            advice: What a user can do where it cannot be written.

        Raises:
            UnwritableError: It cannot be written.
        """
        from safetensors.torch import save

        tensors = {f"head.{name}": t.contiguous() for name, t in self.head.state_dict().items()}
        for name, tensor in (self.backbone_weights or {}).items():
            tensors[f"backbone.{name}"] = tensor.contiguous()
        manifest = json.dumps(self._manifest())
        metadata = {"vidfuse": manifest, "crc32": _checksum(tensors, manifest)}
        write_whole(path, save(tensors, metadata), advice)

    def _manifest(self) -> dict[str, Any]:
        info = self.choice.info
        return {
            "format": FORMAT,
            "classes": self.classes,
            "head": describe_head(self.head),
            "features": self.spec.to_dict(),
            "cached_frames": self.cached.frames,
            "sampling": self.sampling,
            "backbone": {
                "name": self.choice.name,
                "layer": self.choice.layer,
                "published": self.choice.published,
                "included": self.backbone_weights is not None,
            },
            "normalisation": {"mean": info.mean, "std": info.std},
            "seen": self.seen,
            **self.facts,
        }


RESERVED = (
    "format", "classes", "head", "features", "cached_frames", "sampling", "backbone",
    "normalisation", "seen",
)  # fmt: skip


def open_model(path: Path | str) -> StoredModel:
    """Read what a model file says of itself; imports no torch.

    Args:
        path: The file, or a run folder that holds ``model.safetensors``.

    Raises:
        UserError: It is missing, damaged, not a vidfuse model, or written by a newer vidfuse.
    """
    from safetensors import safe_open

    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    with _told(file):
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise ValueError("not a regular file")
        with safe_open(file, framework="np") as tensors:
            metadata = tensors.metadata() or {}
        if "vidfuse" not in metadata:
            raise UserError(
                f"{file}: not a vidfuse model",
                "Weights of a backbone are given to train, with --weights.",
            )
        manifest = json.loads(metadata["vidfuse"])
        if check_format(manifest["format"]) > FORMAT:
            raise UserError(
                f"{file}: written by a newer vidfuse (model format {manifest['format']}; "
                f"this one reads up to {FORMAT})",
                "Upgrade: pip install --upgrade vidfuse",
            )
        check_manifest(manifest)
        spec = FeatureSpec.from_dict(manifest["features"])
        backbone = manifest["backbone"]
        weights = None if backbone["published"] else RANDOM_WEIGHTS  # or those in the file
        return StoredModel(
            classes=list(manifest["classes"]),
            spec=spec,
            cached=replace(spec, frames=manifest["cached_frames"]),
            sampling=manifest["sampling"],
            choice=choose(backbone["name"], weights, backbone["layer"]),
            facts={name: value for name, value in manifest.items() if name not in RESERVED},
            seen=dict(manifest["seen"]),
            path=file,
            head=dict(manifest["head"]),
            included=backbone["included"],
        )


def load_model(path: Path | str) -> Model:
    """Read a model file.

    Args:
        path: The file, or a run folder that holds ``model.safetensors``.

    Raises:
        UserError: As ``open_model``, or it needs a head that is not installed.
    """
    return open_model(path).load()


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Say which file it is that cannot be read, and why."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError as error:
        hint = "Name a model file or a run folder that holds model.safetensors."
        raise UserError(f"{file}: no such model", hint) from error
    except (SafetensorError, OSError) as error:
        raise _damaged(file, "not a model file, or a damaged one", error) from error
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise _damaged(file, "a damaged model file", error) from error
    except (AssertionError, AttributeError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise _damaged(file, "a damaged model file", error) from error


def _damaged(file: Path, what: str, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"{file}: {what} ({reason})", "Copy or train it again.")


def _checksum(state: Mapping[str, Tensor], manifest: str) -> str:
    """Of all tensors and the manifest: safetensors itself notices no flipped bit."""
    import torch

    value = zlib.crc32(manifest.encode())
    for name, tensor in sorted(state.items()):
        content = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        value = zlib.crc32(content, zlib.crc32(f"\n{name}\n".encode(), value))
    return f"{value:08x}"


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
