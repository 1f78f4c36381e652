"""What a user can get wrong: one line that says what to write, exit status 2, and nothing is left behind."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psvit.cli.main import main
from psvit.run.signals import Stopped

StandIn = Callable[[Callable[[Any], Any]], None]
Files = Callable[[], list[str]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("evolv", ["'evolv'", "did you mean evolve?"]),
        ("--flops 5M evolve", ["--flops", "psvit-search --help"]),
        ("detect", ["write psvit-search detect and one of", "train", "evaluate", "shapes"]),
        ("detect tain --name x", ["write psvit-search detect and one of", "train"]),
        ("evolve --flopz 5M", ["--flopz", "did you mean --flops?"]),
        ("evolve --flops", ["--flops"]),
        ("evolve --cfg jobs", ["--cfg", "jobs"]),
        ("evolve stray", ["'stray'", "key=value"]),
        ("evolve +search.popluation=5", ["search.popluation", "did you mean search.population?"]),
        ("evolve search.population=abc", ["search.population", "'abc'", "whole number"]),
        ("train-supernet recipe.lr=fast", ["recipe.lr", "'fast'", "a number"]),
        ("evolve search.population=0", ["search.population", "at least 1"]),
        ("evolve space=1d_tiny_16", ["evolve has no setting 'space'"]),
        ("space 1d_tiny", ["space=1d_tiny", "1d_tiny_16"]),
        ("evaluate data=imagenets", ["data=imagenets", "imagenet"]),
        ("train-supernet data=imagenets", ["data=imagenets", "imagenet"]),
        ("train-supernet recipe=supernet/digitz", ["recipe=supernet/digitz", "choose one of supernet/cifar10, "]),
        ("retrain --arch a recipe=digits", ["recipe=digits", "retrain/digits"]),
        ("run search=evolution", ["search=evolution", "auto, evolve, exhaustive"]),
        ("evaluate batch_size=1,2", ["batch_size=1,2", "-m"]),
        ("evaluate data=[1", ["'data=[1'", "quotes"]),
        ("evaluate data.root=${oc.env:NO_SUCH_VARIABLE} --arch a --weights w", ["NO_SUCH_VARIABLE"]),
        ("inspect --config-dir nowhere", ["nowhere"]),
        ("retrain", ["arch", "--arch NET (network to train: an arch.json"]),
        ("evaluate --arch a.json", ["weights", "--weights FILE"]),
        ("inspect", ["inspect TARGET"]),
        ("evaluate --arch a --weights w --split tests", ["split", "'tests'"]),
        ("run supernet.sampling=luck", ["sampling is 'luck'", "canonical-depth"]),
        ("-sc", ["psvit-search -sc install=bash"]),
    ],
)
def test_faults_take_one_line(
    arguments: str, words: list[str], tasks: list[Any], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert (tasks, files()) == ([], [])


def test_a_fault_that_a_task_finds(
    stand_in: StandIn, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(config: Any) -> None:
        raise ValueError("the budget is too small; give 2.1 M at least")

    stand_in(task)
    assert main(["evolve", "--flops", "1M"]) == 2
    assert capsys.readouterr().err == "psvit-search: the budget is too small; give 2.1 M at least\n"
    assert files() == []
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="too small"):
        main(["evolve", "--flops", "1M"])


def test_what_nobody_has_foreseen_is_one_line_and_its_traceback_a_file(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def task(config: Any) -> None:
        raise RuntimeError("shapes do\x1b[31m not match\nsecond line")

    stand_in(task)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["evolve"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("psvit-search: RuntimeError: shapes do\\x1b[31m not match; this was not foreseen, ")
    assert line.count("\n") == 1
    assert "second line" in Path(line.split()[-1]).read_text()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(RuntimeError, match="shapes"):
        main(["evolve"])


def test_a_name_with_a_newline_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/a\npsvit-search: all is well"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "there is no folder runs/a\\npsvit-search: all is well" in line


def test_a_working_folder_that_is_gone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert main(["space", "1d_tiny_16"]) == 2
    assert capsys.readouterr().err == "psvit-search: the working folder no longer exists; change into another one\n"


@pytest.mark.parametrize("error", [Stopped("stopped; the same command resumes"), KeyboardInterrupt()])
def test_stopped(error: BaseException, stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    def task(config: Any) -> None:
        raise error

    stand_in(task)
    assert main(["train-supernet"]) == 130
    assert capsys.readouterr().err.count("\n") <= 1


def test_another_process_says_which_one_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["retrain"]) == 2
    assert capsys.readouterr().err.startswith("psvit-search (process 1): ")
