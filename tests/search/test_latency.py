"""Tables of latencies: their sums, their fit, their file, when they are refused, and a real measurement."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from psvit.arch import Architecture, CellPath, NetworkSpec
from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import search_folder, settings
from psvit.cli.main import main
from psvit.data.config import DataConfig
from psvit.run.random import numpy_rng
from psvit.search import measure as measuring
from psvit.search.config import LatencyConfig, MeasureConfig
from psvit.search.latency import (
    Checked,
    Conditions,
    LatencyTable,
    design,
    fit,
    load_latency,
    sample_by_cost,
    save_latency,
    table_of,
)
from psvit.search.measure import conditions_here, latency_table, measure, measure_latency, time_networks
from psvit.supernet.checkpoint import save_supernet
from psvit.supernet.config import SpaceConfig
from psvit.supernet.inherit import inherit
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES

CPU = torch.device("cpu")
SMALL = SearchSpace(NetworkSpec("2d", (16, 16), 4, (8, 16), (1, 2), 5, name="small"), cells=3)
CONDITIONS = Conditions("Abacus 1", 2, 1, "fp32", "2.6.0", SMALL.spec)
CHECK = (Checked("BSB-B", 700, 1000), Checked("B-BB", 1100, 1000), Checked("BB-BB", 1200, 2000))
TABLE = LatencyTable(CONDITIONS, 100, (10, 200), (7, 150), CHECK)


# ------------------------------------------------------------------------------------------------ sums and fits


def test_a_prediction_is_the_sum_over_the_layers() -> None:
    for stages in product(["B", "BB", "BSS", "BSBB"], repeat=2):
        layers = [{"B": (10, 200), "S": (7, 150)}[letter][stage] for stage in (0, 1) for letter in stages[stage]]
        assert TABLE.predict(Architecture(stages)) == 100 + sum(layers)


@pytest.mark.parametrize(("stages", "cells"), [(1, 2), (2, 3), (3, 6), (4, 5)])
def test_the_fit_finds_an_additive_latency(stages: int, cells: int) -> None:
    rng = np.random.default_rng(stages)
    basic, sharing = (tuple(rng.integers(10_000, 10**6, stages).tolist()) for _ in "BS")
    truth = LatencyTable(CONDITIONS, 12_345, basic, sharing)
    networks = design(stages, cells)
    assert len(networks) == len(set(networks))
    assert all(max(network.depths) <= cells for network in networks)
    assert fit((network, truth.predict(network)) for network in networks) == (12_345, basic, sharing)


def test_the_fit_of_noisy_latencies_lies_close() -> None:
    rng = np.random.default_rng(0)
    truth = LatencyTable(CONDITIONS, 500_000, (10**6, 2 * 10**6, 10**6), (800_000, 1_500_000, 700_000))
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
    save_latency(tmp_path / "latency.json", TABLE)
    assert load_latency(tmp_path / "latency.json") == TABLE
    document = json.loads((tmp_path / "latency.json").read_text())
    assert (document["format"], document["version"], document["basic"]) == ("psvit-latency", 1, [10, 200])
    assert document["check"][0] == {"layers": "BSB-B", "predicted": 700, "measured": 1000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "psvit-arch"}, r"\$\.format: is 'psvit-arch'"),
        ({"version": 2}, r"\$\.version: is 2; this program reads version 1"),
        ({"version": True}, r"\$\.version: is True"),
        ({"colour": 1}, r"\$\.colour: unknown key; known are basic, batch, "),
        ({"fixed": 1.5}, r"\$\.fixed: is 1\.5; it must be a whole number"),
        ({"fixed": -1}, r"\$\.fixed: is -1; it must be at least 0"),
        ({"device": 3}, r"\$\.device: is 3; it must be a text"),
        ({"basic": [1, "2"]}, r"\$\.basic\[1\]: is '2'; it must be a whole number"),
        ({"sharing": [1]}, r"\$\.sharing: has 1 stages, but \$\.network has 2"),
        ({"network": {"name": "none"}}, r"\$\.network: lacks classes"),
        ({"check": [{"layers": "B-B", "predicted": 1}]}, r"\$\.check\[0\]\.measured: is missing"),
        ({"check": [{"layers": "B-B", "predicted": 1, "measured": 0}]}, r"\$\.check\[0\]\.measured: is 0; .* least 1"),
        ({"check": None}, r"\$\.check: is None; it must be a list"),
    ],
)
def test_a_wrong_file_is_refused_by_its_path(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    save_latency(path, TABLE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as refusal:
        load_latency(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file; psvit-search latency writes one"):
        load_latency(tmp_path / "latency.json")
    (tmp_path / "latency.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_latency(tmp_path / "latency.json")
    (tmp_path / "latency.json").write_text("[]")
    with pytest.raises(ValueError, match=r"\$: is \[\]; it must be an object"):
        load_latency(tmp_path / "latency.json")


# ------------------------------------------------------------------------------------------------ measuring


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine on which a network takes as long as its layers say; counts the passes."""
    world = SimpleNamespace(passes=0, slow=1.0, layers={"B": (3000, 5000), "S": (2000, 4000)})

    def time(network: Any, images: torch.Tensor, device: torch.device) -> int:
        world.passes += 1
        stages = enumerate(network.architecture.stages)
        layers = sum(world.layers[letter][stage] for stage, letters in stages for letter in letters)
        return round((1000 + layers) * (1 + world.slow * (world.passes % 7 == 0)))

    monkeypatch.setattr(measuring, "_time", time)
    return world


