"""A decode process.

Reads one request a line (JSON) on standard input and answers each with a line of JSON on standard
output; the frames lie in memory that it shares with the program, or follow as bytes. It imports
one decoding library and no torch, unless that is torchcodec, which needs it: decord imported before
torch is known to hang or crash. It lives apart from the program because decoders crash and hang on
damaged files, and take more memory than there is.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from vidfuse.data.stamp import settled_stamp, stamp_of
from vidfuse.errors import InputError, UserError
from vidfuse.rpc import begin
from vidfuse.system import keep_memory, limit_memory
from vidfuse.video.decoder import ON_GPU, Reader, load_reader, open_video, read_from
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
        before = settled_stamp(Path(order["request"]["path"]))
        given = order.get("timeline")
        stated = Timeline(np.array(given["times"]), given["end"]) if given else None
        request = FrameRequest(**order["request"])
        again = order.get("keep", False)
        frames = desk.read(request, order["backend"], stated, again)
        keep = again
        # Of a file that changed meanwhile nobody can say what it was that was read.
        if before is not None and before == stamp_of(Path(request.path)):
            frames = replace(frames, stamp=before)
        return {"frames": frames.header()}, np.ascontiguousarray(frames.pictures)
    except InputError as error:
        return {"input_error": [error.reason, error.hint]}, NO_PICTURES
    except UserError as error:
        return {"user_error": [error.message, error.hint]}, NO_PICTURES
    except MemoryError:
        return {"out_of_memory": True}, NO_PICTURES
    except Exception as error:  # one odd file must not end the run, nor be quoted
        text = f"it cannot be decoded ({type(error).__name__})"
        hint = "Copy or download it again. If other programs play it, please report it."
        return {"input_error": [text, hint]}, NO_PICTURES
    finally:
        if not keep:
            desk.clear()


def serve(orders: IO[bytes], answers: IO[bytes], shared: SharedMemory | None) -> None:
    """Answer orders until standard input ends, which it does when the program is gone."""
    desk, settled = Desk(), False
    for line in orders:
        order = json.loads(line)
        end_after(order["limit"])
        header, pictures = answer(order, desk)
        end_after(None)
        if shared is not None and shared.put(pictures):
            answers.write(json.dumps(header | {"shared": pictures.nbytes}).encode() + b"\n")
        else:
            answers.write(json.dumps(header | {"bytes": pictures.nbytes}).encode() + b"\n")
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


def main(backend: str, memory: str, descriptor: str | None = None) -> None:
    """Serve on standard input and output.

    Args:
        backend: The decoder that orders will name.
        memory: Bytes that decoding may take.
        descriptor: Of the memory that is shared with the program, if there is any.
    """
    keep_memory()  # a clip's frames are dropped together, and the next clip needs as much
    channel = begin()
    shared = None
    if descriptor is not None:
        shared = SharedMemory(int(descriptor))
        os.close(int(descriptor))
    # What the libraries themselves take is not the clips' fault.
    with contextlib.suppress(ImportError, UserError):  # is told when a clip is asked for
        load_reader(backend)
    limit_memory(int(memory), resident=backend in ON_GPU)
    serve(sys.stdin.buffer, channel, shared)
