"""Training a fusion head on cached features."""
