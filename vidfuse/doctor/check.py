"""The result of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking one part of the installation or the machine.

    Attributes:
        name: The part that was checked.
        status: ``broken`` where something that vidfuse depends on cannot be used, ``warning``
            where vidfuse works less well.
        summary: The finding, in a line.
        values: The same for programs, ready for JSON.
        fix: The repair; None where nothing needs to be done.
    """

    name: str
    status: Status
    summary: str
    values: dict[str, Any] = field(default_factory=dict)
    fix: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary ready for JSON."""
        return asdict(self)
