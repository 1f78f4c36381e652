"""The pictures of a search: what was scored, within which budget, and how fast the best was found. 1200 x 800 pixels.

A frame of trials has the columns of ``history.csv`` (:data:`psvit.search.tables.HISTORY`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from psvit.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, save_figure
from psvit.search.front import pareto_front
from psvit.units import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from psvit.search.correlation import Correlations, Estimate

_SCORES = {"top1": "top-1", "loss": "loss (lower is better)"}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))


def draw_scores(
    frame: pd.DataFrame,
    path: Path,
    budget_flops: Band,
    best_layers: str,
    space_name: str,
    baseline: pd.DataFrame | None = None,
    colours: str | None = "generation",
    rank_by: str = "top1",
) -> None:
    """Draw the score against FLOPs: every trial, the Pareto front, the budget and the winner. Better is higher up.

    Trials without a score are counted in the title.

    Args:
        frame: the trials.
        path: a ``.png`` or ``.svg`` file.
        budget_flops: what was allowed.
        best_layers: the winner, as in the column ``layers``.
        space_name: stands in the title.
        baseline: random architectures of the winner's cost, drawn as diamonds.
        colours: what to call the generations, whose colours the points take; None draws all alike.
        rank_by: the score, ``top1`` or ``loss``.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    scored, others = _scored(frame), _scored(frame.head(0) if baseline is None else baseline)
    unscored = len(frame) - len(scored)
    axis = _CostAxis.of(frame["flops"])
    figure, ax = _figure(rank_by)
    title = f"{space_name}: {_count(len(scored), 'architecture')} scored"
    ax.set_title(title + (f", {unscored} without a score" if unscored else ""), loc="left", parse_math=False)
    ax.set_xlabel(axis.label)
    ax.set_ylabel(f"{_SCORES[rank_by]} on the search split")
    if scored.empty:
        _say(ax, "no architecture has a score yet")
        return save_figure(figure, path)
    _draw_trials(ax, axis, scored, colours, rank_by)
    _draw_baseline(ax, axis, others, rank_by)
    _draw_front(ax, axis, scored, rank_by)
    ax.margins(0.06)
    _widen(
        ax.set_xlim, axis.scale(pd.concat([scored["flops"], others["flops"]])), 0.1 * axis.scale(scored["flops"].max())
    )
    _widen(ax.set_ylim, pd.concat([scored[rank_by], others[rank_by]]), 0.02)
    _draw_winner(ax, axis, scored, best_layers, rank_by)
    if rank_by == "loss":
        ax.invert_yaxis()
    _draw_budget(ax, axis, budget_flops)
    _legend_below(ax)
    return save_figure(figure, path)


def _draw_trials(ax: Axes, axis: _CostAxis, scored: pd.DataFrame, colours: str | None, score: str) -> None:
    """Every trial as a point, in the colour of its generation where these are told apart."""
    from matplotlib.ticker import MaxNLocator

    several = bool(colours) and scored["generation"].nunique() > 1
    points = ax.scatter(
        axis.scale(scored["flops"]),
        scored[score],
        c=scored["generation"] if several else SKY,
        cmap="viridis_r" if several else None,
        s=34 if len(scored) <= 300 else 14 if len(scored) <= 3000 else 5,
        alpha=0.8,
        linewidths=0,
        zorder=2,
        rasterized=True,  # an exhaustive search has 250,047 points
    )
    if several:
        bar = ax.figure.colorbar(points, ax=ax, label=colours, pad=0.02, ticks=MaxNLocator(6, integer=True))
        bar.solids.set_alpha(1)  # type: ignore[union-attr]


def _draw_baseline(ax: Axes, axis: _CostAxis, others: pd.DataFrame, score: str) -> None:
    """Random architectures of the winner's cost as diamonds."""
    if others.empty:
        return
    label = f"{len(others)} random of the winner's cost"
    ax.scatter(
        axis.scale(others["flops"]), others[score], s=26, marker="D", c="none", edgecolors=INK, zorder=3, label=label
    )


def _draw_front(ax: Axes, axis: _CostAxis, scored: pd.DataFrame, score: str) -> None:
    """The Pareto front as steps, on to the largest cost of all."""
    front = pareto_front(scored, rank_by=score)
    ax.step(
        [*axis.scale(front["flops"]), axis.scale(scored["flops"].max())],
        [*front[score], front[score].iloc[-1]],
        where="post",
        color=VERMILLION,
        linewidth=1.6,
        zorder=4,
        label="Pareto front",
    )


