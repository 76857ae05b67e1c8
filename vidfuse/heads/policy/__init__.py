"""The head ``policy``, and what any head that selects its frames is made of.

Other packages import from here and not from its modules.
"""

from vidfuse.heads.policy.episodes import Episode, FixedOrder, NeverStop, spread_order
from vidfuse.heads.policy.head import Policy
from vidfuse.heads.policy.interface import FrameSelectingHead
from vidfuse.heads.policy.source import CachedSource, FrameSource

__all__ = [
    "CachedSource",
    "Episode",
    "FixedOrder",
    "FrameSelectingHead",
    "FrameSource",
    "NeverStop",
    "Policy",
    "spread_order",
]
