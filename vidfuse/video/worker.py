"""A decode process.

Reads one request a line (JSON) on standard input and answers each with a line of JSON on standard
output, which the frames follow as bytes. It imports one decoding library and no torch, unless that
is torchcodec, which needs it: decord imported before torch is known to hang or crash. It lives
apart from the program because decoders crash and hang on damaged files, and take more memory than
there is.
"""

from __future__ import annotations

import contextlib
import gc
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidfuse.data.content import settled_stamp, stamp_of
from vidfuse.errors import InputError, UserError
from vidfuse.machine import keep_memory, limit_memory
from vidfuse.rpc import Answer, Order, begin, serve
from vidfuse.video.backends import BACKENDS
from vidfuse.video.cut_job import CutJob
from vidfuse.video.decoder import Reader, load_reader, open_video, read_from
from vidfuse.video.frames import FrameRequest, Frames
from vidfuse.video.sampling import FrameTimes
from vidfuse.video.stretch import Stretch, cut_evenly, holes_between, with_holes

if TYPE_CHECKING:
    from vidfuse.video.pyav_cut import Source


class ReaderCache:
    """The reader of the clip that was read last, kept open if more of it will be asked for, and the
    video that clips were cut from last.
    """

    def __init__(self) -> None:
        self.key: tuple[object, ...] = ()
        self.reader: Reader | None = None
        self._source: Source | None = None
        self._source_key: tuple[object, ...] = ()

    def clear(self) -> None:
        """Close the reader."""
        if self.reader is not None:
            self.reader.close()
        self.reader = None

    def source(self, path: str) -> Source:
        """The video to cut clips from, opened unless it is the one before.

        Raises:
            InputError: It cannot be read.
        """
        from vidfuse.video.pyav_cut import Source

        key = (path, stamp_of(Path(path)))
        if self._source is None or self._source_key != key:
            self.drop_source()
            self._source, self._source_key = Source(path), key
        return self._source

    def drop_source(self) -> None:
        """Close the video that clips are cut from."""
        if self._source is not None:
            self._source.close()
        self._source = None

    def read(
        self, request: FrameRequest, backend: str, frame_times: FrameTimes | None, again: bool
    ) -> Frames:
        """Read frames of a clip, from the open file if it is the same one.

        Args:
            request: What to read.
            backend: With what.
            frame_times: The presentation times that PyAV found, for a backend that needs them.
            again: Whether more of it will be asked for.

        Raises:
            InputError: The file cannot be read, or the segment holds no frame.
        """
        # A clip is one content however often it is asked for; of a video that is read a stretch at
        # a time, what came meanwhile is wanted too.
        grows = request.sampling.startswith("rate")
        stamp = stamp_of(Path(request.path)) if grows else None
        key = (request.path, request.fps, backend, stamp)
        if self.reader is None or self.key != key:
            self.clear()
            self.reader = open_video(request.path, backend, frame_times, request.fps, again=again)
            self.key = key
        return read_from(self.reader, request)


def answer(order: Order, cache: ReaderCache) -> Answer:
    """Carry out one order: ``read`` (frames), ``index`` (PyAV's frame times, for another backend),
    ``stretches`` (of a long video), ``cut`` (a clip), ``extent`` (of a video), ``packets`` (their
    digests) or ``release``.

    With ``keep`` in it the clip stays open, unless reading fails.
    """
    keep = False
    try:
        if order["op"] == "release":
            return {}
        if order["op"] == "index":
            return _index(order["path"], order["backend"])
        if order["op"] == "stretches":
            return _stretches(order["path"], order["backend"], order["fps"])
        if order["op"] == "packets":
            return _packets(order)
        if order["op"] in CUTTING:
            return CUTTING[order["op"]](order, cache)
        before = settled_stamp(Path(order["request"]["path"]))
        given = order.get("frame_times")
        stated = FrameTimes(np.array(given["times"]), given["end"]) if given else None
        request = FrameRequest.from_dict(order["request"])
        frames = cache.read(request, order["backend"], stated, order["keep"])
        keep = order["keep"]
        # Of a file that changed meanwhile nobody can say what it was that was read.
        if before is not None and before == stamp_of(Path(request.path)):
            frames = replace(frames, stamp=before)
        return {"frames": frames.header(), "payload": np.ascontiguousarray(frames.pixels).ravel()}
    except InputError as error:
        return {"input_error": [error.reason, error.hint]}
    except UserError as error:
        return {"user_error": [error.message, error.hint]}
    except MemoryError:
        return {"out_of_memory": True}
    except Exception as error:  # noqa: BLE001 - one odd file must not end the run, nor be quoted
        text = f"it cannot be decoded ({type(error).__name__})"
        hint = "Copy or download it again. If other programs play it, please report it."
        return {"input_error": [text, hint]}
    finally:
        if not keep:
            cache.clear()


