"""Whether this machine can run vidfuse, and how to repair what cannot.

Each check is a small function that returns a ``Check``. What may crash or hang (torch, the
decoders) is imported in processes of its own, side by side: see ``probe.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed

from vidfuse.doctor import decoders, libraries, machine, storage
from vidfuse.doctor.check import Check
from vidfuse.doctor.probe import PROBES, probe
from vidfuse.progress import Progress

__all__ = ["Check", "examine"]


def examine(cache: str | None = None, progress: Progress | None = None) -> list[Check]:
    """Look at the installation and the machine; takes as long as importing torchvision does.

    Args:
        cache: Folder of the feature cache; None is the usual one.
        progress: Hears of progress.
    """
    progress = progress or Progress()
    progress.start("Importing libraries", len(PROBES))
    with ThreadPoolExecutor(len(PROBES)) as pool:
        running = {pool.submit(probe, name): name for name in PROBES}
        for _ in as_completed(running):
            progress.advance()
    progress.finish()
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
        decoders.pyav(found["av"]),
        decoders.decord(found["decord"]),
        decoders.decord_gpu(found["decord"]),
        decoders.torchcodec(found["torchcodec"]),
        decoders.torchcodec_cuda(found["torchcodec"]),
        storage.cache(cache),
        storage.disk(cache),
    ]
