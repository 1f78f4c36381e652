"""What is allowed: FLOPs, parameters and latency."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from psvit.run.records import require_object, typed
from psvit.search.config import BudgetConfig
from psvit.search.latency import LatencyTable
from psvit.supernet.space import ANY, Limit, SearchSpace, Subspace, budget_text
from psvit.units import Band, parse_duration

_BANDS = ("flops", "params", "latency")


@dataclass(frozen=True)
class Budget:
    """Bands of FLOPs (multiply-adds per image), parameters and latency; an architecture must meet all.

    Attributes:
        latency: nanoseconds per forward pass.
        table: what they mean; None when there is no budget of latency.
    """

    flops: Band = ANY
    params: Band = ANY
    latency: Band = ANY
    table: LatencyTable | None = None

    @classmethod
    def parse(cls, config: BudgetConfig, table: LatencyTable | None = None) -> Budget:
        """The budget as it is written in a configuration; a table matters only to a budget of latency.

        Raises:
            ValueError: an amount that cannot be read, a band that is upside down, or a latency without a table.
        """
        latency = Band.parse(config.latency, parse_duration)
        if latency == ANY:
            table = None
        elif table is None:
            raise ValueError(
                "a budget of latency needs a table of latencies; measure one by psvit-search latency, and give it as "
                "search.latency.table=..."
            )
        return cls(Band.parse(config.flops), Band.parse(config.params), latency, table)

    def __str__(self) -> str:
        return budget_text(self.flops, self.params, *self._further)

    @property
    def _further(self) -> list[Limit]:
        return [Limit(self.table.cost, self.latency)] if self.table else []

    def to_json(self) -> dict[str, Any]:
        """Lowest and highest amounts, exactly; None where an end is open. A latency comes with what it means."""
        bands: dict[str, Any] = {
            "flops": [self.flops.low, self.flops.high],
            "params": [self.params.low, self.params.high],
        }
        if self.table:
            table = replace(self.table, check=())  # all that a prediction depends on
            bands |= {"latency": [self.latency.low, self.latency.high], "latency_table": table.to_json()}
        return bands

    @classmethod
    def from_json(cls, value: Any, where: str = "$") -> Budget:
        """The budget that :meth:`to_json` gave; ``where`` is its place in the file.

        Raises:
            ValueError: a wrong type, an unknown or missing key; begins with the place of the fault.
        """
        require_object(value, where, {*_BANDS, "latency_table"}, required={"flops", "params"})
        table = None
        if "latency" in value or "latency_table" in value:
            require_object(value, where, {*_BANDS, "latency_table"}, required={*_BANDS, "latency_table"})
            table = LatencyTable.from_json(value["latency_table"], f"{where}.latency_table")
        return cls(**{key: _read_band(value[key], f"{where}.{key}") for key in _BANDS if key in value}, table=table)

    def around(self, flops: int, share: float) -> Budget:
        """The same budget, of which the FLOPs lie within a share of these besides."""
        low, high = round(flops * (1 - share)), round(flops * (1 + share))
        band = Band(max(low, self.flops.low or 0), high if self.flops.high is None else min(high, self.flops.high))
        return replace(self, flops=band)

    def within(self, space: SearchSpace) -> Subspace:
        """The architectures of a space that meet the budget; may be empty."""
        return space.within(self.flops, self.params, *self._further)

    def feasible(self, space: SearchSpace) -> Subspace:
        """The architectures of a space that meet the budget, one at least.

        Raises:
            ValueError: none does; the message has the reachable range and the nearest architecture.
        """
        return space.feasible(self.flops, self.params, *self._further)

    def note(self, space: SearchSpace) -> str | None:
        """A line for the user when a budget was given, but every architecture of the space meets it."""
        everything = space.within()
        if self == Budget() or self.within(space).count < everything.count:
            return None
        reach = [f"{everything.flops} FLOPs", f"{everything.params} parameters"]
        if self.table:
            latencies = everything.reach(self.table.cost)
            assert latencies is not None
            reach.append(f"{latencies.text(self.table.cost.show)} latency")
        return (
            f"the budget ({self}) does not bind: all {everything.count:,} architectures of {space.label} meet it, "
            f"with {' and '.join(reach)}"
        )


def _read_band(value: Any, where: str) -> Band:
    low, high = typed(tuple[int | None, int | None], value, where)
    try:
        return Band(low, high)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
