"""Counts, numbers and draws of the search space, against enumeration of everything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from psvit.arch import Architecture, CellPath, NetworkSpec
from psvit.cost import network_cost
from psvit.supernet.config import SpaceConfig
from psvit.supernet.describe import DescribeConfig, describe
from psvit.supernet.space import ANY, Additive, Limit, SearchSpace
from psvit.units import Band, format_duration
from psvit.zoo import SPACES

SMALL = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 5), cells=3)
TINY_16 = SearchSpace(SPACES["1d_tiny_16"])
# latencies in nanoseconds, made up: one where sharing does not pay in the second stage
LATENCY = Additive("latency", 12_345, (900, 700), (400, 800), format_duration)
TINY_LATENCY = Additive("latency", 411_111, (93_001, 61_003, 52_007), (71_013, 63_005, 31_011), format_duration)


def valid_paths(stages: int, cells: int) -> set[tuple[str, ...]]:
    """All paths by trying every letter at every cell: the first layer of a stage must be there and be basic."""
    words = ["".join(letters) for letters in product("BSI", repeat=cells)]
    return set(product([word for word in words if word.replace("I", "").startswith("B")], repeat=stages))


def assert_uniform(draws: Iterable[Hashable], outcomes: int) -> None:
    """Chi-squared test, its critical value (about 4 sigma) by the formula of Wilson and Hilferty."""
    counts = Counter(draws)
    expected = counts.total() / outcomes
    statistic = sum((n - expected) ** 2 for n in counts.values()) / expected + (outcomes - len(counts)) * expected
    freedom = outcomes - 1
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 4 * (2 / (9 * freedom)) ** 0.5) ** 3


def all_costs() -> dict[str, tuple[int, int]]:
    """FLOPs and parameters of all 63^3 architectures of 1d_tiny_16, written out from the layers' formulas."""
    tokens, widths = (197, 99, 50), (192, 288, 384)
    flops = 196 * 768 * 192 + 99 * 3 * 192 * 288 + 50 * 3 * 288 * 384 + 384 * 1000
    params = (769 + 197 + 1) * 192 + (3 * 192 + 1) * 288 + (3 * 288 + 1) * 384 + 384 * 1000 + 1000 + 2 * 384
    words = ["B" + "".join(rest) for depth in range(6) for rest in product("BS", repeat=depth)]
    stages = []
    for n, d in zip(tokens, widths, strict=True):
        layer = {
            "B": (12 * n * d * d + 2 * n * n * d, 12 * d * d + 13 * d),
            "S": (10 * n * d * d + n * n * d, 10 * d * d + 11 * d),
        }
        stages.append([(word, *(sum(layer[x][i] for x in word) for i in (0, 1))) for word in words])
    return {
        f"{a}-{b}-{c}": (flops + af + bf + cf, params + ap + bp + cp)
        for (a, af, ap), (b, bf, bp), (c, cf, cp) in product(*stages)
    }


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[int, int]]:
    return all_costs()


@pytest.mark.parametrize(("stages", "cells"), [(1, 1), (1, 6), (2, 3), (4, 2)])
def test_counts_equal_enumeration(stages: int, cells: int) -> None:
    space = SearchSpace(NetworkSpec("1d", (64, 64), 4, (8,) * stages, (1,) * stages, 5), cells)
    paths = valid_paths(stages, cells)
    architectures = {CellPath(path).architecture for path in paths}
    assert space.paths == len(paths)
    assert space.architectures == space.within().count == len(architectures)
    assert sorted(space.within()) == sorted(architectures)


@pytest.mark.parametrize("name", SPACES)
def test_counts_of_the_named_spaces(name: str) -> None:
    space = SearchSpace(SPACES[name])
    assert (space.paths, space.architectures) == (48_228_544, 250_047)
    assert space.within().count == 250_047


@pytest.mark.parametrize(
    ("flops", "params"),
    [("1.3G", None), ("1.2G..1.3G", None), ("1.25G..", "16M"), (None, "10M..10.1M"), ("1.3G", "1M")],
)
def test_within_equals_brute_force(costs: dict[str, tuple[int, int]], flops: str | None, params: str | None) -> None:
    bands = Band.parse(flops), Band.parse(params)
    members = {layers: cost for layers, cost in costs.items() if cost[0] in bands[0] and cost[1] in bands[1]}
    subspace = TINY_16.within(*bands)
    assert subspace.count == len(members)
    assert {str(architecture) for architecture in subspace} == set(members)
    for reach, amounts in zip((subspace.flops, subspace.params), zip(*members.values(), strict=True), strict=False):
        assert reach == Band(min(amounts), max(amounts))
    if not members:
        assert (subspace.flops, subspace.params) == (None, None)


