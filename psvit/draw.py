"""A drawing of a network, in the manner of the paper's figure 6, and what all our pictures have in common.

matplotlib is loaded when something is drawn and its global state (``pyplot``) is left alone.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from psvit.arch import BASIC, LAYER_NAMES, SHARING, Architecture, NetworkSpec
from psvit.cost import Cost, format_quantity, head_cost, network_cost, pool_cost, stage_cost, stem_cost
from psvit.run.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 160
ENDINGS = (".png", ".svg")

# Okabe and Ito's colours, told apart by colour-blind readers too
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#777777", "#F0F0F0"


def check_picture(path: Path) -> None:
    """Raise ValueError unless the file's ending is one that can be drawn."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"cannot draw {path}: pictures are {' or '.join(ENDINGS)} files; change the ending")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (160 pixels an inch) or SVG (text stays text), by the file's ending.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    from matplotlib import rc_context

    check_picture(path)
    ending = path.suffix.lower()[1:]
    undated = {"Date": None} if ending == "svg" else {}  # the same network gives the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "psvit"}):
        write_atomically(
            path, lambda file: figure.savefig(file, format=ending, dpi=PIXELS_PER_INCH, metadata={**undated})
        )


# The drawing's axes are in inches, y downwards. A column holds a stage: on its left the brackets of shared maps, on its
# right the way to the next stage.
_MARGIN, _BRACKETS, _BOX, _GUTTER = 0.30, 0.35, 2.35, 0.40
_COLUMN = _BRACKETS + _BOX + _GUTTER
_NARROWEST = 4.2
_HEADER, _ENTRY, _LAYER, _EXIT = 0.76, 0.80, 0.27, 1.10


