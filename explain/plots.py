"""The pictures of ``psvit-search explain``: similarity of attention maps, of heads and of tokens, and Grad-CAM.

1200 pixels wide. Sharing layers are orange, as in the drawing of an architecture.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psvit.arch import SHARING
from psvit.explain.similarity import MapSimilarity, TokenSimilarity, match_heads
from psvit.figures import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

_WIDTH = 7.5  # inches
_COLOURS = "viridis"
_NOTE = 7.5  # points
_NAME_LETTERS = 16


def draw_attention(stages: Sequence[MapSimilarity], name: str, num_images: int, path: Path) -> None:
    """Draw for each stage how similar its layers' attention maps are, on one image and on two, and neighbouring ones.

    Args:
        stages: of a network.
        name: of the network.
        num_images: how many the similarity is the mean of.
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    neighbours = any(stage.neighbours for stage in stages)
    across, down = (2, 1) if len(stages) == 1 else (len(stages), 2)
    heights = [0.62, (6.4 / across + 0.3) * down, *([1.9] if neighbours else []), 0.5]
    figure, rows = _figure(heights)
    _head(
        rows[0], "Similarity of attention maps", f"{_short(name, 48)}; cosine similarity, mean of {num_images} images"
    )
    axes = rows[1].subplots(down, across, squeeze=False)
    panels = [(stage, different) for different in (False, True) for stage in range(len(stages))]
    for ax, (number, different) in zip(axes.flat, panels, strict=True):
        stage = stages[number]
        image = _heat_map(ax, stage.layers(different), 5.2 / across)
        _layer_ticks(ax, stage.letters, 5.2 / across)
        if not different:
            _mark_shared(ax, stage)
        what = "different images" if different else "the same image"
        if len(stages) == 1:
            ax.set_title(what, fontsize=9)
        elif not different:
            ax.set_title(f"Stage {number + 1}", fontsize=9)
        if ax in axes[:, 0]:
            ax.set_ylabel("layer" if len(stages) == 1 else f"{what}\nlayer", fontsize=8)
        if ax in axes[-1]:
            ax.set_xlabel("layer", fontsize=8)
    _colour_bar(rows[1], image, list(axes.flat), "similarity, heads matched")
    if neighbours:
        _draw_neighbours(rows[-2].subplots(), stages)
    apart = "; stages differ in tokens and are not compared" if len(stages) > 1 else ""
    sharing = any(SHARING in stage.letters for stage in stages)
    _legend(
        rows[-1],
        f"different images: similarity of two layers' maps whatever the image{apart}",
        "shared maps: identical by construction. Sharing layers are orange" if sharing else "",
    )
    save_figure(figure, path)