def test_the_budget_of_the_paper_leaves_48829_architectures() -> None:
    assert TINY_16.within(Band(high=1_300_000_000)).count == 48_829


def test_cost_and_membership(costs: dict[str, tuple[int, int]]) -> None:
    band = Band(1_290_000_000, 1_300_000_000)
    subspace = TINY_16.within(band)
    for layers in list(costs)[::97]:
        architecture = Architecture.parse(layers)
        cost = TINY_16.cost(architecture)
        assert (cost.flops, cost.params) == costs[layers]
        assert (architecture in subspace) == (cost.flops in band)
    assert Architecture.parse("B-B") not in subspace
    assert Architecture.parse("BBBBBBB-B-B") not in TINY_16.within()


def test_every_number_is_one_architecture() -> None:
    subspace = TINY_16.within(Band.parse("1.28G..1.3G"), Band.parse("..17M"))
    members = list(subspace)
    assert len(set(members)) == subspace.count > 1000
    assert [subspace.unrank(number) for number in range(subspace.count)] == members
    assert [subspace.rank(member) for member in members] == list(range(subspace.count))
    for number in (-1, subspace.count):
        with pytest.raises(IndexError):
            subspace.unrank(number)
    with pytest.raises(ValueError, match="B-B-B is not within the budget"):
        subspace.rank(Architecture.parse("B-B-B"))


def test_placement_is_uniform_over_the_paths_of_the_architecture() -> None:
    rng = np.random.default_rng(0)
    architecture = Architecture.parse("BS-B")
    draws = [SMALL.placement(architecture, rng) for _ in range(9 * 100)]
    assert {path.stages for path in draws} == {
        path for path in valid_paths(2, 3) if CellPath(path).architecture == architecture
    }
    assert_uniform(draws, 9)
    full = Architecture.parse("BSB-BBS")
    assert SMALL.placement(full, rng) == CellPath.canonical(full, 3)


def test_draw_is_uniform_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    middle = network_cost(SMALL.spec, Architecture.parse("BB-BB")).flops
    subspace = SMALL.within(Band(high=middle))
    draws = [subspace.draw(rng) for _ in range(subspace.count * 100)]
    assert set(draws) == set(subspace)
    assert 10 < subspace.count < 49
    assert_uniform(draws, subspace.count)


@pytest.mark.parametrize("seen", [[], [0], [48], [0, 1, 2, 7, 8, 20, 47], list(range(48)), list(range(1, 49))])
def test_draw_unseen_is_uniform_over_the_rest(seen: list[int]) -> None:
    rng = np.random.default_rng(0)
    subspace = SMALL.within()
    rest = [number for number in range(49) if number not in seen]
    draws = [subspace.draw_unseen(rng, seen) for _ in range(len(rest) * 100)]
    numbers = [subspace.rank(architecture) for architecture in draws if architecture]
    assert sorted(set(numbers)) == rest
    if len(rest) > 1:
        assert_uniform(numbers, len(rest))


def test_draw_unseen_ends_when_all_are_seen() -> None:
    assert SMALL.within().draw_unseen(np.random.default_rng(0), range(49)) is None


def test_counts_beyond_64_bits() -> None:
    space = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 5), cells=40)
    everything = space.within()
    assert space.architectures == everything.count == (2**40 - 1) ** 2 > 2**64
    assert space.paths == ((3**40 - 1) // 2) ** 2
    for number in (0, 2**63, 2**70 + 12345, everything.count - 1):
        assert everything.rank(everything.unrank(number)) == number
    rng = np.random.default_rng(0)
    draws = [everything.draw(rng) for _ in range(400)]
    # of a uniform draw, half the layers behind the first are basic, and a stage has 39 layers on average
    letters = "".join(word[1:] for draw in draws for word in draw.stages)
    assert letters.count("B") / len(letters) == pytest.approx(0.5, abs=0.02)
    assert len(letters) / 800 == pytest.approx(38, abs=0.2)


def test_a_space_too_large_to_count_within_a_budget_says_so() -> None:
    space = SearchSpace(NetworkSpec("1d", (224, 224), 4, (8,) * 6, (1,) * 6, 5))
    assert space.architectures == 63**6
    with pytest.raises(ValueError, match=r"6 stages of 6 cells have 85,766,121 different costs, .*use fewer"):
        space.within()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("B-B-B", "B-B-B has 3 stages, the space 2"),
        ("B-BBBB", "stage 2 has 4 layers, but the supernet has only 3 cells"),
    ],
)
def test_architectures_of_other_spaces_are_refused(layers: str, message: str) -> None:
    architecture = Architecture.parse(layers)
    rng = np.random.default_rng(0)
    for use in (SMALL.check, SMALL.cost, SMALL.within().rank, lambda a: SMALL.placement(a, rng)):
        with pytest.raises(ValueError, match=message):
            use(architecture)


