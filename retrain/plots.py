"""The pictures of a training: its curves, and test images with what the network takes them for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from psvit.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, save_figure
from psvit.retrain.results import CompareRecord
from psvit.units import format_quantity

_COLUMNS, _MOST_ROWS = 8, 6
_NAME_LETTERS = 12


def draw_training(metrics_csv: Path, path: Path) -> None:
    """Draw loss, top-1 or average precision, and learning rate by epoch, 1200 x 800 pixels.

    A column belongs to the panel whose word is in its name: ``loss``, ``top1``, ``ap`` or ``lr``; others are left out.

    Args:
        metrics_csv: a run's table, with a column ``epoch``.
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: the table is missing, cannot be read or has no epochs, or the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    metrics = _read(metrics_csv)
    panels = {"loss": "loss", "top1": "top-1", "ap": "AP", "lr": "learning rate"}
    columns = {word: [name for name in metrics.columns if word in name.split("_")] for word in panels}
    shown = [word for word in panels if columns[word]]
    if not shown:
        raise ValueError(f"{metrics_csv}: has no column of loss, top1, ap or lr to draw; is it a run's metrics.csv?")

    figure = Figure(figsize=(7.5, 5), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    heights = [1 if word == "lr" else 2 for word in shown]
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    styles = [(BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, "-"), (SKY, "--")]
    # what was measured, as ema_search, has one style in all panels
    measured = list(dict.fromkeys(_of(name) for word in shown for name in columns[word]))
    for ax, word in zip(axes, shown, strict=True):
        for name in columns[word]:
            colour, line = styles[measured.index(_of(name)) % len(styles)]
            curve = metrics[["epoch", name]].dropna()
            marker = "o" if len(curve) <= 30 else ""
            ax.plot(
                curve["epoch"],
                curve[name],
                line,
                color=colour,
                marker=marker,
                ms=3.5,
                label=_label(name),
            )
        ax.set_ylabel(panels[word])
        ax.grid(color="#DDDDDD", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        if word in ("top1", "ap"):
            ax.yaxis.set_major_formatter(PercentFormatter(1))
        if word != "lr":
            ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    epochs = metrics["epoch"].nunique()
    axes[0].set_title(f"Training, {epochs} epoch{'s' if epochs > 1 else ''}", loc="left")
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    figure.align_ylabels()
    save_figure(figure, path)


def draw_comparison(record: CompareRecord, path: Path) -> None:
    """Draw how much higher the first network's top-1 is than each other's, with 95 % intervals.

    Args:
        path: a ``.png`` or ``.svg`` file.

    Raises:
        ValueError: the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    first, *others = record.networks
    figure = Figure(figsize=(7.5, 1.6 + 0.42 * len(others)), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
    ax = figure.subplots()
    for row, other in enumerate(others):
        ahead = other.ahead_top1
        assert ahead is not None
        colour = BLUE if ahead.low > 0 else VERMILLION if ahead.high < 0 else GREY
        ax.plot([ahead.low, ahead.high], [row, row], color=colour, linewidth=2)
        ax.plot(ahead.value, row, "o", color=colour, markersize=6)
    ax.axvline(0, color=INK, linewidth=0.8)
    names = [f"{other.network}, {format_quantity(other.flops)}, n={len(other.seeds)}" for other in others]
    ax.set_yticks(range(len(others)), names)
    ax.set_ylim(len(others) - 0.5, -0.5)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    ax.set_xlabel(f"higher top-1 of {first.network}, on {record.num_images:,} images of {record.data}")
    ax.set_title(f"{first.network}, {format_quantity(first.flops)} FLOPs, against", loc="left", fontsize=11)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_predictions(
    images: npt.NDArray[np.uint8],
    labels: Sequence[int] | npt.NDArray[np.integer],
    predictions: Sequence[int] | npt.NDArray[np.integer],
    class_names: Sequence[str],
    path: Path,
    top1: float,
) -> None:
    """Draw a contact sheet, 1200 pixels wide: test images, mistakes first, each with its predicted class.

    At most 48 images are drawn.

    Args:
        images: (n, height, width, 3).
        labels: (n,) true classes.
        predictions: (n,) predicted classes.
        class_names: name of each class.
        path: a ``.png`` or ``.svg`` file.
        top1: share of the whole test split that is right.

    Raises:
        ValueError: there is no image, or the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not len(images):
        raise ValueError("there are no test images to draw; give at least one")
    wrong = np.asarray(labels) != np.asarray(predictions)
    order = np.argsort(~wrong, kind="stable")[: _COLUMNS * _MOST_ROWS]
    rows = -(-len(order) // _COLUMNS)
    side, caption, top = 7.5 / _COLUMNS, 0.36, 0.80
    height = top + rows * (side + caption)
    figure = Figure(figsize=(7.5, height), facecolor="white")
    figure.text(0.1 / 7.5, 1 - 0.32 / height, f"Top-1 on the test split: {top1:.2%}", fontsize=13, fontweight="bold")
    figure.text(
        0.1 / 7.5, 1 - 0.56 / height, _subtitle(int(wrong.sum()), len(order), len(images)), fontsize=9, color=GREY
    )
    for place, index in enumerate(order):
        row, column = divmod(place, _COLUMNS)
        x, y = column * side, height - top - row * (side + caption) - side  # of the cell's lower left corner
        ax = figure.add_axes(((x + 0.06) / 7.5, (y + 0.06) / height, (side - 0.12) / 7.5, (side - 0.12) / height))
        ax.imshow(images[index])
        ax.axis("off")
        predicted, true = (_short(class_names[int(which[index])]) for which in (predictions, labels))
        below: dict[str, Any] = {"x": (x + side / 2) / 7.5, "ha": "center", "fontsize": 7, "parse_math": False}
        if wrong[index]:
            ax.add_patch(
                Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, ec=VERMILLION, lw=3, clip_on=False)
            )
            figure.text(y=(y - 0.09) / height, s=f"✗ {predicted}", color=VERMILLION, **below)
            figure.text(y=(y - 0.22) / height, s=f"is {true}", color=INK, **below)
        else:
            figure.text(y=(y - 0.09) / height, s=predicted, color=INK, **below)
    save_figure(figure, path)


def _read(metrics_csv: Path) -> pd.DataFrame:
    """The numbers of a run's table by rising epoch, a last line cut short left out."""
    try:
        table = pd.read_csv(metrics_csv)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise ValueError(f"cannot read {metrics_csv}: {reason}; train first, or name a run's metrics.csv") from None
    metrics = table.apply(pd.to_numeric, errors="coerce")
    if "epoch" not in metrics or metrics["epoch"].isna().all():
        raise ValueError(f"{metrics_csv}: holds no epochs yet; wait until the first is done")
    return metrics.dropna(subset=["epoch"]).sort_values("epoch")


def _of(column: str) -> str:
    """What a column is of: ``ema_search_top1`` of ``ema_search``; empty for the training itself."""
    return "_".join(part for part in column.split("_") if part not in ("loss", "top1", "ap", "lr"))


def _label(column: str) -> str:
    label = column.replace("_", " ").replace("top1", "top-1").replace("ema", "EMA").replace(" ap", " AP")
    return "training loss" if column == "loss" else label


def _subtitle(mistakes: int, shown: int, given: int) -> str:
    images = f"{given:,} image{'s' if given > 1 else ''}"
    part = images if shown == given else f"{shown} of {images}"
    if not mistakes:
        return f"{part}, no mistake among them"
    if mistakes > shown:
        first = f"all of them among the {mistakes:,} mistakes"
    else:
        first = "the mistake first" if mistakes == 1 else f"the {mistakes} mistakes first"
    return f"{part}, {first}; under a framed one its predicted and its true class"


def _short(name: str) -> str:
    """A name that fits under an image: its beginning and its end, which often tells breeds and numbers apart."""
    return name if len(name) <= _NAME_LETTERS else f"{name[: _NAME_LETTERS - 6]}…{name[-5:]}"
