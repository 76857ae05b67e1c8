"""Cached features: what they mean, where they are kept, how they are made."""
