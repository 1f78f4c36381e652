"""Successive halving (arXiv 1502.07943): who trains how long, and who goes on. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

ETA = 2  # each round keeps one of so many, and trains them so many times as long


@dataclass(frozen=True)
class PlannedRound:
    """A round.

    Attributes:
        entrants: networks that are trained in it.
        epochs: of each training.
        control: networks beside them that are trained as long, and never dropped.
    """

    entrants: int
    epochs: int
    control: int = 0

    @property
    def networks(self) -> int:
        """Trainings of the round."""
        return self.entrants + self.control


def plan_rounds(
    entrants: int, epochs: int, control: int, max_networks: int | None, max_epochs: int | None
) -> list[PlannedRound]:
    """The rounds, first to last: each has half the entrants of the one before (rounded up) and twice its epochs.

    The last round has at most two entrants, trains as long as the recipe says, and trains the control as well. Where
    all that is too much, fewer enter.

    Args:
        epochs: of the last round.
        max_networks: trainings of all rounds together; None for any number.
        max_epochs: epochs of all trainings together; None for any number.

    Raises:
        ValueError: not even two entrants and the control can be trained.
    """
    assert entrants > 0, "nobody enters"
    for number in range(entrants, min(entrants, ETA) - 1, -1):
        rounds = _rounds(number, epochs, control)
        networks = sum(each.networks for each in rounds)
        spent = sum(each.networks * each.epochs for each in rounds)
        if networks <= (max_networks or networks) and spent <= (max_epochs or spent):
            return rounds
    raise ValueError(
        f"the least there is to a final, {networks} trainings of {epochs} epochs, is more than "
        f"max_networks={max_networks} or max_epochs={max_epochs} allow: raise it, or use a smaller recipe.epochs or "
        "control"
    )


def _rounds(entrants: int, epochs: int, control: int) -> list[PlannedRound]:
    sizes = [entrants]
    while sizes[-1] > ETA:
        sizes.append(-(-sizes[-1] // ETA))
    lengths = [max(1, epochs // ETA**left) for left in range(len(sizes))][::-1]
    last = PlannedRound(sizes.pop(), lengths.pop(), control)
    return [*(PlannedRound(*each) for each in zip(sizes, lengths, strict=True)), last]


def goes_on(losses: Sequence[float], number: int) -> list[int]:
    """Places of the ``number`` lowest losses, lowest first; of equal ones the earlier. What has no loss comes last."""
    order = sorted(range(len(losses)), key=lambda place: (not isfinite(losses[place]), losses[place], place))
    return order[:number]
