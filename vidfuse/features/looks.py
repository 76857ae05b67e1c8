"""What was seen of a clip whose frames somebody chose."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Looks:
    """What was seen of a clip.

    Attributes:
        times: Presentation times in seconds of the pictures that were looked at, in the order of
            the looks.
        encoded: How many pictures went through the backbone for it.
        decoded: How many pictures were decoded: those, and those that lie between them and an
            earlier picture from which decoding can begin. A short video is decoded once as a whole.
    """

    times: list[float] = field(default_factory=list)
    encoded: int = 0
    decoded: int = 0

    def __add__(self, other: Looks) -> Looks:
        """What two models saw, one after the other."""
        return Looks(
            [*self.times, *other.times],
            self.encoded + other.encoded,
            self.decoded + other.decoded,
        )
