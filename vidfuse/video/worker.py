"""A decode process.

Reads one request a line (JSON) on standard input and answers each with a line of JSON on standard
output; the pictures lie in memory that it shares with the program, or follow as bytes. It imports
one decoding library and no torch, unless that is torchcodec, which needs it: decord imported before
torch is known to hang or crash. It lives apart from the program because decoders crash and hang on
damaged files.
"""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import sys
from typing import IO, Any

import numpy as np

from vidfuse import streams
from vidfuse.errors import InputError, UserError
from vidfuse.system import keep_memory
from vidfuse.video.decoder import Reader, open_video, read_from
from vidfuse.video.frames import FrameRequest, Frames, Pictures
from vidfuse.video.sampling import Timeline
from vidfuse.video.shared import SharedMemory

LONGEST_ALARM = 2**31 - 1  # seconds, which the system takes as an int
NO_PICTURES = np.zeros(0, np.uint8)


class Desk:
    """Where the clip lies open that was read last, if more of it will be asked for."""

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.reader: Reader | None = None

    def clear(self) -> None:
        """Close it."""
        if self.reader is not None:
            self.reader.close()
        self.reader = None

    def read(
        self, request: FrameRequest, backend: str, timeline: Timeline | None, again: bool
    ) -> Frames:
        """Read pictures of a clip, from the open file if it is the same one.

        Args:
            request: What to read.
            backend: With what.
            timeline: The presentation times that PyAV found, for a backend that needs them.
            again: Whether more of it will be asked for.

        Raises:
            InputError: The file cannot be read, or the segment holds no picture.
        """
        key = (request.path, request.fps, backend)
        if self.reader is None or self.key != key:
            self.clear()
            self.reader = open_video(request.path, backend, timeline, request.fps, again=again)
            self.key = key
        return read_from(self.reader, request)


def answer(order: dict[str, Any], desk: Desk) -> tuple[dict[str, Any], Pictures]:
    """Carry out one order: ``read`` (pictures), ``index`` (PyAV's timeline, for another backend) or
    ``release``.

    With ``keep`` in it the clip stays open, unless reading fails.
    """
    keep = False
    try:
        if order["op"] == "release":
            return {}, NO_PICTURES
        if order["op"] == "index":
            from vidfuse.video.pyav_backend import PyAVReader

            reader = PyAVReader(order["path"])
            timeline, obstacle = reader.index(), reader.obstacle(order["backend"])
            reader.close()
            index = {"times": timeline.times.tolist(), "end": timeline.end, "obstacle": obstacle}
            return index, NO_PICTURES
        given = order.get("timeline")
        stated = Timeline(np.array(given["times"]), given["end"]) if given else None
        request = FrameRequest(**order["request"])
        again = order.get("keep", False)
        frames = desk.read(request, order["backend"], stated, again)
        keep = again
        return {"frames": frames.header()}, np.ascontiguousarray(frames.pictures)
    except InputError as error:
        return {"input_error": [error.reason, error.hint]}, NO_PICTURES
    except UserError as error:
        return {"user_error": [error.message, error.hint]}, NO_PICTURES
    except MemoryError:
        return {"input_error": ["not enough memory to decode it", None]}, NO_PICTURES
    except Exception as error:  # one odd file must not end the run
        text = f"decoding failed unexpectedly ({type(error).__name__}: {error})"
        return {"input_error": [text, "Please report this with the file."]}, NO_PICTURES
    finally:
        if not keep:
            desk.clear()


def serve(orders: IO[bytes], answers: IO[bytes], memory: SharedMemory | None) -> None:
    """Answer orders until standard input ends, which it does when the program is gone."""
    desk, settled = Desk(), False
    for line in orders:
        order = json.loads(line)
        end_after(order["limit"])
        header, pictures = answer(order, desk)
        end_after(None)
        shared = memory is not None and memory.put(pictures)
        sizes = {"bytes": pictures.nbytes, "shared": shared}
        answers.write(json.dumps(header | sizes).encode() + b"\n")
        if not shared:
            answers.write(pictures.tobytes())
        answers.flush()
        # A closed container and its streams hold each other, and buffers with them: too few objects
        # for Python to look for them by itself, and too large to wait.
        gc.collect()
        if not settled and desk.reader is None:
            gc.freeze()  # what the libraries made, which is most of what would be looked at
            settled = True


def end_after(seconds: float | None) -> None:
    """End this process when a decoder hangs and the program that would see to it is gone."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(0 if seconds is None else math.ceil(min(seconds + 5, LONGEST_ALARM)))


def main(descriptor: int | None = None) -> None:
    """Serve on standard input and output.

    Args:
        descriptor: Of the memory that is shared with the program, if there is any.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to handle
    streams.protect(results=False)
    keep_memory()  # a clip's pictures are dropped together, and the next clip needs as much
    # Libraries that print to standard output must not damage the protocol.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    memory = None
    if descriptor is not None:
        memory = SharedMemory(descriptor)
        os.close(descriptor)
    serve(sys.stdin.buffer, channel, memory)