def _draw_neighbours(ax: Axes, stages: Sequence[MapSimilarity]) -> None:
    """The similarity of neighbouring layers, on one image above that on two."""
    at, ticks, labels = 0.0, [], []
    pairs = sum(len(stage.neighbours) for stage in stages)
    points: dict[str, list[tuple[float, float]]] = {"same": [], "shared": [], "different": []}
    for number, stage in enumerate(stages, start=1):
        same, different = stage.layers(), stage.layers(different=True)
        begin = at
        for one, other in stage.neighbours:
            shared = stage.shared(one, other)
            points["shared" if shared else "same"].append((at, 1.0 if shared else same[one, other]))
            points["different"].append((at, different[one, other]))
            ax.plot([at, at], [different[one, other], same[one, other]], color="#BBBBBB", linewidth=1, zorder=1)
            ticks.append(at)
            labels.append(f"{one + 1}–{other + 1}")
            at += 1
        if at > begin:
            if len(stages) > 1:
                ax.text((begin + at - 1) / 2, 1.13, f"stage {number}", ha="center", fontsize=8, color=GREY)
            at = max(at, begin + _room(pairs)) + 0.8
    styles: dict[str, Any] = {
        "same": {"marker": "o", "color": BLUE, "label": "the same image"},
        "different": {"marker": "o", "mfc": "none", "color": GREY, "label": "different images"},
        "shared": {"marker": "s", "color": ORANGE, "label": "shared: 1"},
    }
    for what, style in styles.items():
        if points[what]:
            ax.plot(*zip(*points[what], strict=True), linestyle="", markersize=5, **style)
    ax.set_ylim(0, 1.08)
    ax.set_xlim(ticks[0] - 0.8, ticks[-1] + 0.8)
    ax.set_xticks(ticks, labels, fontsize=7, rotation=90 if len(ticks) > 16 else 0)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel("neighbouring layers", fontsize=8)
    ax.set_ylabel("similarity", fontsize=8)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def draw_heads(stages: Sequence[MapSimilarity], name: str, num_images: int, path: Path) -> bool:
    """Draw the similarity of each head of a layer and each head of the next, for neighbours that do not share a map.

    Returns:
        Whether there are such neighbours; without them nothing is drawn.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    pairs = [
        (number, stage, pair)
        for number, stage in enumerate(stages, start=1)
        for pair in stage.neighbours
        if not stage.shared(*pair)
    ]
    if not pairs:
        return False
    across = max(3, min(6, math.ceil(math.sqrt(1.5 * len(pairs)))))
    down = math.ceil(len(pairs) / across)
    figure, rows = _figure([0.62, (6.2 / across + 0.3) * down, 0.34])
    what = f"{_short(name, 48)}; cosine similarity on the same image, mean of {num_images} images"
    _head(rows[0], "Similarity of heads of neighbouring layers", what)
    axes = rows[1].subplots(down, across, squeeze=False)
    for ax in axes.flat[len(pairs) :]:
        ax.set_visible(False)
    for ax, (number, stage, (one, other)) in zip(axes.flat, pairs, strict=False):
        heads = stage.heads(one, other)
        image = _heat_map(ax, heads, 5.0 / across)
        partners, side = match_heads(heads), _cell(heads, 5.0 / across) * 0.75
        frame = {"mfc": "none", "mec": "white", "mew": min(side / 4, 1.2), "ms": side}
        ax.plot(partners, range(len(partners)), "s", **frame)
        _ticks(ax, len(heads), 5.0 / across)
        ax.set_xlabel(f"layer {other + 1}", fontsize=7, labelpad=1)
        ax.set_ylabel(f"layer {one + 1}", fontsize=7, labelpad=1)
        if len(stages) > 1:
            ax.set_title(f"stage {number}", fontsize=8)
    _colour_bar(rows[1], image, list(axes.flat), "similarity")
    _legend(rows[2], "white frames: heads matched one to one for the largest total similarity")
    save_figure(figure, path)
    return True


def draw_tokens(
    stages: Sequence[Sequence[TokenSimilarity]],
    letters: Sequence[str],
    grids: Sequence[Sequence[Array]],
    name: str,
    num_images: int,
    path: Path,
) -> None:
    """Draw how alike the tokens are after each layer, and where in the image they are most alike.

    Args:
        stages: for each stage its layers.
        letters: of these.
        grids: for each stage and layer the similarity of each token and the others, laid out (rows, columns).
        name: of the network.
        num_images: how many the similarity is the mean of.
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    across = max(6, min(10, max(map(len, letters))))
    rows, columns = grids[0][0].shape
    side = 6.2 / across
    line = min(max(side * rows / columns, 0.4), 2 * side) + 0.26
    heights = [line * -(-len(word) // across) + 0.1 for word in letters]
    figure, parts = _figure([0.62, 2.3, *heights, 0.34])
    _head(parts[0], "Similarity of tokens", f"{_short(name, 48)}; cosine similarity, mean of {num_images} images")
    _draw_token_curve(parts[1].subplots(), stages, letters)
    for stage, (part, word) in enumerate(zip(parts[2:], letters, strict=False)):
        _draw_token_grids(part, grids[stage], word, across, f"stage {stage + 1}" if len(letters) > 1 else "")
    note = ". Sharing layers are orange" if any(SHARING in word for word in letters) else ""
    _legend(parts[-1], f"squares: each token's mean similarity to the others of its image, at its position{note}")
    save_figure(figure, path)


def _draw_token_grids(part: Any, grids: Sequence[Array], letters: str, across: int, label: str) -> None:
    """The tokens of a stage's layers, in colours of their own."""
    values = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    low, high = (values.min(), values.max()) if len(values) else (0, 1)
    axes = part.subplots(-(-len(letters) // across), across, squeeze=False)
    for ax in axes.flat[len(letters) :]:
        ax.set_visible(False)
    for layer, (ax, grid) in enumerate(zip(axes.flat, grids, strict=False)):
        image = ax.imshow(grid, cmap=_COLOURS, vmin=low, vmax=high, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        colour = ORANGE if letters[layer] == SHARING else INK
        ax.set_title(f"layer {layer + 1}", fontsize=7, color=colour, pad=3)
    axes[0, 0].set_ylabel(label, fontsize=8)
    _colour_bar(part, image, list(axes.flat), "", shrink=0.8)


def _draw_token_curve(ax: Axes, stages: Sequence[Sequence[TokenSimilarity]], letters: Sequence[str]) -> None:
    at, ticks, labels = 0.0, [], []
    count = sum(map(len, letters))
    for number, (stage, word) in enumerate(zip(stages, letters, strict=True)):
        xs = [at + layer for layer in range(len(stage))]
        named = number == 0
        curves: list[tuple[str, list[float | None], dict[str, Any]]] = [
            ("the same image", [layer.same for layer in stage], {"color": BLUE, "linewidth": 1.6}),
            ("different images", [layer.different for layer in stage], {"color": GREY, "linestyle": "--"}),
            ("class token, others", [layer.class_token for layer in stage], {"color": GREEN, "linestyle": "-."}),
        ]
        for label, values, style in curves:
            if values[0] is not None:
                ax.plot(xs, values, marker="o", ms=4, label=label if named else None, **style)  # type: ignore[arg-type]
        for x, layer, letter in zip(xs, stage, word, strict=True):
            if letter == SHARING:
                ax.plot(x, layer.same, "s", ms=6, color=ORANGE, zorder=4)
        if len(stages) > 1:
            above = ax.get_xaxis_transform()
            ax.text(
                sum(xs) / len(xs), 1.02, f"stage {number + 1}", ha="center", fontsize=8, color=GREY, transform=above
            )
        ticks += xs
        labels += [str(layer + 1) for layer in range(len(stage))]
        at += max(len(stage), _room(count)) + 0.6
    ax.set_xticks(ticks, labels, fontsize=7)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel("after layer", fontsize=8)
    ax.set_ylabel("mean similarity of two tokens", fontsize=8)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0), max(high, 1))
    ax.margins(x=0.03)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _room(count: int) -> float:
    """How many of so many places on an axis the name of a stage takes."""
    return 0.1 * count


@dataclass(frozen=True)
class Seen:
    """What a network makes of some images.

    Attributes:
        name: of the network.
        images: uint8 (n, height, width, 3), as it saw them.
        maps: (n, height, width) Grad-CAM over them, 0..1.
        places: what they were interpolated from.
        predicted: (n,) names of classes.
        probabilities: (n,) of these.
    """

    name: str
    images: npt.NDArray[np.uint8]
    maps: Array
    places: str
    predicted: Sequence[str]
    probabilities: Sequence[float]


def draw_gradcam(networks: Sequence[Seen], captions: Sequence[str], true: Sequence[str | None], path: Path) -> None:
    """Draw images, and over them where one network, or two side by side, find evidence for the predicted class.

    Args:
        networks: what each makes of the same images.
        captions: (n,) what to call each image.
        true: (n,) name of its class, None where that is not known.
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    panels = 1 + len(networks)
    groups = 6 // panels  # images beside each other
    gap = 0.16
    side = (_WIDTH - 0.24 - gap * (groups - 1)) / (groups * panels)
    rows, columns = networks[0].images.shape[1:3]
    tall = side * min(max(rows / columns, 0.5), 2)
    top, caption, foot = 0.86, 0.42, 0.40
    lines = -(-len(captions) // groups)
    height = top + lines * (tall + caption) + foot
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")

    def write(x: float, y: float, text: str, size: float = 7, **style: Any) -> None:
        figure.text(x / _WIDTH, 1 - y / height, text, fontsize=size, parse_math=False, **style)

    write(0.12, 0.32, "Grad-CAM: evidence for the predicted class", 13, fontweight="bold")
    for number in range(len(captions)):
        line, group = divmod(number, groups)
        left = 0.12 + group * (panels * side + gap)
        y = top + line * (tall + caption)
        for panel in range(panels):
            x = left + panel * side
            seen = networks[max(panel - 1, 0)]
            if line == 0:
                title = textwrap.wrap(seen.name, int(side / 0.055), break_on_hyphens=False)[:2] if panel else ["image"]
                write(x + side / 2, top - 0.06, "\n".join(title), ha="center", va="bottom", color=GREY)
            ax = figure.add_axes(
                ((x + 0.03) / _WIDTH, 1 - (y + tall - 0.03) / height, (side - 0.06) / _WIDTH, (tall - 0.06) / height)
            )
            ax.axis("off")
            if panel == 0:
                ax.imshow(seen.images[number])
                write(x + side / 2, y + tall + 0.10, _short(captions[number]), ha="center", color=GREY)
                if true[number] is not None:
                    write(x + side / 2, y + tall + 0.22, f"is {_short(str(true[number]))}", ha="center", color=INK)
                continue
            ax.imshow(np.dot(seen.images[number], [0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255)
            ax.imshow(seen.maps[number], cmap="inferno", vmin=0, vmax=1, alpha=0.6)
            wrong = true[number] is not None and seen.predicted[number] != true[number]
            said = ("✗ " if wrong else "") + _short(seen.predicted[number])
            write(x + side / 2, y + tall + 0.10, said, ha="center", color=VERMILLION if wrong else INK)
            empty = "" if seen.maps[number].any() else ", nothing found"
            write(x + side / 2, y + tall + 0.22, f"{seen.probabilities[number]:.1%}{empty}", ha="center", color=GREY)
    _grad_cam_scale(figure, height, [seen.places for seen in networks])
    save_figure(figure, path)


def _grad_cam_scale(figure: Figure, height: float, places: Sequence[str]) -> None:
    """The colours of the maps, below them."""
    ax = figure.add_axes((0.12 / _WIDTH, 0.15 / height, 1.2 / _WIDTH, 0.1 / height))
    ax.imshow(np.linspace(0, 1, 256)[None], cmap="inferno", aspect="auto")
    ax.set(xticks=[], yticks=[])
    from_what = f"interpolated from {' and '.join(dict.fromkeys(places))}"
    text = f"none to most, each map scaled to its own maximum;\n{from_what}"
    figure.text(1.40 / _WIDTH, 0.20 / height, text, fontsize=_NOTE, color=GREY, va="center")


def _figure(heights: Sequence[float]) -> tuple[Figure, list[Any]]:
    """A figure and its rows, of heights in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, sum(heights)), facecolor="white")
    figure.set_layout_engine("constrained")
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    return figure, list(rows)


def _head(row: Any, title: str, subtitle: str) -> None:
    row.text(0.015, 0.62, title, fontsize=13, fontweight="bold", va="center")
    row.text(0.015, 0.18, subtitle, fontsize=9, color=GREY, parse_math=False, va="center")


def _legend(row: Any, note: str, framed: str = "") -> None:
    """Lines below a picture: what an orange frame means, and a note."""
    from matplotlib.patches import Rectangle

    lines = [text for text in (framed, note) if text]
    for number, text in enumerate(lines):
        y = 1 - (number + 0.5) / len(lines)
        if text == framed:
            half = 0.055 / (row.bbox.height / row.figure.dpi)  # inches
            row.add_artist(Rectangle((0.016, y - half), 0.016, 2 * half, fill=False, edgecolor=ORANGE, linewidth=1.6))
        row.text(0.04 if text == framed else 0.015, y, text, fontsize=_NOTE, color=GREY, va="center")


def _cell(values: Array, inches: float) -> float:
    """Side of a cell of a square heat map, in points."""
    return 72 * inches / len(values)


def _heat_map(ax: Axes, values: Array, inches: float) -> Any:
    """Similarity from 0 to 1, with numbers where these have room."""
    image = ax.imshow(values, cmap=_COLOURS, vmin=0, vmax=1, interpolation="nearest")
    size = min(_cell(values, inches) / 2.6, 9)
    if size >= 4.5:
        for (row, column), value in np.ndenumerate(values):
            text = "1" if value == 1 else f"{value:.2f}".replace("0.", ".", 1)
            ax.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if value < 0.6 else INK)
    return image


