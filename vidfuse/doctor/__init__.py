"""Checks of the installation and the machine, with the repair of what is broken.

Each check is a small function that returns a ``Check``. What may crash or hang (torch, the
decoders) is imported in processes of its own, side by side: see ``probe.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed

from vidfuse.doctor import decoders, libraries, machine, storage
from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import PROBES, probe
from vidfuse.progress import Reporter
from vidfuse.video.backends import BACKENDS, VIDEO_BACKENDS

__all__ = ["Check", "examine"]


def examine(cache: str | None = None, reporter: Reporter | None = None) -> list[Check]:
    """Check the installation and the machine; takes as long as importing torchvision does.

    Args:
        cache: Folder of the feature cache; None is the usual one.
        reporter: Receives progress updates and collects the time of each stage.
    """
    reporter = reporter or Reporter()
    probes = dict.fromkeys([*PROBES, *(BACKENDS[name].module for name in VIDEO_BACKENDS)])
    reporter.start("Importing libraries", len(probes))
    with ThreadPoolExecutor(len(probes)) as pool:
        running = {pool.submit(probe, name): name for name in probes}
        for _ in as_completed(running):
            reporter.advance()
    reporter.finish()
    found = {name: answer.result() for answer, name in running.items()}
    return [
        libraries.python(),
        libraries.packages(found["packages"]),
        libraries.torch(found["torch"]),
        libraries.torchvision(found["torchvision"]),
        libraries.bundled_weights(),
        machine.gpu(found["torch"], machine.nvidia_gpus()),
        machine.instructions(found["torch"]),
        machine.cores(),
        machine.memory(),
        *(decoders.decoder(name, found[BACKENDS[name].module]) for name in VIDEO_BACKENDS),
        storage.cache(cache),
        storage.disk(cache),
    ]
