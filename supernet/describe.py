"""``psvit-search space``: how many paths and architectures a space has, and what they cost. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from psvit.supernet.config import SpaceConfig
from psvit.supernet.space import ANY, SearchSpace, Subspace, budget_text
from psvit.units import Band
from psvit.zoo import SPACES


@dataclass
class DescribeConfig:
    """Settings of ``psvit-search space``.

    Attributes:
        space: search space: widths, heads and patch size of the networks.
        flops: multiply-adds per image: at most ``1.3G``, or a range such as ``1.2G..1.3G``.
        params: parameters: at most ``16M``, or a range such as ``15M..16M``.
        json: print one JSON object instead of a table.
    """

    space: SpaceConfig = field(default_factory=SpaceConfig)
    flops: str | None = None
    params: str | None = None
    json: bool = False


def describe(config: DescribeConfig) -> None:
    """Print the numbers of a space and, with a budget, of what is within it.

    Costs are those of 1000 classes, or of as many as the named space has; a search takes the classes of its data.

    Raises:
        ValueError: impossible dimensions, an amount that cannot be read, or a budget that nothing meets.
    """
    named = SPACES.get(config.space.name)
    space = SearchSpace(config.space.spec(named.classes if named else 1000), config.space.cells)
    flops, params = Band.parse(config.flops), Band.parse(config.params)
    budget = None if (flops, params) == (ANY, ANY) else space.feasible(flops, params)
    if config.json:
        within = budget and {"budget": {"flops": _ends(flops), "params": _ends(params)}, **_numbers(budget)}
        numbers = {"cells": space.cells, "paths": space.paths, **_numbers(space.within()), "within": within}
        print(json.dumps({**asdict(space.spec), "tokens": space.spec.tokens, **numbers}))
        return

    spec = space.spec
    image = "x".join(map(str, spec.image_size))
    print(f"{spec.name}: {spec.kind}, image {image}, patch {spec.patch_size}, {spec.classes} classes")
    print(f"{spec.stages} stages of {space.cells} cells")
    print(f"{'stage':>5}  {'tokens':>6}  {'width':>5}  {'heads':>5}")
    for stage, row in enumerate(zip(spec.tokens, spec.widths, spec.heads, strict=True), start=1):
        print(f"{stage:>5}  {row[0]:>6}  {row[1]:>5}  {row[2]:>5}")
    print(f"{'paths':14}{space.paths:,}")
    _print_numbers(space.within())
    if budget:
        print(f"within {budget_text(flops, params)}:")
        _print_numbers(budget)


def _numbers(subspace: Subspace) -> dict[str, Any]:
    return {"architectures": subspace.count, "flops": _ends(subspace.flops), "params": _ends(subspace.params)}


def _print_numbers(subspace: Subspace) -> None:
    share = subspace.count / subspace.space.architectures
    print(f"{'architectures':14}{subspace.count:,}" + (f" ({share:.2%})" if share < 1 else ""))
    print(f"{'FLOPs':14}{subspace.flops}")
    print(f"{'parameters':14}{subspace.params}")


def _ends(band: Band | None) -> list[int | None]:
    return [band.low, band.high] if band else [None, None]
