"""Comparing fusion heads: the same clips, folds, passes and search for every head.

``run.py`` reads top to bottom: it holds a folder (``lock.py``), puts features where all processes
find them (``tables.py``), makes a plan (``plan.py``), carries out its fits (``schedule.py``;
``fits.py`` has one of them) in processes side by side (``processes.py``), which keep each as it
ends (``kept.py``), and makes of them a leaderboard (``leaderboard.py``) and advice in words
(``advice.py``).
"""
