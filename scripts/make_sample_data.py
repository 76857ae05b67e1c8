"""Make sample_data: short clips whose single frames do not say what moves.

    python scripts/make_sample_data.py [--out sample_data] [--seed 0]

Each clip shows one shape that moves over a background. Its motion is a phase that starts anywhere
in a cycle, with equal probability, and runs on at some speed; the paired classes (left and right,
approach and recede, clockwise and counter-clockwise) differ in the sign of that speed and in
nothing else. A phase that is uniform at the start is uniform at every frame, whichever way it
runs. So at every index a frame of one class has the same distribution as a frame of its partner:
position, size, angle, colours, brightness, what is cut off by the border. Every frame is coded on
its own: prediction from earlier frames would leave traces behind a shape that moves.

A group is one look: kinds of shape, colours, background, sizes, camera. Every group holds every
class with the same durations, so neither the look nor the length of a clip says anything either.

Two longer videos, of looks that no clip has, show one motion after another and in between the shape
at rest; `long/timelines.csv` says what happens when.

Each clip draws from its own generator, `numpy.random.default_rng([seed, group, class, take])`.
What is guaranteed for a seed are the frames; the bytes may change with the version of FFmpeg.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CLASSES = (
    *("approach", "blink", "bounce", "clockwise", "counter-clockwise"),
    *("left", "recede", "right", "wave"),
)
PAIRS = (("left", "right"), ("approach", "recede"), ("clockwise", "counter-clockwise"))
"""Classes that are each other played backwards."""

SIDE = 96
"""Width and height of the frames, in pixels."""
FPS = 25
TAKES = 2
"""Clips of each class in each group."""
SECONDS = (1.2, 1.8)
CYCLES = (0.9, 1.3)
"""Cycles of a motion in one clip: crossings of the frame, turns, growths."""
SWINGS = (2.0, 2.6)
"""Cycles of the motions that go to and fro: wave, bounce, blink."""
LONG_SECONDS = 80.0
MOTION_SECONDS, REST_SECONDS = (2.5, 5.0), (1.0, 2.5)
"""Lengths of motions in a long video, and of what lies between them."""
FINE = 4
"""Frames are drawn this many times larger and averaged down, which smooths edges and steps."""

ENCODER = {"qp": "34", "preset": "veryslow", "g": "1", "bf": "0"}
"""Key frames only, and a constant quantiser: how good a frame is does not depend on others."""

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """What the clips of a group have in common.

    Attributes:
        shapes: Kinds of shape.
        colours: Colours of shapes.
        ground: Two colours that the background mixes.
        texture: How it mixes them.
        size: Smallest and largest radius of shapes, as a share of the frame's side.
        pattern: Pattern on the shapes.
        noise: Standard deviation of the camera's noise, in grey levels.
        shake: Standard deviation of the camera's shaking, in pixels.
    """

    shapes: tuple[str, ...]
    colours: tuple[Colour, ...]
    ground: tuple[Colour, Colour]
    texture: str
    size: tuple[float, float]
    pattern: str
    noise: float
    shake: float


# fmt: off
LOOKS = {
    "g01": Look(("circle", "ring"), ((214, 60, 48), (232, 120, 40)),
                ((187, 200, 214), (175, 190, 206)), "gradient", (0.22, 0.27), "plain", 0.5, 0.0),
    "g02": Look(("square", "diamond"), ((250, 214, 80), (240, 240, 220)),
                ((40, 55, 92), (48, 63, 104)), "stripes", (0.23, 0.29), "bars", 1.0, 0.0),
    "g03": Look(("triangle", "drop"), ((44, 92, 190), (90, 50, 160)),
                ((224, 208, 168), (214, 196, 158)), "blobs", (0.24, 0.30), "plain", 0.5, 0.3),
    "g04": Look(("star", "cross"), ((240, 240, 240), (250, 190, 210)),
                ((36, 100, 70), (44, 112, 76)), "checks", (0.25, 0.30), "rim", 1.0, 0.0),
    "g05": Look(("hexagon", "circle"), ((26, 26, 32), (70, 24, 34)),
                ((213, 142, 106), (203, 132, 100)), "waves", (0.21, 0.26), "bars", 1.5, 0.2),
    "g06": Look(("cross", "ring"), ((70, 220, 210), (150, 240, 120)),
                ((78, 43, 83), (88, 51, 91)), "blobs", (0.24, 0.29), "plain", 1.0, 0.0),
    "g07": Look(("star", "triangle"), ((150, 30, 110), (20, 110, 120)),
                ((199, 217, 188), (191, 207, 178)), "dots", (0.26, 0.31), "spot", 0.5, 0.3),
    "g08": Look(("drop", "square"), ((252, 150, 60), (255, 236, 190)),
                ((67, 69, 73), (77, 77, 81)), "gradient", (0.24, 0.30), "rim", 1.5, 0.2),
    "g09": Look(("diamond", "hexagon"), ((30, 130, 70), (30, 70, 140)),
                ((229, 190, 201), (221, 182, 195)), "stripes", (0.24, 0.30), "spot", 1.0, 0.2),
    "g10": Look(("circle", "triangle"), ((245, 245, 250), (170, 215, 255)),
                ((122, 40, 36), (132, 48, 42)), "gradient", (0.22, 0.27), "plain", 0.5, 0.0),
    "g11": Look(("ring", "square"), ((40, 40, 110), (120, 20, 30)),
                ((150, 186, 170), (160, 195, 180)), "blobs", (0.24, 0.29), "plain", 0.5, 0.2),
    "g12": Look(("drop", "hexagon"), ((255, 210, 120), (230, 160, 200)),
                ((24, 62, 78), (30, 72, 88)), "gradient", (0.23, 0.28), "plain", 0.5, 0.0),
}
LONG_LOOKS = {
    "g13": Look(("ring", "hexagon"), ((250, 230, 120), (255, 160, 90)),
                ((52, 60, 44), (60, 70, 50)), "waves", (0.23, 0.28), "plain", 0.5, 0.0),
    "g14": Look(("square", "star"), ((36, 50, 130), (110, 30, 90)),
                ((214, 206, 190), (206, 198, 182)), "gradient", (0.24, 0.29), "plain", 0.5, 0.2),
}
# fmt: on


@dataclass(frozen=True)
class State:
    """Where the shape is in one frame: centre, radius (shares of the side) and opacity."""

    x: float
    y: float
    radius: float
    opacity: float = 1.0


def motion(
    label: str, look: Look, frames: int, rng: np.random.Generator, clips: float = 1.0
) -> list[State]:
    """The states of a shape, with as many cycles as so many clips have.

    Both classes of a pair make the same draws in the same order and use them in the same way, but
    for the sign of the speed.
    """
    phase = rng.uniform()
    cycles = rng.uniform(*(SWINGS if label in ("wave", "bounce", "blink") else CYCLES))
    cycles *= clips
    sign = -1 if label in ("left", "recede", "counter-clockwise") else 1
    times = (phase + sign * cycles * (np.arange(frames) + 0.5) / frames) % 1.0
    radius = rng.uniform(*look.size)
    if label in ("left", "right"):
        # A cycle begins and ends with the shape out of sight.
        y = rng.uniform(0.25, 0.75)
        return [State(t * (1 + 2 * radius) - radius, y, radius) for t in times]
    if label in ("approach", "recede"):
        x, y = rng.uniform(0.35, 0.65, 2)
        near, far = rng.uniform(0.40, 0.50), rng.uniform(0.04, 0.06)
        return [State(x, y, far * (near / far) ** t) for t in times]
    if label in ("clockwise", "counter-clockwise"):
        x, y = rng.uniform(0.45, 0.55, 2)
        reach = rng.uniform(0.24, 0.30)
        turns = 2 * math.pi * times
        # With y pointing down, growing angles turn clockwise.
        return [State(x + reach * math.cos(a), y + reach * math.sin(a), radius) for a in turns]
    if label == "wave":
        x, y = rng.uniform((0.40, 0.25), (0.60, 0.75))
        reach = rng.uniform(0.20, 0.28)
        return [State(x + reach * math.sin(2 * math.pi * t), y, radius) for t in times]
    if label == "bounce":
        x, floor = rng.uniform((0.2, 0.72), (0.8, 0.80))
        height = rng.uniform(0.40, 0.55)
        return [State(x, floor - height * 4 * t * (1 - t), radius) for t in times]
    if label == "blink":
        x, y = rng.uniform((0.2, 0.25), (0.8, 0.75))
        return [State(x, y, radius, float(t < 0.5)) for t in times]
    raise ValueError(f"unknown class {label}; known: {', '.join(CLASSES)}")


def outline(shape: str) -> NDArray[np.float64]:
    """Corners [N, 2] of a shape, about the origin and within radius 1."""
    if shape == "star":
        radii, turns = np.tile((1.0, 0.42), 5), np.arange(10) / 10
    elif shape == "drop":
        turns = np.arange(90) / 90
        radii = 0.72 + 0.28 * np.exp(-((np.minimum(turns, 1 - turns) / 0.07) ** 2))
    elif shape == "cross":
        a = 0.32
        corner = [(0.95, -a), (0.95, a), (a, a)]
        quarters = [np.array(corner) @ np.array([[c, s], [-s, c]]) for c, s in _QUARTER_TURNS]
        return np.concatenate(quarters)
    else:
        corners = {"triangle": 3, "square": 4, "diamond": 4, "hexagon": 6, "circle": 90, "ring": 90}
        turns = np.arange(corners[shape]) / corners[shape]
        radii = np.ones(len(turns))
    points = radii * np.exp(2j * math.pi * turns)
    scale = np.array((1.0, 0.62 if shape == "diamond" else 1.0))
    corner_points: NDArray[np.float64] = np.stack((points.real, points.imag), 1) * scale
    return corner_points


_QUARTER_TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def draw_shape(look: Look, rng: np.random.Generator) -> Image.Image:
    """A shape with its pattern, turned at random: RGBA, radius 1 is half of the side."""
    side = 8 * SIDE
    shape = look.shapes[rng.integers(len(look.shapes))]
    colour = look.colours[rng.integers(len(look.colours))]
    turn = np.exp(2j * math.pi * rng.uniform())
    rotate = np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
    centre = side / 2

    def corners(points: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in points @ rotate * centre + centre]

    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon(corners(outline(shape)), fill=255)
    if shape == "ring":
        ImageDraw.Draw(mask).polygon(corners(outline(shape) * 0.5), fill=0)
    skin = Image.new("RGB", (side, side), colour)
    pen = ImageDraw.Draw(skin)
    shade = tuple(int(0.55 * c + 0.45 * (255 - c)) for c in colour)
    if look.pattern == "bars":
        for left in np.arange(-1.0, 1.0, 0.5):
            bar = np.array([(left, -1), (left + 0.22, -1), (left + 0.22, 1), (left, 1)])
            pen.polygon(corners(bar), fill=shade)
    elif look.pattern == "rim":
        pen.polygon(corners(outline(shape) * 0.68), fill=shade)
    elif look.pattern == "spot":
        pen.polygon(corners(outline("circle") * 0.3), fill=shade)
    skin.putalpha(mask)
    return skin


def draw_ground(look: Look, rng: np.random.Generator) -> Image.Image:
    """A background, somewhat larger than the frame so that the camera can shake."""
    side = SIDE + 8
    y, x = np.mgrid[0:side, 0:side] / SIDE
    turn, start = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi, 2)
    along = x * math.cos(turn) + y * math.sin(turn)
    across = y * math.cos(turn) - x * math.sin(turn)
    pitch = 2 * math.pi * rng.uniform(3.0, 4.5)
    if look.texture == "gradient":
        mix = 0.5 + 0.5 * np.sin(along * 2.5 + start[0])
    elif look.texture == "stripes":
        mix = 0.5 + 0.5 * np.sin(along * pitch + start[0])
    elif look.texture == "checks":
        mix = 0.5 + 0.5 * np.tanh(3 * np.sin(along * pitch) * np.sin(across * pitch + start[0]))
    elif look.texture == "waves":
        mix = 0.5 + 0.5 * np.sin(along * pitch + 1.5 * np.sin(across * 9 + start[0]) + start[1])
    elif look.texture == "dots":
        dots = np.sin(along * pitch + start[0]) + np.sin(across * pitch + start[1])
        mix = 0.5 - 0.5 * np.tanh(4 * (dots - 1.0))
    else:
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7)).astype(np.uint8))
        mix = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 255
    first, second = (np.array(colour, float) for colour in look.ground)
    pixels = first + mix[..., None] * (second - first)
    large = (side * FINE, side * FINE)
    return Image.fromarray(pixels.round().astype(np.uint8)).resize(large, Image.Resampling.BILINEAR)


def paste(canvas: Image.Image, shape: Image.Image, state: State, offset: NDArray[np.int64]) -> None:
    """Put a shape on a canvas of FINE pixels per pixel, whose corner is at `offset` from (0, 0)."""
    fine = SIDE * FINE
    diameter = max(2, round(2 * state.radius * fine))
    small = shape.resize((diameter, diameter), Image.Resampling.BILINEAR)
    mask = small.getchannel("A").point(lambda alpha: round(alpha * state.opacity))
    corner = np.array((state.x, state.y)) * fine - diameter / 2 - offset
    x, y = corner.round()
    canvas.paste(small.convert("RGB"), (int(x), int(y)), mask)


def pixels(label: str, look: Look, frames: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a clip: uint8 [SIDE, SIDE, 3] each."""
    return draw(motion(label, look, frames, rng), look, rng)