def draw_architecture(spec: NetworkSpec, architecture: Architecture, path: Path, title: str = "") -> None:
    """Draw a network's stages side by side, layer under layer, with its tokens, shared maps and costs.

    In an SVG the box of a layer has the id ``stage-2-layer-3-sharing``, the arrow of the map that it takes
    ``stage-2-layer-3-takes-map-of-1``.

    Args:
        spec: the dimensions.
        architecture: the layers.
        path: a ``.png`` or ``.svg`` file.
        title: stands above the drawing; by default the network's name.

    Raises:
        ValueError: another ending, a file that cannot be written, or as many stages as the dimensions do not have.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    total = network_cost(spec, architecture)
    width = max(_NARROWEST, 2 * _MARGIN + _COLUMN * spec.stages)
    left = (width - _COLUMN * spec.stages) / 2
    text_left = left + _BRACKETS
    room = width - text_left - _MARGIN
    heading = textwrap.wrap(title or spec.name or f"PSViT-{spec.kind.upper()}", int(room / 0.125))
    letters = textwrap.wrap(str(architecture), int(room / 0.08))
    top = 0.80 + 0.25 * len(heading) + 0.19 * len(letters)
    entry = top + _HEADER
    first_layer = entry + _ENTRY + (0.45 if spec.kind == "1d" else 1.15)
    pitch = 0.38 if max(architecture.depths) <= 12 else 0.33
    bottoms = [first_layer + pitch * depth for depth in architecture.depths]
    height = max(*bottoms, bottoms[-1] + _EXIT) + 1.02

    figure = Figure(figsize=(width, height), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")

    y = 0.40
    for line in heading:
        _write(ax, text_left, y, line, size=13, weight="bold")
        y += 0.25
    for line in letters:
        _write(ax, text_left, y, line, size=9, family="DejaVu Sans Mono")
        y += 0.19
    _write(ax, text_left, y, f"{_cost_text(total)} in all", size=9, color=GREY)

    for stage, layers in enumerate(architecture.stages):
        x = left + stage * _COLUMN + _BRACKETS
        middle = x + _BOX / 2
        _draw_header(ax, spec, stage, layers, total, x, top)
        _draw_entry(ax, spec, stage, x, entry)
        _draw_tokens(ax, spec, stage, middle, entry + _ENTRY, first_layer)
        draw_layers(ax, layers, stage, x, first_layer, pitch)
        last_layer = first_layer + pitch * (len(layers) - 1) + _LAYER
        if stage + 1 < spec.stages:  # round the corner and up to the next stage's pooling
            gutter = x + _BOX + _GUTTER * 0.6
            beside = entry + _ENTRY / 2
            below = last_layer + 0.14
            _flow(
                ax,
                [(middle, last_layer), (middle, below), (gutter, below), (gutter, beside), (x + _COLUMN, beside)],
            )
        else:
            _draw_exit(ax, spec, x, last_layer)

    _draw_legend(ax, text_left, height - 0.70)
    save_figure(figure, path)


def draw_layers(ax: Axes, layers: str, stage: int, x: float, y: float, pitch: float) -> None:
    """Draw a stage's (from 0) layers as boxes, from (x, y) downwards, and the maps that they share as brackets.

    The axes are in inches with y downwards.
    """
    map_of = 0
    for number, letter in enumerate(layers):
        name = LAYER_NAMES[letter]
        top = y + number * pitch
        middle = top + _LAYER / 2
        face, ink = (BLUE, "white") if letter == BASIC else (ORANGE, "black")
        _box(ax, x, top, _LAYER, face, gid=f"stage-{stage + 1}-layer-{number + 1}-{name}")
        _write(ax, x + _BOX / 2, middle, name, ha="center", va="center_baseline", color=ink, size=9)
        _write(ax, x + 0.09, middle, str(number + 1), va="center_baseline", color=ink, size=7)
        if number:
            _flow(ax, [(x + _BOX / 2, top - pitch + _LAYER), (x + _BOX / 2, top)], head=False)
        if letter == BASIC:
            map_of = number
        else:
            source = y + map_of * pitch + _LAYER / 2
            bend = x - _BRACKETS * 0.55
            _flow(
                ax,
                [(x, source), (bend, source), (bend, middle), (x, middle)],
                color=BLUE,
                gid=f"stage-{stage + 1}-layer-{number + 1}-takes-map-of-{map_of + 1}",
            )


def _draw_header(ax: Axes, spec: NetworkSpec, stage: int, layers: str, total: Cost, x: float, y: float) -> None:
    """What a stage is and costs, above its column."""
    rows, columns = spec.grids[stage]
    tokens = f"{spec.tokens[stage]} token{'s' if spec.tokens[stage] > 1 else ''}"
    if spec.kind == "2d":
        tokens += f" ({rows} × {columns})"
    elif stage == 0:
        tokens += f" (class token + {spec.patch_grid[0]} × {spec.patch_grid[1]})"
    heads = f"{spec.heads[stage]} head{'s' if spec.heads[stage] > 1 else ''}"
    cost = stage_cost(spec, stage, layers.count(BASIC), layers.count(SHARING))
    _write(ax, x, y, f"Stage {stage + 1}", size=11, weight="bold")
    _write(ax, x, y + 0.21, f"{tokens}", size=8)
    _write(ax, x, y + 0.38, f"{spec.widths[stage]} wide, {heads}", size=8)
    _write(ax, x, y + 0.55, _cost_text(cost, f" ({cost.flops / total.flops:.0%})"), size=8, color=GREY)


def _draw_entry(ax: Axes, spec: NetworkSpec, stage: int, x: float, y: float) -> None:
    """The box that makes a stage's tokens: patch embedding or token pooling."""
    if stage == 0:
        height, width = spec.image_size
        name, cost = "patch embedding", stem_cost(spec)
        how = f"image {height} × {width}"
        change = f"in patches of {spec.patch_size} × {spec.patch_size}"
    else:
        name, cost = "token pooling", pool_cost(spec, stage)
        kernel = f"{spec.pool_kernel}" if spec.kind == "1d" else f"{spec.pool_kernel} × {spec.pool_kernel}"
        what = {"conv": "convolution, kernel", "max": "maximum over", "average": "average over"}[spec.pooling]
        how = f"{spec.kind.upper()} {what} {kernel}, stride 2"
        (narrow, wide), (many, few) = spec.widths[stage - 1 : stage + 1], spec.tokens[stage - 1 : stage + 1]
        change = f"{many} → {few} tokens, {narrow} → {wide} wide"
    _box(ax, x, y, _ENTRY, PALE)
    middle = x + _BOX / 2
    _write(ax, middle, y + 0.17, name, ha="center", size=7.5, weight="bold")
    _write(ax, middle, y + 0.34, how, ha="center", size=7.5)
    _write(ax, middle, y + 0.51, change, ha="center", size=7.5)
    _write(ax, middle, y + 0.68, _cost_text(cost), ha="center", size=7.5, color=GREY)


