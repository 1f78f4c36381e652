"""Budgets: how they are written, when they do not bind, and what is said when nothing meets them."""

from __future__ import annotations

import pytest

from psvit.cost import Band
from psvit.zoo import SPACES
from search.budget import Budget
from search.config import BudgetConfig
from supernet.space import SearchSpace

SPACE = SearchSpace(SPACES["1d_tiny_16"])


@pytest.mark.parametrize(
    ("flops", "params", "text", "json"),
    [
        ("1.3G", None, "FLOPs at most 1.3 G", {"flops": [None, 1_300_000_000], "params": [None, None]}),
        (
            "1.2G..1.3G",
            "16M",
            "FLOPs 1.2 G to 1.3 G and parameters at most 16 M",
            {"flops": [1_200_000_000, 1_300_000_000], "params": [None, 16_000_000]},
        ),
        (None, "10M..", "parameters at least 10 M", {"flops": [None, None], "params": [10_000_000, None]}),
        (None, None, "any cost", {"flops": [None, None], "params": [None, None]}),
    ],
)
def test_a_budget_is_read_and_shown(
    flops: str | None, params: str | None, text: str, json: dict[str, list[int | None]]
) -> None:
    budget = Budget.parse(BudgetConfig(flops, params))
    assert budget == Budget(Band.parse(flops), Band.parse(params))
    assert (str(budget), budget.to_json()) == (text, json)


def test_a_budget_binds_in_both_costs() -> None:
    subspace = Budget.parse(BudgetConfig("1.28G..1.3G", "16M")).feasible(SPACE)
    costs = [SPACE.cost(architecture) for architecture in subspace]
    assert len(costs) == subspace.count > 0
    assert all(1_280_000_000 <= cost.flops <= 1_300_000_000 and cost.params <= 16_000_000 for cost in costs)


def test_a_budget_that_nothing_meets_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="no architecture of 1d_tiny_16 meets FLOPs at most 100 M: ") as refusal:
        Budget(flops=Band.parse("100M")).feasible(SPACE)
    message = str(refusal.value)
    assert "the space reaches 358.923 M to 1.84205 G FLOPs" in message
    assert "the nearest is B-B-B with 358,922,688 FLOPs and 4,288,168 parameters" in message
    assert "\n" not in message
    # each bound can be met, but not the two together
    with pytest.raises(ValueError, match=r"4\.28817 M to 20\.3802 M parameters; the nearest is") as refusal:
        Budget(Band.parse("400M"), Band.parse("15M..")).feasible(SPACE)
    assert "reaches 358.923 M to 1.84205 G FLOPs and " in str(refusal.value)


def test_a_budget_that_does_not_bind_is_noted() -> None:
    note = Budget(flops=Band.parse("3G")).note(SPACE)
    assert note is not None
    assert "(FLOPs at most 3 G) does not bind: all 250,047 architectures of 1d_tiny_16 meet it" in note
    assert Budget(flops=Band(high=1842050688)).note(SPACE) is not None
    assert Budget(flops=Band(high=1842050687)).note(SPACE) is None
    assert Budget().note(SPACE) is None
