"""Which architectures a ranking compares: drawn over the costs of a budget, or named. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd

from psvit.arch import Architecture
from psvit.archfile import load_arch
from psvit.run.random import numpy_rng
from psvit.search.budget import Budget
from psvit.search.claims import EQUAL_COST
from psvit.search.config import RankConfig
from psvit.supernet.space import SearchSpace
from psvit.units import Band

LAYERS = "layers"  # the column that names them, in every table of ours


def candidates(config: RankConfig, space: SearchSpace) -> list[Architecture]:
    """The architectures that ``archs=`` and the budget ask for, cheapest first.

    Raises:
        ValueError: nothing meets the budget, or one that is named does not; a name or a file that cannot be read; or
            fewer than three.
    """
    budget = rank_budget(config)
    if config.archs.isdecimal():
        return draw_by_cost(space, budget, int(config.archs), config.seed)
    within, named = budget.feasible(space), list[Architecture]()
    for name in dict.fromkeys(name for part in config.archs.split(",") for name in _names(part.strip())):
        try:
            architecture = Architecture.parse(name)
            space.check(architecture)
        except ValueError as error:
            raise ValueError(f"archs: {name}: {error}") from None
        if architecture not in within:
            raise ValueError(f"archs: {name} does not meet the budget, {budget}")
        named.append(architecture)
    return check_number(sorted(named, key=lambda each: space.cost(each).flops))


def check_number(architectures: list[Architecture]) -> list[Architecture]:
    """The architectures themselves.

    Raises:
        ValueError: they are too few to have an order to speak of.
    """
    if len(architectures) < 3:
        raise ValueError(f"{len(architectures)} architectures are too few to have an order to speak of; give 3 or more")
    return architectures


def _names(text: str) -> list[str]:
    """The layers that a word names: itself, those of an arch.json, or a column of a CSV file."""
    if text.endswith(".json"):
        return [str(load_arch(Path(text)).architecture)]
    if not text.endswith(".csv"):
        return [text]
    try:
        return [*map(str, pd.read_csv(text, usecols=[LAYERS], dtype=str)[LAYERS].dropna())]
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"archs: cannot read {text} ({reason}); it needs a column {LAYERS!r}") from None


def draw_by_cost(space: SearchSpace, budget: Budget, number: int, seed: int) -> list[Architecture]:
    """Architectures within a budget, spread evenly over its FLOPs, cheapest first.

    The range of FLOPs that the budget reaches is cut into ``number`` bands of equal width, and one is drawn uniformly
    from each. Bands that hold none leave theirs to the others, in turn. All are different, and none is drawn and thrown
    away. Equally many architectures a band would crowd them at the upper costs, where most architectures are.

    Raises:
        ValueError: nothing meets the budget, or fewer than ``number`` architectures do.
    """
    allowed = budget.feasible(space)
    if allowed.count < number:
        raise ValueError(
            f"only {allowed.count:,} architectures meet {budget}, fewer than the {number} asked for: use a wider "
            f"budget or archs={allowed.count}"
        )
    assert allowed.flops is not None
    low, high = allowed.flops.low, allowed.flops.high
    assert low is not None
    assert high is not None
    edges = [low + (high + 1 - low) * band // number for band in range(number + 1)]
    bands = [replace(budget, flops=Band(least, end - 1)).within(space) for least, end in pairwise(edges) if least < end]
    rng = numpy_rng(seed, "rank draw")
    drawn = []
    for band, share in zip(bands, _shares([band.count for band in bands], number), strict=True):
        if share:
            drawn += [band.unrank(int(place)) for place in rng.choice(band.count, share, replace=False)]
    return sorted(drawn, key=lambda each: space.cost(each).flops)


def _shares(counts: Sequence[int], number: int) -> list[int]:
    """How many each band gives: as equally many as their counts allow."""
    shares = [0] * len(counts)
    while (left := number - sum(shares)) > 0:
        for band in [band for band, count in enumerate(counts) if shares[band] < count][:left]:
            shares[band] += 1
    return shares


def rank_budget(config: RankConfig) -> Budget:
    """The budget that the settings ask for: as it is written, or the band of all that cost the same.

    Raises:
        ValueError: an amount that cannot be read, or a band that is upside down.
    """
    flops, params = Band.parse(config.flops), Band.parse(config.params)
    if config.cost == "equal" and flops.low is None and flops.high is not None:
        flops = Band(round(flops.high * (1 - EQUAL_COST)), round(flops.high * (1 + EQUAL_COST)))
    return Budget(flops, params)