def test_borrowed_networks_are_the_architectures() -> None:
    supernet = Supernet(SMALL.spec, SMALL.cells).eval()
    images = torch.randn(2, 3, 16, 16)
    for layers in ("B-B", "BSS-BBS", "BBB-BSB"):
        architecture = Architecture.parse(layers)
        borrowed = measuring._borrow(supernet, architecture)
        assert not borrowed.training
        with torch.inference_mode():
            expected = inherit(supernet, CellPath.canonical(architecture, SMALL.cells))(images)
            assert torch.equal(borrowed(images), expected)
        assert {id(p) for p in borrowed.parameters()} <= {id(p) for p in supernet.parameters()}


def test_a_measurement_fits_and_checks(clockwork: SimpleNamespace) -> None:
    table = measure(SMALL, CONDITIONS, CPU, repeats=5)
    assert (table.fixed, table.basic, table.sharing) == (1000, (3000, 5000), (2000, 4000))
    drawn = sample_by_cost(SMALL, 30, numpy_rng(0, "latency"))
    assert {network.layers for network in table.check} == {str(architecture) for architecture in drawn}
    assert len(table.check) == len(drawn) > 15
    assert max(map(abs, table.errors)) == 0
    assert table.tau == pytest.approx(1)


def test_a_space_of_one_network_has_nothing_to_check(clockwork: SimpleNamespace) -> None:
    table = measure(SearchSpace(SMALL.spec, 1), CONDITIONS, CPU, repeats=1)
    assert table.predict(Architecture.parse("B-B")) == pytest.approx(9000, abs=2)
    assert table.check == ()


def test_what_slows_a_whole_turn_down_hits_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    architectures = [Architecture.parse(layers) for layers in ("B-B", "BB-B", "BSB-BBB")]
    passes: list[int] = []

    def time(network: Any, images: torch.Tensor, device: torch.device) -> int:
        turn = len(passes) // (4 * len(architectures))
        passes.append(sum(network.architecture.depths) * 1000 * [100, 1, 9, 2][turn])  # the first is not counted
        return passes[-1]

    monkeypatch.setattr(measuring, "_time", time)
    supernet = Supernet(SMALL.spec, SMALL.cells)
    assert time_networks(supernet, architectures, CONDITIONS, CPU, repeats=9) == [4000, 6000, 12000]
    assert len(passes) == 4 * 4 * 3


def test_a_whole_network_takes_some_time() -> None:
    supernet = Supernet(SMALL.spec, SMALL.cells).eval()
    architectures = [Architecture.parse("B-B"), Architecture.parse("BSB-BBB")]
    times = time_networks(supernet, architectures, CONDITIONS, CPU, repeats=2)
    assert len(times) == 2
    assert min(times) > 0


def test_autocast_casts_a_weight_once_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    casts = []
    time = measuring._time

    def counted(network: Any, images: torch.Tensor, device: torch.device) -> int:
        with torch.profiler.profile() as profile:
            taken = time(network, images, device)
        casts.append(sum(event.name == "aten::_to_copy" for event in profile.events() or []))
        return taken

    monkeypatch.setattr(measuring, "_time", counted)
    network = Architecture.parse("BB-B")
    time_networks(Supernet(SMALL.spec, SMALL.cells), [network], replace(CONDITIONS, precision="bf16"), CPU, repeats=3)
    first, *others = casts[:4]
    assert first >= others[0] + 2 * (2 + 4 * 3)  # weight and bias of two convolutions and four linear maps a layer
    assert len(set(others)) == 1


def test_conditions_are_named() -> None:
    here = conditions_here(4, "auto", SMALL.spec, CPU)
    assert (here.batch, here.precision, here.threads, here.torch) == (4, "fp32", 1, torch.__version__)
    assert here.device
    assert str(CONDITIONS) == "Abacus 1, 2 threads, batch 1, fp32, torch 2.6.0"
    assert str(replace(CONDITIONS, threads=0)) == "Abacus 1, batch 1, fp32, torch 2.6.0"


