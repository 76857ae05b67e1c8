"""``vidfuse backbones``."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated

import typer

from vidfuse.backbones import BACKBONES
from vidfuse.backbones.imports import installed_version
from vidfuse.cli.commands import PLAIN, Command
from vidfuse.cli.console import ConsoleReporter, human_count, print_json, print_text, table
from vidfuse.cli.options import FormatOption
from vidfuse.results import BackboneDescription

app = typer.Typer(**PLAIN)
HELP = """\
List the encoders: what each sees and gives, what it costs, and where its weights come from.

Give one to train as --backbone NAME. A network's name without a tag means torchvision's default
weights. resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet50_2, vgg16 and vgg16_bn
mean IMAGENET1K_V1, and whole short sides of frames: they stay what they were in earlier versions.
"""
WIDTH = 100  # columns of the text form


@app.command(cls=Command, help=HELP)
def backbones(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]",
            help="Encoders, or what names begin with, such as resnet; none lists all.",
        ),
    ] = None,
    format: FormatOption = "text",
) -> None:
    """The command ``vidfuse backbones``."""
    from vidfuse import api

    found = api.list_backbones(names, reporter=ConsoleReporter())
    if format == "json":
        print_json({"backbones": [each.to_dict() for each in found]})
        return
    header = ("backbone", "sees", "gives", "parameters", "GMACs", "weights", "licence")
    print_text(table(header, [_row(each) for each in found]))
    for each in found:
        if each.name in (names or ()) or len(found) == 1:
            print_text(f"\n{_details(each)}")


def _row(each: BackboneDescription) -> tuple[str, ...]:
    frames = f"{each.window} frames, " if each.kind == "clip" else ""
    steps = f"{each.steps}x" if each.kind == "clip" else ""
    return (
        each.name,
        f"{frames}{each.size} px",
        f"{steps}{each.channels}x{each.side}x{each.side}" if each.channels else "",
        human_count(each.parameters) if each.parameters else "",
        (f"{each.gmacs:.1f}" if each.gmacs >= 0.1 else f"{each.gmacs:.2f}") if each.gmacs else "",
        _weights(each),
        each.licence,
    )


def _weights(each: BackboneDescription) -> str:
    if each.source is None:
        return "your own: --weights FILE"
    tag = "" if each.tag is None or each.name.endswith(each.tag) else f"{each.tag}, "
    if each.here:
        return f"{tag}here"
    size = f" ({each.megabytes:.0f} MB)" if each.megabytes else ""
    if each.source != "package":
        return f"{tag}download{size}"
    assert each.package is not None
    if installed_version(each.package) is not None:
        return f"missing in {each.package}"
    if each.name not in BACKBONES:  # an index may hold something else under this name
        return f"in the package {each.package}{size}"
    return f"pip install {each.package}{size}"


def _details(each: BackboneDescription) -> str:
    mean, std = ("/".join(f"{value:.3f}" for value in values) for values in (each.mean, each.std))
    sees = f"{each.size} px{' only' if each.fixed_size else ''}, {each.interpolation}, "
    sees += f"the middle {each.crop_fraction:.1%} of the short side"
    if each.kind == "clip":
        sees = f"windows of {each.window} frames at {each.rate:g} a second, {sees}"
    lines = [
        f"{each.name}: {each.citation}",
        f"  input: {sees}",
        f"  normalised with mean {mean}, standard deviation {std}",
        f"  features: {each.layer}",
        f"  weights: {f'{each.tag}, ' if each.tag else ''}{each.file or 'none are published'}",
    ]
    return "\n".join(part for line in lines for part in wrap(line, WIDTH, subsequent_indent="    "))