def _draw_winner(ax: Axes, axis: _CostAxis, scored: pd.DataFrame, layers: str, score: str) -> None:
    """The winner as a star, if it is among the trials."""
    winner = scored[scored["layers"] == layers].head(1)
    if winner.empty:
        return
    flops, value = axis.scale(float(winner["flops"].iloc[0])), float(winner[score].iloc[0])
    label = f"winner {layers}: {_show(value, score)} at {flops:.4g} {axis.unit}"
    ax.plot(flops, value, "*", ms=18, color=ORANGE, mec=INK, mew=1, ls="", zorder=5, label=label)


def _draw_budget(ax: Axes, axis: _CostAxis, budget: Band) -> None:
    """Shade what is allowed, unless its ends lie so far off that the trials would shrink to a dot."""
    low, high = ax.get_xlim()
    ends = [None if end is None else axis.scale(end) for end in (budget.low, budget.high)]
    for end in ends:
        if end is not None and low - (high - low) <= end <= high + (high - low):
            ax.axvline(end, color=GREY, linestyle="--", linewidth=1.3, zorder=1)
            low, high = min(low, end), max(high, end)
    pad = 0.03 * (high - low)
    low, high = low - pad, high + pad
    if budget != Band():
        left = low if ends[0] is None else max(low, ends[0])
        right = high if ends[1] is None else min(high, ends[1])
        ax.axvspan(left, right, color=f"{GREEN}18", linewidth=0, zorder=0, label=f"budget: {budget}")
    ax.set_xlim(low, high)


def draw_progress(frames: dict[str, pd.DataFrame], path: Path, rank_by: str = "top1") -> None:
    """Draw the best score so far by the number of architectures scored, one curve per search.

    Args:
        frames: the trials of each search, by its name.
        path: a ``.png`` or ``.svg`` file.
        rank_by: the score, ``top1`` or ``loss``.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    figure, ax = _figure(rank_by)
    ax.set_title("Best score by number of architectures scored", loc="left")
    ax.set_xlabel("architectures scored")
    ax.set_ylabel(f"best {_SCORES[rank_by]} on the search split")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    ends: list[float] = []
    styles = [(BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, "-"), (SKY, "--"), (INK, ":")]
    for position, (name, frame) in enumerate(frames.items()):
        ordered = frame.sort_values("number", ignore_index=True)
        values = ordered[rank_by].where(ordered[["top1", "loss"]].notna().all(axis=1))
        best = (values.cummin() if rank_by == "loss" else values.cummax()).ffill()
        if best.isna().all():
            continue
        colour, line = styles[position % len(styles)]
        numbers = best.index + 1
        label = f"{name}: {_show(best.iloc[-1], rank_by)} after {len(best):,}"
        ax.step(numbers, best, where="post", color=colour, linestyle=line, linewidth=2, label=label)
        ax.plot(numbers[-1], best.iloc[-1], "o", color=colour, ms=6)
        ends += [float(best.min()), float(best.max())]
    if not ends:
        _say(ax, "no architecture has a score yet")
        return save_figure(figure, path)
    ax.margins(y=0.08)
    ax.set_xlim(0, 1.03 * max(len(frame) for frame in frames.values()))
    _widen(ax.set_ylim, pd.Series(ends), 0.02)
    if rank_by == "loss":
        ax.invert_yaxis()
    _legend_below(ax)
    return save_figure(figure, path)


def draw_rank(frame: pd.DataFrame, figures: Correlations, path: Path, space_name: str) -> None:
    """Draw top-1 of networks trained alone against their inherited top-1, and what that says of picking by it.

    Args:
        frame: the columns of ``rank.csv``; points take the colour of their FLOPs.
        figures: :func:`psvit.search.correlation.correlations` of it.
        path: a ``.png`` or ``.svg`` file.
        space_name: stands in the title.

    Raises:
        ValueError: another ending, or a file that cannot be written.
    """
    figure, ax = _figure()
    drawn = frame.dropna(subset=["inherited_top1", "standalone_top1"])
    tau = _with_ends("Kendall’s tau", figures.top1.tau)
    title = f"{space_name}: {_count(len(drawn), 'network')} trained alone, {tau}"
    ax.set_title(title, loc="left", pad=20, parse_math=False)
    ax.set_xlabel("top-1 with inherited weights")
    ax.set_ylabel("top-1 trained alone")
    if drawn.empty:
        _say(ax, "no network has both scores")
        return save_figure(figure, path)
    rho = _with_ends("Spearman’s rho", figures.top1.rho)
    regret = _with_ends("regret of picking by inherited score", figures.regret, "{:.2%}")
    subtitle = ax.text(0, 1.02, f"{rho}; {regret}", transform=ax.transAxes, fontsize=8.5, color=GREY)
    subtitle.set_in_layout(False)  # it may reach over the colour bar
    _draw_networks(ax, drawn, figures)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, markerscale=0.6)
    return save_figure(figure, path)


def _draw_networks(ax: Axes, drawn: pd.DataFrame, figures: Correlations) -> None:
    """A point per network in the colour of its FLOPs; the best and the one that would be picked are marked."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    inherited, axis = _side_by_side(drawn), _CostAxis.of(drawn["flops"])
    points = ax.scatter(
        inherited,
        drawn["standalone_top1"],
        c=axis.scale(drawn["flops"]),
        cmap="viridis_r",
        s=60,
        edgecolors="white",
        linewidths=0.6,
        zorder=4,
    )
    ax.figure.colorbar(points, ax=ax, pad=0.02, ticks=MaxNLocator(6, min_n_ticks=1)).set_label(axis.label)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_major_locator(MaxNLocator(7))
    ax.margins(0.08)
    _widen(ax.set_xlim, drawn["inherited_top1"], 0.02)
    _widen(ax.set_ylim, drawn["standalone_top1"], 0.02)
    looks = (
        (figures.best, "best alone", "o", "none", 15),
        (figures.picked, "picked by inherited score", "*", ORANGE, 24),
    )
    for layers, what, marker, colour, size in looks:
        number = int((drawn["layers"] == layers).argmax())
        top1, alone = (float(drawn[key].iloc[number]) for key in ("inherited_top1", "standalone_top1"))
        label = f"{what}: {layers}, inherited {top1:.2%}, alone {alone:.2%}"
        place = (inherited.iloc[number], alone)
        ax.plot(*place, marker, ms=size, color=colour, mec=INK, mew=1, ls="", zorder=3, label=label)


