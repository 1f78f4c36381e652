"""Successive halving: the plan of the rounds, and who goes on."""

from math import inf, nan

import pytest

from psvit.search.halving import PlannedRound, goes_on, plan_rounds


def test_each_round_has_half_the_networks_and_twice_the_epochs() -> None:
    assert plan_rounds(16, 40, 4, None, None) == [
        *(PlannedRound(16, 5), PlannedRound(8, 10), PlannedRound(4, 20)),
        PlannedRound(2, 40, control=4),
    ]
    assert plan_rounds(5, 2, 0, None, None) == [PlannedRound(5, 1), PlannedRound(3, 1), PlannedRound(2, 2)]
    assert plan_rounds(1, 7, 2, None, None) == [PlannedRound(1, 7, control=2)]


@pytest.mark.parametrize(
    ("networks", "epochs"), [(20, None), (None, 260), (12, 300), (34, 480), (33, None), (None, 479)]
)
def test_as_many_enter_as_the_budget_allows(networks: int | None, epochs: int | None) -> None:
    """The largest field of at most 16 whose rounds, counted one by one, are within both."""

    def fits(entrants: int) -> bool:
        rounds = plan_rounds(entrants, 40, 4, None, None)
        trained = [each.epochs for each in rounds for _ in range(each.entrants + each.control)]
        return len(trained) <= (networks or 1000) and sum(trained) <= (epochs or 100_000)

    found = plan_rounds(16, 40, 4, networks, epochs)
    assert found == plan_rounds(found[0].entrants, 40, 4, None, None)
    assert fits(found[0].entrants)
    assert not any(fits(more) for more in range(found[0].entrants + 1, 17))


@pytest.mark.parametrize(("networks", "epochs"), [(5, None), (None, 239), (0, 1)])
def test_too_little_for_a_final_is_refused(networks: int | None, epochs: int | None) -> None:
    with pytest.raises(ValueError, match=r"6 trainings of 40 epochs.* raise it"):
        plan_rounds(16, 40, 4, networks or 5, epochs)


def test_the_lowest_losses_go_on() -> None:
    losses = [0.5, nan, 0.2, 0.5, inf, 0.1]
    assert goes_on(losses, 3) == [5, 2, 0]
    assert goes_on(losses, 6) == [5, 2, 0, 3, 1, 4]
