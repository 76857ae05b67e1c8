"""Heads: small networks that read a sequence of frame features and name the action.

Importing this package does not import torch; a head's module is loaded when it is asked for.
"""

from vidfuse.heads.registry import HEADS, build_head, head_class, head_names

__all__ = ["HEADS", "build_head", "head_class", "head_names"]
