"""What a check finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found about one part of the installation or the machine.

    Attributes:
        name: What was looked at.
        status: ``broken`` where something that vidfuse depends on cannot be used, ``warning``
            where vidfuse works less well.
        summary: What was found, in a line.
        values: The same for programs, ready for JSON.
        fix: What to do about it; None where nothing needs to be done.
    """

    name: str
    status: Status
    summary: str
    values: dict[str, Any] = field(default_factory=dict)
    fix: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary ready for JSON."""
        return asdict(self)