def draw(states: list[State], look: Look, rng: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a shape's states: uint8 [SIDE, SIDE, 3] each."""
    frames = len(states)
    shape, ground = draw_shape(look, rng), draw_ground(look, rng)
    # What does not move, half of the time: it is drawn first, so the shape passes before it.
    still = draw_shape(look, rng)
    x, y = rng.uniform(0.1, 0.9, 2)
    place = State(x, y, radius=rng.uniform(0.05, 0.08))
    has_still = rng.uniform() < 0.5
    # The light changes slowly, as likely one way as the other.
    swing, light = rng.uniform(0.0, 0.08), rng.uniform(0, 2 * math.pi)
    speed = rng.uniform(-1.0, 1.0) * 2 * math.pi / frames
    margin = 4 * FINE
    fine = SIDE * FINE
    for index, state in enumerate(states):
        shake = (rng.normal(0, look.shake, 2) * FINE).round().clip(-margin, margin).astype(int)
        left, top = (int(each) for each in margin + shake)
        canvas = ground.crop((left, top, left + fine, top + fine))
        if has_still:
            paste(canvas, still, place, shake)
        if state.opacity:
            paste(canvas, shape, state, shake)
        values = np.asarray(canvas.reduce(FINE), float)
        values = values * (1 + swing * math.sin(light + speed * index))
        values += rng.normal(0, look.noise, values.shape)
        yield values.round().clip(0, 255).astype(np.uint8)


def write(path: Path, frames: Iterator[Pixels]) -> None:
    """Encode frames as an MP4 of key frames of constant quantisation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=ENCODER)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def durations(group: int, seed: int) -> list[int]:
    """Frames of a group's clips, one number per take: the same for every class."""
    rng = np.random.default_rng([seed, group])
    return [round(seconds * FPS) for seconds in rng.uniform(*SECONDS, TAKES)]


def generate(out: Path, seed: int = 0, only: set[str] | None = None) -> list[tuple[str, str, str]]:
    """Write the clips, or some of them.

    Args:
        out: Folder to write to.
        seed: Another seed gives other clips.
        only: Paths to write, as they stand in the manifest; None writes all.

    Returns:
        Path, label and group of every clip, written or not.
    """
    rows = []
    for number, (group, look) in enumerate(LOOKS.items()):
        lengths = durations(number, seed)
        for index, label in enumerate(CLASSES):
            for take, frames in enumerate(lengths):
                path = f"{label}/{group}_{take + 1}.mp4"
                rows.append((path, label, group))
                if only is None or path in only:
                    rng = np.random.default_rng([seed, number, index, take])
                    write(out / path, pixels(label, look, frames, rng))
    return rows


def long_motion(
    look: Look, rng: np.random.Generator
) -> tuple[list[State], list[tuple[int, int, str]]]:
    """The states of the shape in a long video, and first frame, end and class of each motion.

    Every class comes as often as any other, as far as there is time, and never twice in a row.
    """
    states: list[State] = []
    segments: list[tuple[int, int, str]] = []
    order: list[str] = []
    while len(states) < LONG_SECONDS * FPS:
        if not order:
            order = rng.permutation(CLASSES).tolist()
        label = order.pop()
        if segments and segments[-1][2] == label:
            order.insert(0, label)
            label = order.pop()
        seconds = rng.uniform(*MOTION_SECONDS)
        x, y = rng.uniform(0.25, 0.75, 2)
        rest = State(x, y, rng.uniform(*look.size))
        states += [rest] * round(rng.uniform(*REST_SECONDS) * FPS)
        first = len(states)
        states += motion(label, look, round(seconds * FPS), rng, 2 * seconds / sum(SECONDS))
        segments.append((first, len(states), label))
    return states, segments


def generate_long(out: Path, seed: int = 0) -> list[tuple[str, str, str, str, str]]:
    """Write the long videos.

    Args:
        out: Folder to write to.
        seed: Another seed gives other videos.

    Returns:
        Path, start, end, class and group of each motion.
    """
    rows = []
    for number, (group, look) in enumerate(LONG_LOOKS.items()):
        rng = np.random.default_rng([seed, len(LOOKS) + number])
        states, segments = long_motion(look, rng)
        write(out / f"{group}.mp4", draw(states, look, rng))
        rows += [
            (f"{group}.mp4", f"{first / FPS:.2f}", f"{end / FPS:.2f}", label, group)
            for first, end, label in segments
        ]
    return rows


def main() -> None:
    """Write the clips and the manifest, and the long videos and their timelines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "sample_data")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = generate(arguments.out, arguments.seed)
    with (arguments.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "group"), *rows])
    size = sum((arguments.out / path).stat().st_size for path, _, _ in rows)
    print(f"{len(rows)} clips, {size / 1e6:.2f} MB in {arguments.out}")
    folder = arguments.out / "long"
    segments = generate_long(folder, arguments.seed)
    with (folder / "timelines.csv").open("w", newline="", encoding="utf-8") as file:
        header = ("path", "start", "end", "label", "group")
        csv.writer(file, lineterminator="\n").writerows([header, *segments])
    size = sum(path.stat().st_size for path in folder.glob("*.mp4"))
    print(f"{len(LONG_LOOKS)} long videos, {size / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
