"""Timing networks: what is borrowed, what is measured, the command, and which tables a search takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psvit.arch import Architecture, CellPath
from psvit.cli.main import main
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.run.random import numpy_rng
from psvit.search import timing
from psvit.search.config import LatencyConfig, MeasureConfig
from psvit.search.latency import Conditions, LatencyTable, sample_by_cost
from psvit.search.timing import conditions_here, latency_table, measure, measure_latency, time_networks
from psvit.supernet.checkpoint import save_supernet
from psvit.supernet.config import SpaceConfig
from psvit.supernet.inherit import inherit
from psvit.supernet.space import SearchSpace
from psvit.supernet.supernet import Supernet
from psvit.zoo import SPACES
from tests.search.test_latency import CONDITIONS, SMALL, TABLE

CPU = torch.device("cpu")


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine on which a network takes as long as its layers say; counts the passes."""
    world = SimpleNamespace(passes=0, slow=1.0, layers={"B": (3000, 5000), "S": (2000, 4000)})

    def time(network: Any, images: torch.Tensor, device: torch.device) -> int:
        world.passes += 1
        stages = enumerate(network.architecture.stages)
        layers = sum(world.layers[letter][stage] for stage, letters in stages for letter in letters)
        return round((1000 + layers) * (1 + world.slow * (world.passes % 7 == 0)))

    monkeypatch.setattr(timing, "_time", time)
    return world


def test_borrowed_networks_are_the_architectures() -> None:
    supernet = Supernet(SMALL.spec, SMALL.cells).eval()
    images = torch.randn(2, 3, 16, 16)
    for layers in ("B-B", "BSS-BBS", "BBB-BSB"):
        architecture = Architecture.parse(layers)
        borrowed = timing._borrow(supernet, architecture)
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

    monkeypatch.setattr(timing, "_time", time)
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
    time = timing._time

    def counted(network: Any, images: torch.Tensor, device: torch.device) -> int:
        with torch.profiler.profile() as profile:
            taken = time(network, images, device)
        casts.append(sum(event.name == "aten::_to_copy" for event in profile.events() or []))
        return taken

    monkeypatch.setattr(timing, "_time", counted)
    network = Architecture.parse("BB-B")
    time_networks(Supernet(SMALL.spec, SMALL.cells), [network], replace(CONDITIONS, precision="bf16"), CPU, repeats=3)
    first, *others = casts[:4]
    assert first >= others[0] + 2 * (2 + 4 * 3)  # weight and bias of two convolutions and four linear maps a layer
    assert len(set(others)) == 1


def test_conditions_of_this_machine() -> None:
    here = conditions_here(4, "auto", SMALL.spec, CPU)
    assert (here.batch, here.precision, here.threads, here.torch) == (4, "fp32", 1, torch.__version__)
    assert here.device


def test_a_search_keeps_the_table_that_it_measured(clockwork: SimpleNamespace, tmp_path: Path) -> None:
    config = LatencyConfig(repeats=1)
    table = latency_table(config, SMALL, CPU, tmp_path)
    assert LatencyTable.load(tmp_path / "latency.json") == table
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
    table.save(path)
    with pytest.raises(ValueError, match=r"search\.latency\.force=true") as refusal:
        latency_table(LatencyConfig(table=str(path)), SMALL, CPU, tmp_path)
    assert phrase in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert latency_table(LatencyConfig(table=str(path), force=True), SMALL, CPU, tmp_path) == table


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_measures_a_named_space(
    clockwork: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clockwork.layers = {"B": (3000, 5000, 7000), "S": (2000, 4000, 3500)}
    space = SpaceConfig.of(SPACES["1d_mini_4"], cells=3)
    save = tmp_path / "new" / "latency.json"
    table = measure_latency(MeasureConfig(space=space, save=str(save), repeats=1, device="cpu"))
    assert LatencyTable.load(save) == table
    assert table.conditions.network == SPACES["1d_mini_4"]
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines() if line.startswith("    3")] == [
        ["3", "7", "us", "3.5", "us", "0.50", "0.82"]  # (10 * 64 + 17) / (12 * 64 + 34) of 17 tokens of width 64
    ]
    assert "mean error 0.0%, largest 0.0%, Kendall's tau 1.000 over " in printed
    assert f"search.latency.table={save}" in printed


def test_the_command_measures_the_supernet(clockwork: SimpleNamespace, tmp_path: Path) -> None:
    data = open_data(DataConfig())
    about = {"data": asdict(data.config), "search_split": {}, "seed": 0, "sampling": "uniform"}
    about |= {"trained_on": data.trained_on((32, 32)).to_json(), "data_record": data.record().to_json()}
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
    assert LatencyTable.load(tmp_path / "runs/x/latency.json").conditions.batch == 4
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["latency.json"]
