"""Budgets: how they are written, when they do not bind, and what is said when nothing meets them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psvit.search.budget import Budget
from psvit.search.config import BudgetConfig
from psvit.search.latency import Checked, Conditions, LatencyTable
from psvit.supernet.space import SearchSpace
from psvit.units import Band
from psvit.zoo import SPACES

SPACE = SearchSpace(SPACES["1d_tiny_16"])
WHERE = Conditions("Abacus 1", 1, 1, "fp32", "2.6.0", SPACE.spec)
TABLE = LatencyTable(WHERE, 100_000, (200_000, 150_000, 120_000), (170_000, 130_000, 110_000))


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
    assert Budget.from_json(json) == budget


def test_a_latency_is_recorded_with_what_it_means() -> None:
    checked = replace(TABLE, check=(Checked("B-B-B", 99, 100),))
    budget = Budget(Band(1, 2), latency=Band(None, 600_000), table=checked)
    assert Budget.from_json(budget.to_json()) == replace(budget, table=TABLE)  # its check does not matter
    record = budget.to_json()
    for change, message in (
        ({"latency": None}, r"^\$\.budget\.latency: is None; it must be a list$"),
        (
            {"latency_table": {"format": "psvit-arch", "version": 1}},
            r"^\$\.budget\.latency_table\.format: is 'psvit-arch'",
        ),
        ({"time": 1}, r"^\$\.budget\.time: unknown key"),
    ):
        with pytest.raises(ValueError, match=message):
            Budget.from_json(record | change, "$.budget")
    del record["latency_table"]
    with pytest.raises(ValueError, match=r"^\$\.latency_table: is missing$"):
        Budget.from_json(record)


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


# ------------------------------------------------------------------------------------------------ latency


@pytest.mark.parametrize(
    ("text", "shown", "json"),
    [
        ("2.13ms", "latency at most 2.13 ms", [None, 2_130_000]),
        ("500us..2ms", "latency 500 us to 2 ms", [500_000, 2_000_000]),
        ("1ms..", "latency at least 1 ms", [1_000_000, None]),
    ],
)
def test_a_latency_is_read_and_shown(text: str, shown: str, json: list[int | None]) -> None:
    budget = Budget.parse(BudgetConfig("1.3G", None, text), TABLE)
    assert str(budget) == f"FLOPs at most 1.3 G and {shown}"
    written = budget.to_json()
    assert written["latency"] == json
    assert written["latency_table"]["conditions"]["device"] == "Abacus 1"
    assert written["latency_table"]["basic"] == [200_000, 150_000, 120_000]


def test_without_a_latency_a_table_does_not_matter() -> None:
    assert Budget.parse(BudgetConfig("1.3G"), TABLE) == Budget(Band.parse("1.3G"))
    assert Budget.parse(BudgetConfig("1.3G"), TABLE).to_json().keys() == {"flops", "params"}


@pytest.mark.parametrize(
    ("text", "table", "message"),
    [
        (
            "2ms",
            None,
            r"a budget of latency needs a table .* psvit-search latency, and give it as search\.latency\.table",
        ),
        ("2", TABLE, "'2' is not a duration"),
        ("2ms..1ms", TABLE, "the band 2,000,000..1,000,000 is reversed; write the smaller amount first"),
    ],
)
def test_a_wrong_latency_is_refused(text: str, table: LatencyTable | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget.parse(BudgetConfig(latency=text), table)


def test_a_budget_binds_in_its_latency() -> None:
    budget = Budget.parse(BudgetConfig("1.29G..1.3G", None, "1.9ms..2ms"), TABLE)
    by_flops = Budget(budget.flops).feasible(SPACE)
    expected = [network for network in by_flops if 1_900_000 <= TABLE.predict(network) <= 2_000_000]
    assert 0 < len(expected) < by_flops.count
    assert list(budget.feasible(SPACE)) == list(budget.within(SPACE)) == expected


def test_a_latency_that_nothing_meets_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="no architecture") as refusal:
        Budget.parse(BudgetConfig(latency="0.5ms"), TABLE).feasible(SPACE)
    assert str(refusal.value) == (
        "no architecture of 1d_tiny_16 meets latency at most 500 us: the space reaches 570 us to 2.92 ms latency; "
        "the nearest is B-B-B with 358,922,688 FLOPs and 4,288,168 parameters and 570 us latency"
    )


def test_a_latency_that_does_not_bind_is_noted() -> None:
    note = Budget.parse(BudgetConfig(latency="3ms"), TABLE).note(SPACE)
    assert note is not None
    assert "(latency at most 3 ms) does not bind: all 250,047 architectures" in note
    assert note.endswith("parameters and 570 us to 2.92 ms latency")
    assert Budget.parse(BudgetConfig(latency="2.9ms"), TABLE).note(SPACE) is None