def test_a_space_has_a_cell() -> None:
    with pytest.raises(ValueError, match="cells is 0; a stage needs at least one cell"):
        SearchSpace(SMALL.spec, 0)


@pytest.mark.parametrize(
    ("flops", "params"), [("100M", None), ("2G..", None), ("500M", "15M.."), ("1.2900001G..1.2900002G", None)]
)
def test_nearest_misses_the_budget_least(
    costs: dict[str, tuple[int, int]], flops: str | None, params: str | None
) -> None:
    bands = Band.parse(flops), Band.parse(params)
    miss = np.zeros(len(costs))
    for amounts, band in zip(np.array(list(costs.values())).T, bands, strict=True):
        below = 0 if band.low is None else 1 - amounts / band.low
        above = 0 if band.high is None else amounts / band.high - 1
        miss += np.maximum(0, np.maximum(below, above))
    nearest = list(costs).index(str(TINY_16.nearest(*bands)))
    assert miss[nearest] == miss.min() > 0


def test_a_budget_that_nothing_meets_is_refused_with_range_and_nearest() -> None:
    with pytest.raises(ValueError, match="no architecture") as refusal:
        TINY_16.feasible(Band.parse("100M"))
    assert str(refusal.value) == (
        "no architecture of 1d_tiny_16 meets FLOPs at most 100 M: the space reaches 358.923 M to 1.84205 G FLOPs; "
        "the nearest is B-B-B with 358,922,688 FLOPs and 4,288,168 parameters"
    )
    with pytest.raises(ValueError, match="no architecture") as refusal:
        replace(SMALL, spec=replace(SMALL.spec, name="")).feasible(Band.parse("1G.."), Band.parse("1"))
    assert "of this space meets FLOPs at least 1 G and parameters at most 1: the space reaches " in str(refusal.value)
    assert TINY_16.feasible(Band.parse("358922688")).count == 1


# ------------------------------------------------------------------------------------------------ further costs


def added_up(cost: Additive, layers: str) -> int:
    """A cost, layer by layer."""
    amounts = {"B": cost.basic, "S": cost.sharing}
    return cost.fixed + sum(amounts[letter][stage] for stage, word in enumerate(layers.split("-")) for letter in word)


@pytest.mark.parametrize("band", [Band(high=15_000), Band(14_000, 15_000), Band(low=14_900), Band(14_745, 14_745)])
@pytest.mark.parametrize("flops", [ANY, Band(high=network_cost(SMALL.spec, Architecture.parse("BB-BB")).flops)])
def test_a_further_cost_bounds_exactly(band: Band, flops: Band) -> None:
    subspace = SMALL.within(flops, ANY, Limit(LATENCY, band))
    members = [
        network
        for network in SMALL.within()
        if SMALL.cost(network).flops in flops and added_up(LATENCY, str(network)) in band
    ]
    assert 0 < subspace.count == len(members) < SMALL.architectures
    assert list(subspace) == [subspace.unrank(number) for number in range(subspace.count)] == members
    assert [subspace.rank(network) for network in members] == list(range(len(members)))
    assert all((network in subspace) == (network in members) for network in SMALL.within())
    latencies = [added_up(LATENCY, str(network)) for network in members]
    assert subspace.reach(LATENCY) == Band(min(latencies), max(latencies))
    assert latencies == [LATENCY.of(network) for network in members]
    rng = np.random.default_rng(0)
    draws = [subspace.draw(rng) for _ in range(subspace.count * 100)]
    assert set(draws) == set(members)
    if len(members) > 1:
        assert_uniform(draws, len(members))


