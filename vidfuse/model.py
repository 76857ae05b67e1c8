"""The model file: a head, the backbone it needs, and all that is known about both.

One ``.safetensors`` file. Its header holds a JSON manifest; nothing in it is executed. What the
manifest says is read first and without torch, whose import takes seconds in which videos can be
decoded already.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vidfuse.atomic import ADVICE, write_whole
from vidfuse.backbones import RANDOM_WEIGHTS, BackboneChoice, choose
from vidfuse.backbones.info import PREPROCESSING
from vidfuse.errors import UnknownNameError, UserError, raise_if_out_of_memory
from vidfuse.features.spec import FeatureSpec
from vidfuse.heads import build_head, head_class
from vidfuse.heads.registry import options_of
from vidfuse.manifest import (
    check_manifest,
    check_tensors,
    describe_head,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidfuse.heads.base import Head, State

FORMAT = 1
SEEN_DIGITS = 32  # of each content hash kept: 128 bits tell any two videos apart
BATCH = 64


@dataclass(kw_only=True)
class ModelCard:
    """Everything known about a classifier besides its weights.

    Attributes:
        head_name: Name of the head.
        selects_frames: Whether the head chooses the frames that are decoded; a clip encoder needs
            whole windows of them, whatever its head looks at.
        classes: Class names in the order of the head's logits.
        spec: The features that prediction extracts.
        cached: The features that training cached, which may hold more frames.
        sampling: The rule that chose the frames.
        choice: The backbone. Its ``weights`` path is only where they were found at training.
        metadata: What is known about training: dataset, split, protocol, metrics, versions, config.
        seen: Content hashes (shortened) of the clips it saw: ``train`` and ``val``.
        path: The file it was read from.
    """

    head_name: str
    selects_frames: bool
    classes: list[str]
    spec: FeatureSpec
    cached: FeatureSpec
    sampling: str
    choice: BackboneChoice
    metadata: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def _part_of(self) -> dict[str, str]:
        """The part of each clip that it saw, by shortened hash."""
        return {each: part for part in ("val", "train") for each in self.seen.get(part, ())}

    def part_of(self, content: str) -> str:
        """The part that a clip of this content was in: train, val, or test if it was not seen."""
        return self._part_of.get(content[:SEEN_DIGITS], "test")

    def in_training(self, content: str) -> bool:
        """True if a clip of this content was used in training or validation."""
        return self.part_of(content) != "test"


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

    def load(self) -> Model:
        """The model, with its weights.

        Raises:
            UserError: The file is damaged, or needs a head that is not installed.
        """
        with naming(self.path), safe_open(self.path, framework="pt") as tensors:
            metadata = tensors.metadata()
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            header = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
            try:
                cls = head_class(self.head_name)
                legacy = cls.legacy_settings.items()  # a derived head may have fewer
                settings = {name: value for name, value in legacy if name in options_of(cls)}
                described = {**self.head, "settings": {**settings, **self.head["settings"]}}
                # Before a tensor takes memory: a file may ask for any amount of it.
                check_tensors(described, len(self.classes), header, backbone=self.included)
                head = build_head(
                    self.head_name,
                    channels=described["channels"],
                    grid=described["grid"],
                    classes=len(self.classes),
                    settings=described["settings"],
                )
            except UnknownNameError:
                raise
            except UserError as error:
                raise UserError(f"{self.path}: {error.message}", error.hint) from error
            state = {name: tensors.get_tensor(name) for name in header}
            if metadata["crc32"] != _checksum(state, metadata["vidfuse"]):
                raise ValueError("its checksum does not fit")
            if odd := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
                # No prediction would be finite either.
                raise ValueError(f"'{odd[0]}' has values that are not finite")
            parts: dict[str, dict[str, Tensor]] = {"head": {}, "backbone": {}}
            for name, tensor in state.items():
                part, _, own = name.partition(".")
                parts[part][own] = tensor
            head.load_state_dict(parts["head"])
        card = {each.name: getattr(self, each.name) for each in fields(ModelCard)}
        weights = parts["backbone"] if self.included else None
        return Model(**card, head=head.eval(), backbone_weights=weights)


@dataclass(kw_only=True)
class Model(ModelCard):
    """A trained classifier.

    Attributes:
        head: Reads the features.
        backbone_weights: The backbone's weights where the file carries them.
    """

    head: Head
    backbone_weights: dict[str, Tensor] | None

    def probabilities(
        self,
        features: NDArray[np.float16],
        lengths: NDArray[np.int64],
        device: str | torch.device = "cpu",
        *,
        of_frames: bool = False,
    ) -> NDArray[np.float64]:
        """Class probabilities ``[B, C]`` of a batch of clips.

        Args:
            features: ``[B, T, D, g, g]``.
            lengths: How many of the T frames are each clip's own ``[B]``.
            device: Where to compute.
            of_frames: Those of each frame instead ``[B, T, C]``, of a head that is `dense`.

        Raises:
            UserError: The head reads features of another shape.
        """
        import torch

        from vidfuse.heads.base import threads_for

        self.check_features(features)
        self.head.to(device).eval()
        threads = threads_for(self.head, features.shape[1], len(features), device)
        with threads, torch.inference_mode():
            batch = torch.from_numpy(features).to(device).float()
            classify = self.head.forward_frames if of_frames else self.head
            logits = classify(batch, torch.from_numpy(lengths).to(device))
            return np.asarray(logits.double().softmax(-1).cpu())

    def next_probabilities(
        self, features: NDArray[np.float16], state: State, device: str | torch.device = "cpu"
    ) -> tuple[NDArray[np.float64], State]:
        """Class probabilities ``[C]`` of the next frame of a stream, of a head that is `causal`.

        Args:
            features: Of the frame, ``[D, g, g]``.
            state: What came with the frame before; None at the first one.
            device: Where to compute.

        Returns:
            The probabilities, and the state for the next frame.

        Raises:
            UserError: The head reads features of another shape.
        """
        import torch

        from vidfuse.heads.base import threads_for

        self.check_features(features[None, None])
        self.head.to(device).eval()
        with threads_for(self.head, 1, 1, device), torch.inference_mode():
            logits, state = self.head.step(
                torch.from_numpy(features[None]).to(device).float(), state
            )
            return np.asarray(logits[0].double().softmax(-1).cpu()), state

    def check_features(self, features: Tensor | NDArray[np.float16]) -> None:
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
            **self.metadata,
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
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    with naming(file):
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
        if isinstance(manifest["format"], int) and manifest["format"] > FORMAT:
            raise UserError(
                f"{file}: written by a newer vidfuse (model format {manifest['format']}; "
                f"this one reads up to {FORMAT})",
                "Upgrade: pip install --upgrade vidfuse",
            )
        check_manifest(manifest)
        spec = FeatureSpec.from_dict(manifest["features"])
        backbone, head = manifest["backbone"], dict(manifest["head"])
        selects = head.get("chooses_frames")  # which old files do not say
        if selects is None:
            selects = head_class(head["name"]).selects_frames
        published = None if backbone["published"] else RANDOM_WEIGHTS  # or those in the file
        choice = choose(backbone["name"], published, backbone["layer"])
        info = choice.info
        differing = [name for name in PREPROCESSING if getattr(info, name) != getattr(spec, name)]
        if choice.layer != info.layer:  # the table has the steps of its own layer
            differing = [name for name in differing if name != "steps"]
        if differing or (info.fixed_size and spec.size != info.size):
            raise _described_otherwise(file, spec, choice, [*differing, "size"][0])
        return StoredModel(
            head_name=head["name"],
            selects_frames=selects and spec.window == 1,
            classes=list(manifest["classes"]),
            spec=spec,
            cached=replace(spec, frames=manifest["cached_frames"]),
            sampling=manifest["sampling"],
            choice=choice,
            metadata={name: value for name, value in manifest.items() if name not in RESERVED},
            seen=dict(manifest["seen"]),
            path=file,
            head=head,
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
def naming(file: Path) -> Iterator[None]:
    """Say which file it is that cannot be read, and why."""
    try:
        yield
    except UnknownNameError as error:
        raise UserError(
            f"{file}: needs the {error.kind} '{error.name}', which is not installed here",
            f"Install the package that this {error.kind} came from.",
        ) from error
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


def _described_otherwise(
    file: Path, spec: FeatureSpec, choice: BackboneChoice, field: str
) -> UserError:
    """The error of an encoder whose description has changed since training."""
    weights = choice.info.weights
    release = "the release of vidfuse"
    if weights is not None and weights.source == "package":
        release = f"the release of {weights.package}"
    return UserError(
        f"{file}: backbone '{choice.name}' is described otherwise now than when this model was "
        f"trained ({field} is {getattr(choice.info, field)} and was {getattr(spec, field)})",
        f"Install {release} that made it, or train the model again.",
    )


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
