"""Awkward little videos, made with the ffmpeg program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from reference import ffmpeg_program

PATTERN = "-f lavfi -i testsrc2=size=96x64:rate=25:duration=2 "
LARGER = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=1 "
SOUND = "-f lavfi -i sine=duration=2.5 "
H264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p "
B_FRAMES = "-c:v libx264 -bf 3 -g 12 -pix_fmt yuv420p "
OPEN_GROUPS = B_FRAMES + "-x264-params open_gop=1:keyint=12:min-keyint=12:scenecut=0 "
SIMULTANEOUS = "-vf setpts=floor(N/3)*3/25/TB -fps_mode passthrough "
ACCELERATING = "-vf setpts=N*N/500/TB -fps_mode passthrough -enc_time_base 1/1000 "
DROPPED = "-vf setpts=(N+3*mod(N\\,7))/25/TB -fps_mode vfr "


@dataclass(frozen=True)
class Recipe:
    """How to make a video.

    Attributes:
        arguments: Of the ffmpeg program, ``{base}`` being a plain MP4 with B-frames.
        keep: Part of the bytes that are left in the end.
        missing: How many frames the container lists that cannot be decoded.
        playable: Whether the ffmpeg program and vidfuse find a frame in it.
    """

    arguments: str
    keep: tuple[float, float] = (0.0, 1.0)
    missing: int = 0
    playable: bool = True


AWKWARD = {
    # times
    "dropped.mp4": Recipe(PATTERN + DROPPED + H264),
    "accelerating.mp4": Recipe(PATTERN + ACCELERATING + H264),
    "accelerating.webm": Recipe(PATTERN + ACCELERATING + "-c:v libvpx -deadline realtime"),
    "simultaneous.mkv": Recipe(PATTERN + SIMULTANEOUS + "-c:v ffv1"),
    "late_start.ts": Recipe(PATTERN + H264 + "-output_ts_offset 100"),
    "edit_list.mp4": Recipe("-ss 0.7 -i {base} -c copy"),
    "edit_list.mkv": Recipe("-ss 0.7 -i {base} -c copy"),
    **{
        f"sound_first.{suffix}": Recipe(f"-itsoffset 0.5 {PATTERN}{SOUND}{codec}")
        for suffix, codec in (("mp4", H264), ("mkv", H264), ("flv", H264), ("avi", "-c:v mpeg4"))
    },
    # orders
    **{f"open_groups.{suffix}": Recipe(PATTERN + OPEN_GROUPS) for suffix in ("mp4", "mkv", "ts")},
    "b_frames.avi": Recipe(PATTERN + B_FRAMES),
    "b_frames.flv": Recipe(PATTERN + B_FRAMES),
    "packed.avi": Recipe(PATTERN + "-c:v libxvid -bf 2 -g 12"),
    "mpeg4.avi": Recipe(PATTERN + "-c:v mpeg4 -bf 2 -g 12"),
    "mpeg2.mpg": Recipe(PATTERN + "-c:v mpeg2video -bf 2 -g 12"),
    "hevc.mkv": Recipe(
        PATTERN + "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=12:bframes=3"
    ),
    "layers.mp4": Recipe(
        PATTERN + "-c:v libx265 -preset ultrafast "
        "-x265-params log-level=none:keyint=12:bframes=3:temporal-layers=3"
    ),
    "intra_refresh.mp4": Recipe(PATTERN + B_FRAMES + "-x264-params intra-refresh=1:keyint=12"),
    "hidden.webm": Recipe(PATTERN + "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 10 -g 12"),
    "fragments.mp4": Recipe("-i {base} -c copy -movflags frag_keyframe+empty_moov"),
    # geometry
    **{
        f"turned_{angle}.mp4": Recipe(f"-display_rotation {angle} -i {{base}} -c copy")
        for angle in (90, 180, 270)
    },
    "turned.mkv": Recipe("-display_rotation 90 -i {base} -c copy"),
    "mirrored.mp4": Recipe("-display_hflip -i {base} -c copy"),
    "turned_mirrored.mp4": Recipe("-display_rotation 90 -display_hflip -i {base} -c copy"),
    "one_point.mkv": Recipe(PATTERN + "-vf scale=1:1 -c:v ffv1 -pix_fmt bgr0"),
    "three_by_five.mkv": Recipe(PATTERN + "-vf scale=3:5 -c:v ffv1 -pix_fmt bgr0"),
    # how frames are stored
    "animation.gif": Recipe(PATTERN),
    "motion_jpeg.avi": Recipe(PATTERN + "-c:v mjpeg"),
    "prores.mov": Recipe(PATTERN + "-c:v prores_ks"),
    "av1.mp4": Recipe(PATTERN + "-c:v libsvtav1 -preset 12 -g 12 -svtav1-params lp=1"),
    "rgb_16bit.mkv": Recipe(PATTERN + "-c:v ffv1 -pix_fmt gbrp16le"),
    "grey_16bit.mkv": Recipe(PATTERN + "-c:v ffv1 -pix_fmt gray16le"),
    "grey.mkv": Recipe(PATTERN + "-c:v ffv1 -pix_fmt gray"),
    "alpha.mov": Recipe(PATTERN + "-c:v png -pix_fmt rgba"),
    "palette.mov": Recipe(PATTERN + "-c:v png -pix_fmt pal8"),
    # how many
    "one.mp4": Recipe(PATTERN + H264 + "-frames:v 1"),
    "two.mp4": Recipe(PATTERN + H264 + "-frames:v 2"),
    # damage
    "no_head.ts": Recipe(PATTERN + OPEN_GROUPS, keep=(0.21, 1)),
    "no_tail.avi": Recipe(PATTERN + B_FRAMES, keep=(0, 0.6)),
    "no_tail.mkv": Recipe(PATTERN + B_FRAMES, keep=(0, 0.6)),
    "no_tail.mp4": Recipe("-i {base} -c copy -movflags +faststart", keep=(0, 0.7), missing=1),
    "no_index.mp4": Recipe("-i {base} -c copy", keep=(0, 0.7), playable=False),
    "sound.mp4": Recipe(SOUND, playable=False),
    "sound.mp3": Recipe(SOUND, playable=False),
}


def make(name: str, folder: Path) -> Path:
    """Make one of the videos of ``AWKWARD`` in a folder, once."""
    path = folder / name
    if not path.exists():
        recipe = AWKWARD[name]
        base = folder / "base.mp4"
        if "{base}" in recipe.arguments and not base.exists():
            run(PATTERN + B_FRAMES, base)
        run(recipe.arguments.replace("{base}", str(base)), path)
        data = path.read_bytes()
        low, high = (int(part * len(data)) for part in recipe.keep)
        path.write_bytes(data[low:high])
    return path


def run(arguments: str, path: Path) -> None:
    """Run the ffmpeg program, whose arguments must hold no spaces."""
    command = [ffmpeg_program(), "-v", "error", "-nostdin", "-threads", "1", *arguments.split()]
    subprocess.run([*command, f"file:{path}"], check=True, timeout=60, capture_output=True)


def joined(folder: Path, *arguments: str) -> Path:
    """Transport streams one after the other in one file."""
    path = folder / "joined.ts"
    parts = []
    for number, text in enumerate(arguments):
        run(text, part := folder / f"part{number}.ts")
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path