def _draw_exit(ax: Axes, spec: NetworkSpec, x: float, y: float) -> None:
    """What follows the last stage, whose last layer ends at y."""
    middle = x + _BOX / 2
    many = "tokens" if spec.tokens[-1] > 1 else "token"
    readout = "class token" if spec.readout == "class_token" else f"mean over {spec.tokens[-1]} {many}"
    _flow(ax, [(middle, y), (middle, y + 0.2)])
    _box(ax, x, y + 0.20, _LAYER, PALE)
    _write(ax, middle, y + 0.20 + _LAYER / 2, f"norm, {readout}", ha="center", va="center_baseline", size=7.5)
    _flow(ax, [(middle, y + 0.47), (middle, y + 0.62)])
    _box(ax, x, y + 0.62, 0.44, PALE)
    _write(ax, middle, y + 0.80, f"head, {spec.classes} classes", ha="center", size=7.5, weight="bold")
    _write(ax, middle, y + 0.97, _cost_text(head_cost(spec)), ha="center", size=7.5, color=GREY)


def _draw_tokens(ax: Axes, spec: NetworkSpec, stage: int, middle: float, top: float, bottom: float) -> None:
    """A stage's tokens as squares of a grid, or as a strip, in proportion to those of the first stage."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    rows, columns = spec.grids[stage]
    first_rows, first_columns = spec.grids[0]
    side = min(_BOX / first_columns, (bottom - top - 0.3) / first_rows)
    width, height = columns * side, rows * side if spec.kind == "2d" else 0.12
    x, y = middle - width / 2, (top + bottom - height) / 2
    ax.add_patch(Rectangle((x, y), width, height, facecolor=SKY, edgecolor=INK, linewidth=0.6))
    if side * PIXELS_PER_INCH >= 4:  # finer lines would blur
        lines = [[(x + column * side, y), (x + column * side, y + height)] for column in range(1, columns)]
        lines += [[(x, y + row * side), (x + width, y + row * side)] for row in range(1, rows)]
        ax.add_collection(LineCollection(lines, colors="white", linewidths=0.5), autolim=False)
    _flow(ax, [(middle, top), (middle, y)])
    _flow(ax, [(middle, y + height), (middle, bottom)])


def _draw_legend(ax: Axes, x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    for row, (colour, text) in enumerate(
        [
            (BLUE, "basic layer: computes an attention map"),
            (ORANGE, "sharing layer: uses the map that its arrow brings"),
            (SKY, "tokens; FLOPs are multiply-adds an image"),
        ]
    ):
        ax.add_patch(Rectangle((x, y + 0.2 * row - 0.09), 0.16, 0.12, facecolor=colour, edgecolor=INK, linewidth=0.6))
        _write(ax, x + 0.24, y + 0.2 * row, text, size=7.5)


def _cost_text(cost: Cost, share: str = "") -> str:
    return f"{format_quantity(cost.flops, 3)} FLOPs{share}, {format_quantity(cost.params, 3)} parameters"


def _write(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    weight: str = "normal",
    color: str = INK,
    ha: str = "left",
    va: str = "baseline",
    family: str | None = None,
) -> None:
    ax.text(
        x, y, text, fontsize=size, fontweight=weight, color=color, ha=ha, va=va, fontfamily=family, parse_math=False
    )


def _box(ax: Axes, x: float, y: float, height: float, colour: str, gid: str | None = None) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.05"
    ax.add_patch(
        FancyBboxPatch((x, y), _BOX, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=0.7, gid=gid)
    )


def _flow(
    ax: Axes, points: list[tuple[float, float]], color: str = INK, head: bool = True, gid: str | None = None
) -> None:
    """A line along points, with an arrow's head at its end."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Line

    ax.add_patch(
        FancyArrowPatch(
            path=Line(points),
            arrowstyle="-|>,head_length=2.6,head_width=1.5" if head else "-",
            mutation_scale=1.6,
            linewidth=0.9,
            facecolor=color,
            edgecolor=color,
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            snap=True,  # maps of one basic layer run over each other: pixel on pixel, or the line grows bold
            gid=gid,
        )
    )
