"""What is allowed: FLOPs and parameters."""

from __future__ import annotations

from dataclasses import dataclass

from psvit.cost import Band
from search.config import BudgetConfig
from supernet.space import ANY, SearchSpace, Subspace, budget_text


@dataclass(frozen=True)
class Budget:
    """A band of FLOPs (multiply-adds an image) and one of parameters; an architecture must meet both."""

    flops: Band = ANY
    params: Band = ANY

    @classmethod
    def parse(cls, config: BudgetConfig) -> Budget:
        """The budget as it is written in a configuration.

        Raises:
            ValueError: an amount that cannot be read, or a band that is upside down.
        """
        return cls(Band.parse(config.flops), Band.parse(config.params))

    def __str__(self) -> str:
        return budget_text(self.flops, self.params)

    def to_json(self) -> dict[str, list[int | None]]:
        """Lowest and highest amounts, exactly; None where an end is open."""
        return {"flops": [self.flops.low, self.flops.high], "params": [self.params.low, self.params.high]}

    def feasible(self, space: SearchSpace) -> Subspace:
        """The architectures of a space that meet the budget, one at least.

        Raises:
            ValueError: none does; the message has the reachable range and the nearest architecture.
        """
        return space.feasible(self.flops, self.params)

    def note(self, space: SearchSpace) -> str | None:
        """A line for the user when a budget was given, but every architecture of the space meets it."""
        everything = space.within()
        if self == Budget() or space.within(self.flops, self.params).count < everything.count:
            return None
        return (
            f"the budget ({self}) does not bind: all {everything.count:,} architectures of {space.label} meet it, "
            f"with {everything.flops} FLOPs and {everything.params} parameters"
        )