def _ticks(ax: Axes, count: int, inches: float) -> None:
    step = next(step for step in (1, 2, 4, 8, 16, count) if step * inches / count >= 0.14 or step >= count)
    places = range(0, count, step)
    labels = [str(place + 1) for place in places]
    ax.set_xticks(places, labels)
    ax.set_yticks(places, labels)
    ax.tick_params(labelsize=6, length=2, pad=1.5)


def _layer_ticks(ax: Axes, letters: str, inches: float) -> None:
    """Layers from 1; a sharing one is orange."""
    _ticks(ax, len(letters), inches)
    for axis in (ax.xaxis, ax.yaxis):
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
            if letters[int(place)] == SHARING:
                label.set(color=ORANGE, fontweight="bold")


def _mark_shared(ax: Axes, stage: MapSimilarity) -> None:
    """Frame layers that use the same map: they stand in a row."""
    from matplotlib.patches import Rectangle

    for number in set(stage.map_of):
        first, length = stage.map_of.index(number), stage.map_of.count(number)
        if length > 1:
            frame = Rectangle((first - 0.5, first - 0.5), length, length, fill=False, edgecolor=ORANGE, linewidth=2)
            frame.set(clip_on=False, zorder=5)  # over the panel's own frame
            ax.add_patch(frame)


def _colour_bar(row: Any, image: Any, axes: list[Axes], label: str, shrink: float = 1.0) -> None:
    bar = row.colorbar(image, ax=axes, pad=0.02, fraction=0.04, aspect=30, shrink=shrink)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _short(name: str, letters: int = _NAME_LETTERS) -> str:
    """A name that fits: its beginning and its end, which often tells breeds and numbers apart."""
    return name if len(name) <= letters else f"{name[: letters - 6]}…{name[-5:]}"