def _side_by_side(drawn: pd.DataFrame) -> pd.Series[float]:
    """Inherited top-1; networks whose scores are all equal are moved apart by the width of a point."""
    top1 = drawn["inherited_top1"]
    equal = drawn.groupby(["inherited_top1", "standalone_top1"])["layers"]
    place = equal.cumcount() - (equal.transform("size") - 1) / 2
    return top1 + 0.018 * (float(top1.max() - top1.min()) or 0.04) * place


@dataclass(frozen=True)
class _CostAxis:
    """FLOPs as they are drawn: in thousands, millions and so on, whichever reads best.

    Attributes:
        divisor: FLOPs per unit.
        unit: ``K``, ``M``, ``G``, ``T`` or nothing.
    """

    divisor: float
    unit: str

    @classmethod
    def of(cls, flops: pd.Series[int]) -> _CostAxis:
        """The axis that the largest of some amounts fits."""
        return cls(*next(((size, unit) for size, unit in _UNITS if float(flops.max()) >= size), (1.0, "")))

    @property
    def label(self) -> str:
        """What the axis is called."""
        return f"FLOPs ({self.unit} multiply-adds per image)".replace("( ", "(")

    def scale(self, flops: Any) -> Any:
        """Amounts in units."""
        return flops / self.divisor


def _show(value: float, score: str) -> str:
    """A score as a legend shows it."""
    return f"loss {value:.4f}" if score == "loss" else f"{value:.2%}"


def _figure(score: str = "top1") -> tuple[Figure, Axes]:
    """A figure of 1200 x 800 pixels with one pair of axes; top-1 is a share of 1, shown in percent."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.5, 5), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    ax = figure.add_subplot()
    ax.grid(color="#DDDDDD", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if score == "top1":
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    return figure, ax


def _scored(frame: pd.DataFrame) -> pd.DataFrame:
    """The trials whose score is a number."""
    return frame.dropna(subset=["top1", "loss"])


def _widen(set_limits: Callable[[float, float], object], values: pd.Series[float], margin: float) -> None:
    """Give an axis whose values are all equal a range that is worth reading."""
    if values.min() == values.max():
        set_limits(values.min() - margin, values.max() + margin)


def _legend_below(ax: Axes) -> None:
    ax.figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9, markerscale=0.8)


def _say(ax: Axes, text: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, text, ha="center", transform=ax.transAxes, color=GREY, fontsize=12)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _with_ends(name: str, figure: Estimate, template: str = "{:.2f}") -> str:
    """A figure and its interval in words."""
    if figure.value is None:
        return f"{name} undefined"
    value, low, high = (template.format(number) for number in (figure.value, figure.low, figure.high))
    return f"{name} {value} ({low} to {high})"
