"""An empty folder to work in, tasks that are stood in for, and settings as tasks get them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psvit.cli import launch
from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS, find
from psvit.cli.compose import settings as compose_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no trace of torchrun."""
    monkeypatch.chdir(tmp_path)
    for key in ("RANK", "WORLD_SIZE", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(sys, "argv", ["psvit-search"])
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Lets a function stand in for every task."""
    tasks = {command.task for command in COMMANDS.values()}
    load = launch.load

    def stand_in(task: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(launch, "load", lambda name: task if name in tasks else load(name))

    return stand_in


@pytest.fixture
def tasks(stand_in: Callable[[Callable[[Any], Any]], None]) -> list[Any]:
    """The settings that tasks were called with."""
    called: list[Any] = []
    stand_in(called.append)
    return called


@pytest.fixture
def settings() -> Callable[..., Any]:
    """What a command line gives its task: ``settings("evolve", "--flops", "5M")``."""

    def settings(*words: str) -> Any:
        command, rest = find(words)
        assert command is not None
        return compose_settings(command, parse(command, rest)[1])

    return settings


@pytest.fixture
def files(folder: Path) -> Callable[[], list[str]]:
    """What lies in the folder now."""
    return lambda: sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