def _collect(cache: ReaderCache) -> None:
    """Free the containers that were closed.

    One and its streams hold each other, and buffers with them: too few objects for Python to look
    for them by itself, and too large to wait.
    """
    gc.collect()
    if cache.reader is None and not gc.get_freeze_count():
        gc.freeze()  # what the libraries made, which is most of what would be looked at


def _index(path: str, backend: str) -> Answer:
    """PyAV's frame times of a video, and what stands in the way of reading it with a backend."""
    from vidfuse.video.pyav_backend import PyAVReader

    reader = PyAVReader(path)
    frame_times, obstacle = reader.index(), reader.obstacle(backend)
    reader.close()
    return {"times": frame_times.times.tolist(), "end": frame_times.end, "obstacle": obstacle}


def _stretches(path: str, backend: str, fps: float) -> Answer:
    """The stretches of a video, or of frames that are stored as images."""
    from vidfuse.video.pyav_stream import VideoFile
    from vidfuse.video.pyav_stretches import list_stretches

    before = settled_stamp(Path(path))
    found: list[Stretch] = []
    if not BACKENDS[backend].reads_images:
        file = VideoFile(path)
        found = list_stretches(file)
        file.close()
    if not found:
        reader = open_video(path, backend, fps=fps)
        shown = reader.frame_times
        frame_time = (shown.end - shown.begin) / len(shown.times)
        holes = holes_between(shown.times, shown.end, frame_time, damaged=bool(reader.warnings))
        found = cut_evenly(shown.begin, shown.end, len(shown.times))
        found = with_holes(found, holes, frame_time)
        reader.close()
    stamp = before if before is not None and before == stamp_of(Path(path)) else None
    return {"stretches": [astuple(each) for each in found], "stamp": stamp}


def _cut(order: Order, cache: ReaderCache) -> Answer:
    """Cut a clip; what was written of one that fails is removed."""
    job = CutJob(**order["job"])
    try:
        source = cache.source(job.source)
    except InputError as error:  # which no other part of the video will do without
        return {"unreadable": [error.reason, error.hint]}
    try:
        return {"outcome": asdict(source.cut(job))}
    except BaseException:
        cache.drop_source()  # who knows in what state it is
        if not job.dry:
            with contextlib.suppress(OSError):
                Path(job.target).unlink()
        raise


def _extent(order: Order, cache: ReaderCache) -> Answer:
    """When the first frame of a video comes and the last one goes, in seconds."""
    index = cache.source(order["path"]).index
    if index is not None:
        return {"start": float(index.frame_times.times[0]), "end": float(index.frame_times.end)}
    reader = open_video(order["path"], "pyav")
    try:
        return {"start": reader.frame_times.begin, "end": reader.frame_times.end}
    finally:
        reader.close()


def _packets(order: Order) -> Answer:
    """The digest of each packet of a video, and its time in seconds."""
    from vidfuse.video.pyav_packets import list_packets

    found = list_packets(order["path"])
    return {"count": len(found.times), "payload": found.times.tobytes() + found.digests.tobytes()}


CUTTING = {"cut": _cut, "extent": _extent}
"""Operation → its function, of those that keep a video open to cut clips from."""


def main(backend: str, memory: str) -> None:
    """Serve on standard input and output.

    Args:
        backend: The decoder that orders will name.
        memory: Bytes that decoding may take.
    """
    keep_memory()  # a clip's frames are dropped together, and the next clip needs as much
    channel = begin()
    resident = BACKENDS[backend].resident
    # What the libraries themselves take is not the clips' fault.
    with contextlib.suppress(ImportError, UserError):  # is told when a clip is asked for
        reader = load_reader(backend)
        if resident:
            reader.load_libraries()
    limit_memory(int(memory), resident=resident)
    cache = ReaderCache()
    serve(lambda order: answer(order, cache), channel, lambda: _collect(cache))
