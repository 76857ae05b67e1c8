from __future__ import annotations

import os
import struct
import sys

import pytest
from PIL import Image
from trees import make_tree

from vidfuse.data.files import expand_inputs, is_frame_folder, is_video, peek_videos, walk_videos
from vidfuse.data.multipage import is_multipage
from vidfuse.errors import InputError
from vidfuse.rpc import Child, ChildEndedError


def tiff(path, pages, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.new("L", (4, 3), i) for i in range(pages)]
    first.save(path, save_all=True, append_images=rest, **options)
    return path


def dicom(path, frames=None, explicit=True):
    """The beginning of such a file, which is all that is looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = b"" if frames is None else str(frames).encode().ljust(4)
    length = b"IS" + struct.pack("<H", 4) if explicit else struct.pack("<I", 4)
    element = b"\x28\x00\x08\x00" + length + value if frames is not None else b""
    path.write_bytes(bytes(128) + b"DICM" + bytes(40) + element + b"\x28\x00\x10\x00US\x02\x00ab")
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("pages", "expected"), [(1, False), (2, True), (5, True)])
def test_tiff_pages(tmp_path, big, pages, expected):
    assert is_multipage(tiff(tmp_path / "a.TIF", pages, big_tiff=big)) is expected


def test_a_thumbnail_is_no_page(tmp_path):
    data = bytearray(tiff(tmp_path / "a.tif", 2).read_bytes())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * count)
    struct.pack_into("<HHII", data, second + 2, 254, 4, 1, 1)  # in place of its first field
    (tmp_path / "b.tif").write_bytes(data)
    assert not is_multipage(tmp_path / "b.tif")


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(("frames", "expected"), [(None, False), (1, False), (30, True)])
def test_dicom_frames(tmp_path, explicit, frames, expected):
    assert is_multipage(dicom(tmp_path / "a.dcm", frames, explicit)) is expected


@pytest.mark.parametrize("content", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff"])
def test_damaged_files_are_not_multipage(tmp_path, content):
    for name in ("a.tif", "a.dcm", "a.png"):
        (tmp_path / name).write_bytes(content)
        assert not is_multipage(tmp_path / name)
    assert not is_multipage(tmp_path / "missing.tif")


def test_folders_of_stacks_and_of_frames(tmp_path):
    for name in ("one", "two"):
        tiff(tmp_path / f"stacks/{name}.tif", 3)
        dicom(tmp_path / f"cines/{name}.dcm", 20)
        tiff(tmp_path / f"pages/{name}.tif", 1)
        dicom(tmp_path / f"series/{name}.dcm")
    assert is_video("a.dcm")
    assert [is_frame_folder(tmp_path / n) for n in ("stacks", "cines", "pages", "series")] == [
        False, False, True, True
    ]  # fmt: skip
    found = [path.relative_to(tmp_path).as_posix() for path in walk_videos(tmp_path)]
    assert found == [
        "cines/one.dcm", "cines/two.dcm", "pages", "series", "stacks/one.tif", "stacks/two.tif"
    ]  # fmt: skip
    assert list(expand_inputs([str(tmp_path / "series")])) == [tmp_path / "series"]
    assert len(list(expand_inputs([str(tmp_path / "stacks")]))) == 2
    assert peek_videos(tmp_path / "stacks", 5)


def test_a_still_beside_cines_makes_no_series(tmp_path):
    dicom(tmp_path / "x/1.dcm")
    dicom(tmp_path / "x/2.dcm", 20)
    assert len(list(walk_videos(tmp_path))) == 2
    make_tree(tmp_path, "y/1.tif", "y/2.tif")  # not even TIFF: for the reader to refuse
    assert is_frame_folder(tmp_path / "y")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_pipes_are_not_waited_for(tmp_path):
    folder = tmp_path / "clips" / "series"
    folder.mkdir(parents=True)
    for path in (folder / "1.dcm", folder / "2.dcm", tmp_path / "clips" / "a.tif"):
        os.mkfifo(path)
        assert not is_multipage(path)
    assert is_frame_folder(folder)  # for the reader to refuse
    assert list(walk_videos(tmp_path)) == [folder]


def test_offsets_that_no_file_can_have(tmp_path):
    (tmp_path / "a.tif").write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63))
    assert not is_multipage(tmp_path / "a.tif")


def test_numbers_that_are_too_long_for_python(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("1", "2"):
        path = dicom(tmp_path / f"x/{name}.dcm", 1)
        element = b"\x28\x00\x08\x00IS" + struct.pack("<H", 4)
        digits = b"\x28\x00\x08\x00IS" + struct.pack("<H", 5000) + b"9" * 5000
        path.write_bytes(path.read_bytes().replace(element + b"1   ", digits))
        assert not is_multipage(path)
    assert is_frame_folder(tmp_path / "x")


def test_a_file_on_which_the_child_dies_or_hangs_is_one_file(tmp_path, monkeypatch):
    def late(*_arguments, **_more):
        raise ChildEndedError(late=True, status=-9)

    slow, sound = tiff(tmp_path / "slow.tif", 1), tiff(tmp_path / "sound.tif", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Child, "ask", late)
        assert is_multipage(slow)  # for a reader to find out
    assert not is_multipage(slow), "what nobody could tell was remembered"
    assert not is_multipage(sound)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child by /proc")
def test_the_child_is_asked_once_more_where_somebody_killed_it(tmp_path):
    import psutil

    for number in range(3):
        path = tiff(tmp_path / f"{number}.tif", 1 + number % 2)
        assert is_multipage(path) is bool(number % 2)
        for child in psutil.Process().children():
            if "vidfuse.data.multipage:main" in child.cmdline():
                child.kill()


def test_a_link_to_itself_is_one_problem(tmp_path):
    make_tree(tmp_path, "clips/a.mp4")
    for name in ("loop.mp4", "loop", "loop.tif"):
        (tmp_path / "clips" / name).symlink_to(name)
    problems: list[InputError] = []
    assert [path.name for path in walk_videos(tmp_path, problems)] == ["a.mp4"]
    assert [os.path.basename(problem.path) for problem in problems] == ["loop.mp4"]
    assert not is_frame_folder(tmp_path / "clips")
    assert tmp_path / "clips" / "a.mp4" in peek_videos(tmp_path, 5)
