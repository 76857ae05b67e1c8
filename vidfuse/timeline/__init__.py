"""Measures of timelines: what was predicted when, against what happened."""
