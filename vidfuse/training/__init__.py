"""Training a head on cached features."""