def test_a_search_keeps_the_table_that_it_measured(clockwork: SimpleNamespace, tmp_path: Path) -> None:
    config = LatencyConfig(repeats=1)
    table = latency_table(config, SMALL, CPU, tmp_path)
    assert load_latency(tmp_path / "latency.json") == table
    clockwork.passes = 0
    assert latency_table(config, SMALL, CPU, tmp_path) == table
    other = latency_table(LatencyConfig(table=str(tmp_path / "latency.json")), SMALL, CPU, tmp_path / "elsewhere")
    assert (other, clockwork.passes) == (table, 0)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda here: replace(here, device="Abacus 1"), "device was Abacus 1 and is "),
        (lambda here: replace(here, threads=9), "threads was 9 and is 1"),
        (lambda here: replace(here, batch=8), "batch was 8 and is 1"),
        (lambda here: replace(here, precision="bf16"), "precision was bf16 and is fp32"),
        (lambda here: replace(here, network=replace(SMALL.spec, classes=7)), "network.classes was 7 and is 5"),
    ],
)
def test_a_table_of_other_conditions_is_refused_unless_forced(
    change: Callable[[Conditions], Conditions], phrase: str, tmp_path: Path
) -> None:
    path = tmp_path / "latency.json"
    table = replace(TABLE, conditions=change(conditions_here(1, "auto", SMALL.spec, CPU)))
    save_latency(path, table)
    with pytest.raises(ValueError, match=r"search\.latency\.force=true") as refusal:
        latency_table(LatencyConfig(table=str(path)), SMALL, CPU, tmp_path)
    assert phrase in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert latency_table(LatencyConfig(table=str(path), force=True), SMALL, CPU, tmp_path) == table


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
        ({"batch": 0}, "batch of the latency is 0"),
        ({"repeats": 0}, "repeats of the latency is 0"),
        ({"precision": "int8"}, "the latency's precision is 'int8'; use one of auto"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyConfig(**settings)


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_measures_a_named_space(
    clockwork: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clockwork.layers = {"B": (3000, 5000, 7000), "S": (2000, 4000, 3500)}
    space = SpaceConfig.of(SPACES["1d_mini_4"], cells=3)
    save = tmp_path / "new" / "latency.json"
    table = measure_latency(MeasureConfig(space=space, save=str(save), repeats=1, device="cpu"))
    assert load_latency(save) == table
    assert table.conditions.network == SPACES["1d_mini_4"]
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines() if line.startswith("    3")] == [
        ["3", "7", "us", "3.5", "us", "0.50", "0.82"]  # (10 * 64 + 17) / (12 * 64 + 34) of 17 tokens of width 64
    ]
    assert "mean error 0.0%, largest 0.0%, Kendall's tau 1.000 over " in printed
    assert f"search.latency.table={save}" in printed


def test_the_command_measures_the_supernet(clockwork: SimpleNamespace, tmp_path: Path) -> None:
    about = {"data": asdict(DataConfig()), "search_split": {}, "seed": 0, "sampling": "uniform"}
    save_supernet(tmp_path / "supernet.safetensors", Supernet(SMALL.spec, SMALL.cells), SMALL, about)
    config = MeasureConfig(supernet=str(tmp_path), save=str(tmp_path / "latency.json"), repeats=1, device="cpu")
    table = measure_latency(config)
    assert table.conditions.network == SMALL.spec
    assert all(max(Architecture.parse(network.layers).depths) <= SMALL.cells for network in table.check)


def test_the_command_needs_something_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no supernet in .*--supernet RUN, or a space as space="):
        measure_latency(MeasureConfig(supernet=str(tmp_path / "none"), save=str(tmp_path / "latency.json")))


def test_the_command_line(
    clockwork: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clockwork.layers = {"B": (3000, 5000, 7000), "S": (2000, 4000, 3500)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["psvit-search"])
    assert main(["latency", "device=cpu"]) == 2
    assert "there is no supernet in runs/default/supernet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    words = ["latency", "--name", "x", "space=1d_mini_4", "space.cells=2", "batch=4", "repeats=1", "device=cpu"]
    assert main(words) == 0
    assert load_latency(tmp_path / "runs/x/latency.json").conditions.batch == 4
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["latency.json"]


def test_a_search_within_a_latency_has_a_folder_of_its_own() -> None:
    assert search_folder("evolve", "5M", None, 1, "1.5ms..2 ms") == "evolve-5M-1.5ms..2ms-seed1"
    for name in ("evolve", "random"):
        command = COMMANDS[name]
        config = settings(command, parse(command, ["--flops", "5M", "--latency", "2ms"])[1])
        assert (config.out, config.search.budget.latency) == (f"runs/default/{name}-5M-2ms", "2ms")
