"""Datasets: what clips a folder holds and how they divide into train, val and test."""
