"""Comparing heads and encoders: the same clips, folds, epochs and search for all.

``run.py`` reads top to bottom: it holds a folder (``vidfuse.runs``), puts features where all
processes find them (``tables.py``, ``job_spec.py``), makes a plan (``plan.py``), carries out its
fits (``scheduler.py``; ``fits.py`` has one of them) in processes side by side (``workers.py``),
keeps each as it ends (``fit_store.py``), and makes of them a leaderboard (``leaderboard.py``),
files and figures (``results.py``, ``plots.py``), and advice in words (``advice.py``). ``auto.py``
chooses a head for a training run by the same tasks (``race.py``).
"""