@pytest.mark.parametrize(("flops", "low", "high"), [(None, None, 1_200_000), ("1.2G..1.3G", 1_300_000, 1_350_000)])
def test_a_latency_within_the_paper_s_space(
    costs: dict[str, tuple[int, int]], flops: str | None, low: int | None, high: int
) -> None:
    bands = Band.parse(flops), Band(low, high)
    members = {
        layers for layers, cost in costs.items() if cost[0] in bands[0] and added_up(TINY_LATENCY, layers) in bands[1]
    }
    subspace = TINY_16.within(bands[0], ANY, Limit(TINY_LATENCY, bands[1]))
    assert 0 < subspace.count == len(members)
    rng = np.random.default_rng(0)
    assert {str(subspace.draw(rng)) for _ in range(300)} <= members
    for number in np.linspace(0, subspace.count - 1, 50).astype(int):
        network = subspace.unrank(int(number))
        assert str(network) in members
        assert subspace.rank(network) == number


def test_two_further_costs_bind_both() -> None:
    energy = Additive("energy", 5, (1, 3), (2, 1))
    subspace = SMALL.within(ANY, ANY, Limit(LATENCY, Band(high=15_000)), Limit(energy, Band(low=12)))
    expected = [n for n in SMALL.within() if LATENCY.of(n) <= 15_000 and energy.of(n) >= 12]
    assert list(subspace) == expected != []


def test_nearest_and_reach_of_a_further_cost(costs: dict[str, tuple[int, int]]) -> None:
    limit = Limit(TINY_LATENCY, Band(1_500_000, 1_500_001))
    bands = Band(high=700_000_000), ANY, limit
    latencies = {layers: added_up(TINY_LATENCY, layers) for layers in costs}
    amounts = zip([flops for flops, _ in costs.values()], latencies.values(), strict=True)
    miss = [
        max(flops / 700_000_000 - 1, 0) + max(1 - latency / 1_500_000, 0) + max(latency / 1_500_001 - 1, 0)
        for flops, latency in amounts
    ]
    nearest = str(TINY_16.nearest(*bands))
    assert miss[list(costs).index(nearest)] == pytest.approx(min(miss), rel=1e-12)
    assert min(miss) > 0
    with pytest.raises(ValueError, match="no architecture") as refusal:
        TINY_16.feasible(*bands)
    assert str(refusal.value) == (
        "no architecture of 1d_tiny_16 meets FLOPs at most 700 M and latency 1.5 ms to 1.5 ms: the space reaches "
        f"358.923 M to 1.84205 G FLOPs and {format_duration(min(latencies.values()))} to "
        f"{format_duration(max(latencies.values()))} latency; the nearest is {nearest} with {costs[nearest][0]:,} "
        f"FLOPs and {costs[nearest][1]:,} parameters and {format_duration(latencies[nearest])} latency"
    )
    assert SMALL.within(Band(high=1)).reach(LATENCY) is None


def test_describe_prints_counts_and_reach(capsys: pytest.CaptureFixture[str]) -> None:
    describe(DescribeConfig(SpaceConfig.of(SPACES["1d_tiny_16"])))
    printed = capsys.readouterr().out
    for fact in ("48,228,544", "250,047", "358.923 M to 1.84205 G", "4.28817 M to 20.3802 M", "1000 classes"):
        assert fact in printed
    assert "within" not in printed
    describe(DescribeConfig(SpaceConfig.of(SPACES["1d_tiny_16"]), flops="1.3G"))
    assert "within FLOPs at most 1.3 G:\narchitectures 48,829 (19.53%)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="the nearest is B-B-B"):
        describe(DescribeConfig(SpaceConfig.of(SPACES["1d_tiny_16"]), flops="1M"))


def test_describe_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    describe(DescribeConfig(SpaceConfig.of(SPACES["2d_mini_4"], cells=2), flops="3M", json=True))
    printed = json.loads(capsys.readouterr().out)
    space = SearchSpace(SPACES["2d_mini_4"], 2)
    members = [space.cost(architecture) for architecture in space.within()]
    inside = [cost for cost in members if cost.flops <= 3_000_000]
    assert (printed["architectures"], printed["paths"], printed["classes"]) == (27, 64, 10)
    assert printed["flops"] == [min(cost.flops for cost in members), max(cost.flops for cost in members)]
    assert printed["within"] == {
        "budget": {"flops": [None, 3_000_000], "params": [None, None]},
        "architectures": len(inside),
        "flops": [min(cost.flops for cost in inside), max(cost.flops for cost in inside)],
        "params": [min(cost.params for cost in inside), max(cost.params for cost in inside)],
    }
    describe(DescribeConfig(SpaceConfig.of(SPACES["2d_mini_4"]), json=True))
    assert json.loads(capsys.readouterr().out)["within"] is None
