"""Description of encoders without building them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vidfuse.backbones import (
    FIRST_EDITION,
    FIRST_EDITION_TAG,
    backbone_names,
    find_backbone,
    place_of,
)
from vidfuse.backbones.info import BackboneInfo
from vidfuse.errors import UserError

HIDDEN = ("factory", "translate", "weights")  # what only the program needs


def describe_backbones(names: Sequence[str], warnings: list[str]) -> list[dict[str, Any]]:
    """Describe encoders, ready for JSON.

    Args:
        names: Encoders, or what names begin with, such as ``resnet``; none means all of them.
        warnings: Receives why an encoder of another package cannot be used, when all are listed.

    Raises:
        UserError: No encoder has such a name, or it cannot be used.
    """
    known = backbone_names()
    found: dict[str, BackboneInfo] = {}
    if "" in names:
        raise UserError("an empty name names no encoder", "Leave it out, and all are listed.")
    for wanted in names or [""]:
        alike = [name for name in known if name.startswith(wanted)]
        # A name without its tag is given a tag; a wrong one has its error here.
        for name in [wanted] if wanted in known else alike or [find_backbone(wanted)[0]]:
            try:
                full, info = find_backbone(name)
            except UserError as error:
                if names:
                    raise
                warnings.append(error.message)
                continue
            found[full] = info
    return [_described(name, info) for name, info in found.items()]


def _described(name: str, info: BackboneInfo) -> dict[str, Any]:
    """One encoder."""
    data = {field: value for field, value in asdict(info).items() if field not in HIDDEN}
    weights = info.weights
    return {
        "name": name,
        "tag": FIRST_EDITION_TAG if name in FIRST_EDITION else name.partition(".")[2] or None,
        **data,
        "mean": list(info.mean),
        "std": list(info.std),
        "source": weights and weights.source,
        "package": (weights and weights.package) or None,
        "url": (weights and weights.url) or None,
        "file": weights and str(place_of(weights)),
        "megabytes": weights and weights.megabytes,
        "here": weights is not None and place_of(weights).is_file(),
    }
