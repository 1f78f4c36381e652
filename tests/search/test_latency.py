"""Tables of latencies: their sums, their fit, their file, and when they are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psvit.arch import Architecture, NetworkSpec
from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import search_folder, settings
from psvit.run.random import numpy_rng
from psvit.search.config import LatencyConfig
from psvit.search.latency import (
    Checked,
    Conditions,
    LatencyTable,
    design,
    fit,
    sample_by_cost,
    table_of,
)
from psvit.supernet.space import SearchSpace
from psvit.zoo import SPACES

CPU = torch.device("cpu")
SMALL = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 5, name="small"), cells=3)
CONDITIONS = Conditions("Abacus 1", 2, 1, "fp32", "2.6.0", SMALL.spec)
CHECK = (Checked("BSB-B", 700, 1000), Checked("B-BB", 1100, 1000), Checked("BB-BB", 1200, 2000))
TABLE = LatencyTable(CONDITIONS, 100, (10, 200), (7, 150), CHECK)


def conditions_of(stages: int) -> Conditions:
    """Conditions of a network of so many stages."""
    return replace(CONDITIONS, network=NetworkSpec("1d", (16, 16), 4, (8,) * stages, (1,) * stages, 5))


# ------------------------------------------------------------------------------------------------ sums and fits


def test_a_prediction_is_the_sum_over_the_layers() -> None:
    for stages in product(["B", "BB", "BSS", "BSBB"], repeat=2):
        layers = [{"B": (10, 200), "S": (7, 150)}[letter][stage] for stage in (0, 1) for letter in stages[stage]]
        assert TABLE.predict(Architecture(stages)) == 100 + sum(layers)


@pytest.mark.parametrize(("stages", "cells"), [(1, 2), (2, 3), (3, 6), (4, 5)])
def test_the_fit_finds_an_additive_latency(stages: int, cells: int) -> None:
    rng = np.random.default_rng(stages)
    basic, sharing = (tuple(rng.integers(10_000, 10**6, stages).tolist()) for _ in "BS")
    truth = LatencyTable(conditions_of(stages), 12_345, basic, sharing)
    networks = design(stages, cells)
    assert len(networks) == len(set(networks))
    assert all(max(network.depths) <= cells for network in networks)
    assert fit((network, truth.predict(network)) for network in networks) == (12_345, basic, sharing)


def test_the_fit_of_noisy_latencies_lies_close() -> None:
    rng = np.random.default_rng(0)
    truth = LatencyTable(conditions_of(3), 500_000, (10**6, 2 * 10**6, 10**6), (800_000, 1_500_000, 700_000))
    measured = [(network, round(truth.predict(network) * rng.normal(1, 0.02))) for network in design(3, 6) * 10]
    fixed, basic, sharing = fit(measured)
    assert basic == pytest.approx(truth.basic, rel=0.05)
    assert sharing == pytest.approx(truth.sharing, rel=0.05)
    assert fixed == pytest.approx(truth.fixed, rel=0.3)


def test_a_checked_network_is_predicted_from_the_others() -> None:
    truth = LatencyTable(CONDITIONS, 1000, (3000, 5000), (2000, 4000))
    odd, even = Architecture.parse("BBS-BSB"), Architecture.parse("BSS-B")
    networks = [*design(2, 3), odd, even]
    # the odd one takes twice as long as its layers say, which it must not teach its own prediction
    measured = [(network, truth.predict(network) * (1 + (network == odd))) for network in networks]
    table = table_of(CONDITIONS, measured, [odd, even])
    correct = truth.predict(odd)
    assert table.check[0] == Checked("BBS-BSB", correct, 2 * correct)
    assert [network.layers for network in table.check] == ["BBS-BSB", "BSS-B"]
    assert table.check[1].predicted != truth.predict(even)
    assert (table.fixed, table.basic, table.sharing) == fit(measured)


def test_no_part_of_a_fit_is_negative() -> None:
    # a sharing layer that seems to save time
    fixed, basic, sharing = fit(
        [(Architecture(("B",)), 200), (Architecture(("BS",)), 190), (Architecture(("BB",)), 300)]
    )
    assert sharing == (0,)
    assert min(fixed, *basic) >= 0


def test_the_sample_reaches_over_all_costs() -> None:
    space = SearchSpace(SPACES["1d_tiny_16"])
    drawn = sample_by_cost(space, 30, numpy_rng(0, "test"))
    costs = [space.cost(architecture).flops for architecture in drawn]
    reach = space.within().flops
    assert reach is not None
    ends = np.linspace(reach.low or 0, (reach.high or 0) + 1, 31)
    assert np.searchsorted(ends, costs, side="right").tolist() == list(range(1, 31))
    assert drawn == sample_by_cost(space, 30, numpy_rng(0, "test")) != sample_by_cost(space, 30, numpy_rng(1, "test"))
    assert sample_by_cost(SearchSpace(SMALL.spec, 1), 30, numpy_rng(0, "test")) == [Architecture.parse("B-B")]


def test_what_the_check_says() -> None:
    assert TABLE.errors == pytest.approx([-0.3, 0.1, -0.4])
    assert TABLE.tau == pytest.approx(2 / 6**0.5)  # two pairs in order, one tied in truth: tau-b
    assert TABLE.trust.startswith("mean error 26.7%, largest 40.0%, Kendall's tau 0.816 over 3 random networks, each")
    assert TABLE.trust.endswith("; measure again when the machine is idle, or with more repeats")
    assert replace(TABLE, check=(Checked("B-B", 98, 100), Checked("BB-B", 199, 200))).trust.endswith("the others")
    assert replace(TABLE, check=()).trust == "not checked against whole networks"


# ------------------------------------------------------------------------------------------------ the file


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "latency.json")
    assert LatencyTable.load(tmp_path / "latency.json") == TABLE
    document = json.loads((tmp_path / "latency.json").read_text())
    assert (document["format"], document["version"], document["basic"]) == ("psvit-latency", 1, [10, 200])
    assert document["check"][0] == {"layers": "BSB-B", "predicted": 700, "measured": 1000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "psvit-arch"}, r"\$\.format: is 'psvit-arch'; it must be \"psvit-latency\"; measure one by"),
        ({"version": 2}, r"\$\.version: is 2; this program reads version 1: update psvit-search$"),
        ({"colour": 1}, r"\$\.colour: unknown key; known are basic, check, "),
        ({"fixed": 1.5}, r"\$\.fixed: is 1\.5; it must be a whole number"),
        ({"fixed": -1}, r"\$: fixed is -1; it must be at least 0"),
        ({"conditions": {"device": 3}}, r"\$\.conditions\.batch: is missing"),
        ({"basic": [1, "2"]}, r"\$\.basic\[1\]: is '2'; it must be a whole number"),
        ({"sharing": [1]}, r"\$: sharing has 1 stages, but the network has 2"),
        ({"check": [{"layers": "B-B", "predicted": 1}]}, r"\$\.check\[0\]\.measured: is missing"),
        ({"check": [{"layers": "B-B", "predicted": 1, "measured": 0}]}, r"\$\.check\[0\]: measured is 0; .* least 1"),
        ({"check": None}, r"\$\.check: is None; it must be a list"),
    ],
)
def test_a_wrong_file_is_refused_by_its_path(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    TABLE.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as refusal:
        LatencyTable.load(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file; measure one by psvit-search latency"):
        LatencyTable.load(tmp_path / "latency.json")
    (tmp_path / "latency.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        LatencyTable.load(tmp_path / "latency.json")
    (tmp_path / "latency.json").write_text("[]")
    with pytest.raises(ValueError, match=r"\$: is \[\]; it must be an object"):
        LatencyTable.load(tmp_path / "latency.json")


def test_conditions_in_a_line() -> None:
    assert str(CONDITIONS) == "Abacus 1, 2 threads, batch 1, fp32, torch 2.6.0"
    assert str(replace(CONDITIONS, threads=0)) == "Abacus 1, batch 1, fp32, torch 2.6.0"


def test_what_cannot_matter_is_no_other_condition() -> None:
    same = replace(CONDITIONS, torch="3.0", network=replace(SMALL.spec, name="mine"))
    assert CONDITIONS.differences(same) == []


def test_a_table_of_other_stages_cannot_be_forced() -> None:
    here = replace(CONDITIONS, network=SPACES["2d_mini_4"])
    with pytest.raises(ValueError, match="of a network of 2 stages, and this one has 3; measure it by"):
        TABLE.require_same(here, Path("latency.json"), force=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "the latency's batch is 0"),
        ({"repeats": 0}, "the latency's repeats is 0"),
        ({"precision": "int8"}, "the latency's precision is 'int8'; use one of auto"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyConfig(**settings)


def test_a_search_within_a_latency_has_a_folder_of_its_own() -> None:
    assert search_folder("evolve", "5M", None, 1, "1.5ms..2 ms") == "evolve-5M-1.5ms..2ms-seed1"
    for name in ("evolve", "random"):
        command = COMMANDS[name]
        config = settings(command, parse(command, ["--flops", "5M", "--latency", "2ms"])[1])
        assert (config.out, config.search.budget.latency) == (f"runs/default/{name}-5M-2ms", "2ms")
