"""Time limits for many things at once, seen to by a single thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Deadlines:
    """Calls what is to be called when something takes too long.

    A thread that is started for each clip would cost more than handing the clip over.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[object, tuple[float, Callable[[], None]]] = {}
        self._next = 0.0  # when the thread looks again by itself
        self._thread: threading.Thread | None = None

    def start(self, key: object, seconds: float, end: Callable[[], None]) -> None:
        """Have ``end`` called after so many seconds, unless ``stop`` comes first.

        ``end`` must return soon: other deadlines wait for it.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            self._running[key] = (deadline, end)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            elif deadline < self._next:
                self._changed.notify()

    def stop(self, key: object) -> None:
        """It was done in time, or its ``end`` has been called and has returned."""
        with self._changed:
            self._running.pop(key, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (deadline, end) in list(self._running.items()):
                    if deadline <= now:
                        del self._running[key]
                        end()
                self._next = min(
                    (deadline for deadline, _ in self._running.values()),
                    default=now + threading.TIMEOUT_MAX,
                )
                self._changed.wait(min(self._next - now, threading.TIMEOUT_MAX))
