"""A network as a drawing, in the manner of the paper's figure 6: its stages side by side, layer by layer. No torch."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psvit.arch import BASIC, LAYER_NAMES, SHARING, Architecture, NetworkSpec
from psvit.cost import Cost, head_cost, network_cost, pool_cost, stage_cost, stem_cost
from psvit.figures import BLUE, GREY, INK, ORANGE, PALE, PIXELS_PER_INCH, SKY, check_picture, save_figure
from psvit.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        ValueError: another ending, a file that cannot be written, or a number of stages that is not the dimensions'.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    total = network_cost(spec, architecture)
    layout = _Layout.of(spec, architecture, title)
    figure = Figure(figsize=(layout.width, layout.height), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    ax.axis("off")
    _draw_title(ax, layout, total)
    for stage, layers in enumerate(architecture.stages):
        x = layout.column(stage)
        _draw_header(ax, spec, stage, layers, total, (x, layout.header))
        _draw_entry(ax, spec, stage, x, layout.entry)
        _draw_tokens(ax, spec, stage, layout)
        _draw_layers(ax, layers, stage, layout)
        if stage + 1 < spec.stages:
            _draw_way_on(ax, layout, stage)
        else:
            _draw_exit(ax, spec, x, layout.end(stage))
    _draw_legend(ax, layout.text_left, layout.height - 0.70)
    save_figure(figure, path)


@dataclass(frozen=True)
class _Layout:
    """Where everything stands, in inches from the upper left corner.

    Attributes:
        text_left: where the title's lines begin, and the boxes of the first stage.
        heading, letters: the title and the architecture, as lines that fit.
        depths: layers of each stage.
        header, entry, first_layer: top of each stage: of its header, of the box that makes its tokens, of its layers.
        pitch: from layer to layer.
    """

    width: float
    height: float
    text_left: float
    heading: list[str]
    letters: list[str]
    depths: tuple[int, ...]
    header: float
    entry: float
    first_layer: float
    pitch: float

    @classmethod
    def of(cls, spec: NetworkSpec, architecture: Architecture, title: str) -> _Layout:
        width = max(_NARROWEST, 2 * _MARGIN + _COLUMN * spec.stages)
        text_left = (width - _COLUMN * spec.stages) / 2 + _BRACKETS
        room = width - text_left - _MARGIN
        heading = textwrap.wrap(title or spec.name or f"PSViT-{spec.kind.upper()}", int(room / 0.125))
        letters = textwrap.wrap(str(architecture), int(room / 0.08))
        header = 0.80 + 0.25 * len(heading) + 0.19 * len(letters)
        entry = header + _HEADER
        first_layer = entry + _ENTRY + (0.45 if spec.kind == "1d" else 1.15)
        pitch = 0.38 if max(architecture.depths) <= 12 else 0.33
        bottoms = [first_layer + pitch * depth for depth in architecture.depths]
        height = max(*bottoms, bottoms[-1] + _EXIT) + 1.02
        return cls(
            width,
            height,
            text_left,
            heading,
            letters,
            depths=architecture.depths,
            header=header,
            entry=entry,
            first_layer=first_layer,
            pitch=pitch,
        )

    def column(self, stage: int) -> float:
        """Left side of a stage's (from 0) boxes."""
        return self.text_left + stage * _COLUMN

    def end(self, stage: int) -> float:
        """Bottom of a stage's last layer."""
        return self.first_layer + self.pitch * (self.depths[stage] - 1) + _LAYER


def _draw_title(ax: Axes, layout: _Layout, total: Cost) -> None:
    """Title, letters of the layers, and cost, one below the other."""
    y = 0.40
    for line in layout.heading:
        _write(ax, layout.text_left, y, line, size=13, weight="bold")
        y += 0.25
    for line in layout.letters:
        _write(ax, layout.text_left, y, line, size=9, family="DejaVu Sans Mono")
        y += 0.19
    _write(ax, layout.text_left, y, f"{_cost_text(total)} in total", size=9, color=GREY)


def _draw_layers(ax: Axes, layers: str, stage: int, layout: _Layout) -> None:
    """A stage's layers as boxes, and the maps that they share as brackets on their left."""
    x, map_of = layout.column(stage), 0
    for number, letter in enumerate(layers):
        name = LAYER_NAMES[letter]
        top = layout.first_layer + number * layout.pitch
        middle = top + _LAYER / 2
        face, ink = (BLUE, "white") if letter == BASIC else (ORANGE, "black")
        _box(ax, x, top, _LAYER, face, gid=f"stage-{stage + 1}-layer-{number + 1}-{name}")
        _write(ax, x + _BOX / 2, middle, name, ha="center", va="center_baseline", color=ink, size=9)
        _write(ax, x + 0.09, middle, str(number + 1), va="center_baseline", color=ink, size=7)
        if number:
            _flow(ax, [(x + _BOX / 2, top - layout.pitch + _LAYER), (x + _BOX / 2, top)], head=False)
        if letter == BASIC:
            map_of = number
        else:
            source = layout.first_layer + map_of * layout.pitch + _LAYER / 2
            bend = x - _BRACKETS * 0.55
            _flow(
                ax,
                [(x, source), (bend, source), (bend, middle), (x, middle)],
                color=BLUE,
                gid=f"stage-{stage + 1}-layer-{number + 1}-takes-map-of-{map_of + 1}",
            )


def _draw_way_on(ax: Axes, layout: _Layout, stage: int) -> None:
    """From a stage's last layer round the corner and up to the next stage's pooling."""
    x, last = layout.column(stage), layout.end(stage)
    middle, gutter = x + _BOX / 2, x + _BOX + _GUTTER * 0.6
    beside, below = layout.entry + _ENTRY / 2, last + 0.14
    _flow(ax, [(middle, last), (middle, below), (gutter, below), (gutter, beside), (x + _COLUMN, beside)])


def _draw_header(ax: Axes, spec: NetworkSpec, stage: int, layers: str, total: Cost, at: tuple[float, float]) -> None:
    """What a stage is and costs, above its column, from ``at`` downwards."""
    x, y = at
    rows, columns = spec.grids[stage]
    tokens = f"{spec.tokens[stage]} token{'s' if spec.tokens[stage] > 1 else ''}"
    if spec.kind == "2d":
        tokens += f" ({rows} × {columns})"
    elif stage == 0:
        tokens += f" (class token + {spec.patch_grid[0]} × {spec.patch_grid[1]})"
    heads = f"{spec.heads[stage]} head{'s' if spec.heads[stage] > 1 else ''}"
    cost = stage_cost(spec, stage, layers.count(BASIC), layers.count(SHARING))
    _write(ax, x, y, f"Stage {stage + 1}", size=11, weight="bold")
    _write(ax, x, y + 0.21, tokens, size=8)
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


def _draw_tokens(ax: Axes, spec: NetworkSpec, stage: int, layout: _Layout) -> None:
    """A stage's tokens as squares of a grid, or as a strip, in proportion to those of the first stage."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    middle = layout.column(stage) + _BOX / 2
    top, bottom = layout.entry + _ENTRY, layout.first_layer
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
            (ORANGE, "sharing layer: reuses the map that its arrow comes from"),
            (SKY, "tokens; FLOPs are multiply-adds per image"),
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
    *,
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
