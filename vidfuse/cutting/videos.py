"""Finding the video that annotations are of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidfuse.data.files import is_video, natural_key
from vidfuse.errors import InputError

_HINT = "Name it, or its folder, behind the annotations."


class Videos:
    """The videos that were named, and those beside annotations.

    Args:
        given: Videos that were named.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self._given = list(dict.fromkeys(given))

    def find(self, named: Path | None, annotations: Path, *, alone: bool) -> Path:
        """The video of a timeline.

        Args:
            named: As the annotations call it; None where they name none.
            annotations: Their file.
            alone: Whether it holds the one timeline that there is, so that the one video that
                was named has to be the one meant.

        Raises:
            InputError: There is none, or there are several.
        """
        if named is None:
            return self._unnamed(annotations, alone)
        # Annotations of Windows have \ in their paths, which is no separator elsewhere.
        name = str(named).replace("\\", "/").rsplit("/", 1)[-1]
        same = [each for each in self._given if os.path.normpath(each) == os.path.normpath(named)]
        found = same or self._called(name) or self._called(name, stem=True)
        if not found:
            places = [named, annotations.parent / named, annotations.parent / name]
            found = [place for place in places if place.exists()][:1]
        if not found and alone and len(self._given) == 1:
            found = self._given
        return _only(found, str(named), f"annotated in {annotations}")

    def _unnamed(self, annotations: Path, alone: bool) -> Path:
        if alone and len(self._given) == 1:
            return self._given[0]
        name = annotations.stem
        found = self._called(name) or self._called(name, stem=True)
        if not found:
            try:
                beside = sorted(
                    annotations.parent.iterdir(), key=lambda path: natural_key(path.name)
                )
            except OSError:
                beside = []
            found = [
                path for path in beside if is_video(path.name) and name in (path.name, path.stem)
            ]
        return _only(found, str(annotations), f"it names none, and '{name}' is what it is called")

    def _called(self, name: str, *, stem: bool = False) -> list[Path]:
        if stem:
            wanted = {name, os.path.splitext(name)[0] if is_video(name) else name}
            return [path for path in self._given if path.stem in wanted or path.name in wanted]
        return [path for path in self._given if path.name == name]


def _only(found: Sequence[Path], place: str, why: str) -> Path:
    """The one that was found.

    Raises:
        InputError: There is none, or there are several.
    """
    if not found:
        raise InputError(place, f"the video was not found ({why})", _HINT)
    if len(found) > 1:
        names = ", ".join(map(str, found[:3])) + (", …" if len(found) > 3 else "")
        raise InputError(place, f"several videos may be meant: {names}", "Name one of them.")
    return found[0]
