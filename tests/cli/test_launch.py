"""Tasks started by Hydra: sweeps, what is left behind, and the command that run folders record."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from psvit.cli.main import main
from psvit.run.folder import RunFolder, recorded_command

StandIn = Callable[[Callable[[Any], Any]], None]
Files = Callable[[], list[str]]


def make_folder(config: Any) -> None:
    """What every task does with its run folder."""
    with RunFolder(Path(config.out), asdict(config)):
        pass


def test_sweep_with_overrides_before_and_behind_the_flag(files: Files, tasks: list[Any]) -> None:
    assert main(["random", "search.trials=3", "-m", "seed=0,1,2", "--flops", "5M", "--out", "o"]) == 0
    assert [(config.seed, config.search.trials, config.out) for config in tasks] == [
        (0, 3, "o/0"),
        (1, 3, "o/1"),
        (2, 3, "o/2"),
    ]
    assert ".hydra" not in " ".join(files())


def test_sweep_over_a_flag(tasks: list[Any]) -> None:
    assert main(["evolve", "--flops", "4M,5M", "-m"]) == 0
    assert [(config.search.budget.flops, config.out) for config in tasks] == [
        ("4M", "runs/default/evolve-4M/0"),
        ("5M", "runs/default/evolve-5M/1"),
    ]


def test_a_failed_job_of_a_sweep_leaves_the_others(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def task(config: Any) -> None:
        if config.seed == 1:
            raise ValueError("no")
        done.append(config.seed)

    stand_in(task)
    assert main(["evolve", "-m", "seed=0,1,2"]) == 2
    assert done == [0, 2]
    assert "psvit-search: no\n" in capsys.readouterr().err


def test_hydra_leaves_nothing_behind(tasks: list[Any], files: Files) -> None:
    for words in ("train-supernet", "inspect a.json", "inspect a.json -m json=false,true"):
        assert main(words.split()) == 0
        assert files() == [], words
    assert len(tasks) == 4
    assert main(["random", "-m", "seed=0,1", "--out", "o"]) == 0
    assert files() == ["o", "o/0", "o/1", "o/multirun.yaml"]


def test_inspect_and_space_leave_nothing_behind(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "deit_tiny_16"]) == 0
    assert "5,717,416" in capsys.readouterr().out
    assert main(["space", "1d_tiny_16", "--flops", "1.3G"]) == 0
    assert "250,047" in capsys.readouterr().out
    assert files() == []


def test_only_one_process_of_a_sweep_writes(
    monkeypatch: pytest.MonkeyPatch, tasks: list[Any], files: Files, folder: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train-supernet", "-m", "seed=0,1"]) == 0
    assert [config.out for config in tasks] == ["runs/default/supernet/0", "runs/default/supernet/1"]
    assert [file for file in files() if (folder / file).is_file()] == []


def test_a_run_folder_records_the_command_that_repeats_it(
    stand_in: StandIn, settings: Callable[..., Any], folder: Path
) -> None:
    stand_in(make_folder)
    given = ["evolve", "search.mutation=0.25", "--flops", "5M", "search.population=50"]
    assert main(given) == 0
    line = recorded_command(folder / "runs/default/evolve-5M")
    assert line == "psvit-search evolve --flops 5M search.mutation=0.25"
    assert settings(*shlex.split(line)[1:]) == settings(*given)
    assert main(["evolve", "--flops", "5M", "search.mutation=0.25", "search.trials=2000"]) == 0  # more of the same
    line = recorded_command(folder / "runs/default/evolve-5M")
    assert line == "psvit-search evolve --flops 5M search.trials=2000 search.mutation=0.25"


def test_each_job_of_a_sweep_records_its_own_command(
    stand_in: StandIn, settings: Callable[..., Any], folder: Path
) -> None:
    stand_in(make_folder)
    assert main(["train-supernet", "-m", "seed=0,1"]) == 0
    for seed in (0, 1):
        line = recorded_command(folder / f"runs/default/supernet/{seed}")
        assert line is not None
        config = settings(*shlex.split(line)[1:])
        assert (config.seed, config.out) == (seed, f"runs/default/supernet/{seed}")


def test_without_a_command_none_is_recorded(settings: Callable[..., Any], folder: Path) -> None:
    make_folder(settings("evolve"))
    assert recorded_command(folder / "runs/default/evolve") is None
