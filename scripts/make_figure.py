"""Draw docs/img/pipeline.svg: clip, frames, cached features, head, label.

    python scripts/make_figure.py > docs/img/pipeline.svg

The picture has no background, and its colours are mid-tones that stand out from white and from
black alike. Letters are large enough to be read at a width of 400 pixels.
"""

from __future__ import annotations

import itertools
import math
import sys

WIDTH, HEIGHT = 676, 232
STAGE, GAP = 108, 34
"""Width of a stage, and of the arrow between two."""
TOP, BOTTOM = 12, 120
"""Edges of the drawings; words stand below."""
FRAMES = 4

INK = "#788089"
CLIP, FEATURE, HEAD, LABEL = "#3a80d2", "#b0721c", "#8a63d2", "#2f9150"

STAGES = (
    ("clip", "a video"),
    ("frames", "16 of each"),
    ("features", "cached"),
    ("head", "trained"),
    ("label", "and score"),
)
SCORES = (("right", 0.92), ("left", 0.02), ("blink", 0.02))


def main() -> None:
    """Print the figure."""
    sys.stdout.write(figure())


def figure() -> str:
    """Return the whole figure as SVG."""
    parts = [*clip(left(0)), *frames(left(1)), *features(left(2)), *head(left(3)), *label(left(4))]
    for i, (name, detail) in enumerate(STAGES):
        middle = left(i) + STAGE // 2
        parts.append(text(middle, 148, name, size=24, weight=700))
        parts.append(text(middle, 172, detail, size=19))
        if i:
            parts.append(arrow(left(i) - GAP + 3, left(i) - 3, (TOP + BOTTOM) // 2))
    parts += span(left(0), left(2) + STAGE, "once for each clip")
    parts += span(left(3), left(4) + STAGE, "seconds for each head")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" role="img" font-family="Helvetica, Arial, sans-serif">\n'
        "<title>How vidfuse works: clip, frames, cached features, head, label</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def left(stage: int) -> int:
    """Return the left edge of a stage."""
    return stage * (STAGE + GAP)


def clip(x: int) -> list[str]:
    """Draw a clip: a rectangle with perforations and a triangle."""
    parts = [box(x + 2, TOP + 14, STAGE - 4, 80, stroke=CLIP, fill=CLIP, opacity=0.15, radius=8)]
    holes = [(x + 10 + i * 16, y) for i in range(6) for y in (TOP + 20, TOP + 82)]
    parts += [box(*hole, 8, 6, fill=CLIP, radius=1) for hole in holes]
    cx, cy = x + STAGE // 2, (TOP + BOTTOM) // 2
    parts.append(
        f'<path d="M{cx - 13} {cy - 18}L{cx + 19} {cy}L{cx - 13} {cy + 18}Z" fill="{CLIP}"/>'
    )
    return parts


def frames(x: int) -> list[str]:
    """Draw frames one below the other, in which a disc moves to the right."""
    parts = []
    for i in range(FRAMES):
        y = TOP + i * 28
        parts.append(box(x + 14, y, 80, 24, stroke=CLIP, fill=CLIP, opacity=0.15, radius=4))
        parts.append(f'<circle cx="{x + 27 + i * 18}" cy="{y + 12}" r="7" fill="{CLIP}"/>')
    return parts


def features(x: int) -> list[str]:
    """Draw one row of numbers for each frame, dark where they are large."""
    parts = []
    for i in range(FRAMES):
        for j in range(6):
            value = 0.5 + 0.5 * math.sin(2.1 * j + 0.9 * i + 1.7 * i * j)
            at = (x + 7 + j * 16, TOP + 3 + i * 28)
            parts.append(box(*at, 14, 18, fill=FEATURE, opacity=round(0.15 + 0.85 * value, 2)))
    return parts


def head(x: int) -> list[str]:
    """Draw a network that reads the rows from the first to the last."""
    parts = [box(x + 2, TOP, STAGE - 4, 108, stroke=HEAD, fill=HEAD, opacity=0.15, radius=8)]
    units = [(x + 30, TOP + 15 + i * 26) for i in range(FRAMES)]
    end = (x + 78, (TOP + BOTTOM) // 2)
    for before, after in itertools.pairwise(units):
        parts.append(line(*before, *after))
    parts += [line(*unit, *end) for unit in units]
    parts += [f'<circle cx="{cx}" cy="{cy}" r="8" fill="{HEAD}"/>' for cx, cy in (*units, end)]
    return parts


def label(x: int) -> list[str]:
    """Draw the scores of three classes as bars."""
    parts = []
    for i, (name, score) in enumerate(SCORES):
        y = TOP + 4 + i * 36
        parts.append(text(x + 4, y + 13, f"{name} {score:.2f}", size=19, anchor="start"))
        parts.append(box(x + 4, y + 18, 100, 9, fill=LABEL, opacity=0.2, radius=2))
        parts.append(box(x + 4, y + 18, max(3, round(100 * score)), 9, fill=LABEL, radius=2))
    return parts


def span(start: int, end: int, words: str) -> list[str]:
    """Draw a bracket below some stages, with words."""
    path = f"M{start + 4} 184v10H{end - 4}v-10"
    return [
        f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="2"/>',
        text((start + end) // 2, 221, words, size=21),
    ]


def arrow(start: int, end: int, y: int) -> str:
    """Draw an arrow to the right."""
    path = f"M{start} {y}H{end - 2}M{end - 10} {y - 8}L{end - 1} {y}L{end - 10} {y + 8}"
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="3"/>'


def line(x1: int, y1: int, x2: int, y2: int) -> str:
    """Draw a line between two units."""
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{HEAD}" stroke-width="2"/>'


def box(
    x: int,
    y: int,
    width: int,
    height: int,
    *,
    fill: str,
    stroke: str = "none",
    opacity: float = 1,
    radius: int = 2,
) -> str:
    """Draw a rectangle; the opacity is that of its inside."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}"'
        f' fill-opacity="{opacity:g}" stroke="{stroke}" stroke-width="2"/>'
    )


def text(
    x: int, y: int, words: str, *, size: int, weight: int = 400, anchor: str = "middle"
) -> str:
    """Write words."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}" fill="{INK}">{words}</text>'
    )


if __name__ == "__main__":
    main()
