"""Cutting: segments of timelines become clips, and clips are found again in their originals."""
