"""The commands as Python functions: ``from psvit import api``.

A function takes the flags of its command as keywords and settings as the command line has them, and comes to the same
defaults, checks, run folders and resuming; it gives what was found::

    found = api.run("data=imagefolder", "data.root=photos", flops="5M", name="photos")
    found.search.top()  # a pandas table
    psvit.load(found.retrain.folder).predict("picture.jpg")

Settings of the first level may be keywords as well: ``seed=1``. Calls raise a ValueError of one line for what the
command would refuse, and :class:`psvit.run.signals.Stopped` where they were asked to stop and have saved their work.
No torch until a task starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psvit.cli import compose
from psvit.cli.commands import COMMANDS, Command
from psvit.cli.faults import UsageError, explain
from psvit.cli.grammar import write
from psvit.cli.launch import start

if TYPE_CHECKING:
    from psvit.cli.run import RunResult
    from psvit.data.check import CheckReport
    from psvit.retrain.results import CompareRecord
    from psvit.retrain.train import RetrainResult
    from psvit.search.finals import FinalResult
    from psvit.search.latency import LatencyTable
    from psvit.search.pick import Answer
    from psvit.search.rank import RankResult
    from psvit.search.run import SearchResult

__all__ = [
    *(
        "compare",
        "evaluate",
        "evolve",
        "exhaustive",
        "export",
        "finals",
        "inherit",
        "latency",
        "nsga2",
        "pick",
        "random",
        "rank",
    ),
    *("retrain", "run", "train_supernet"),
]


def run(*settings: str, **flags: Any) -> RunResult:
    """``psvit-search run``: supernet, search, retraining and report."""
    return _call("run", settings, flags)


def train_supernet(*settings: str, **flags: Any) -> Path:
    """``psvit-search train-supernet``; gives its run folder."""
    return _call("train-supernet", settings, flags)


def exhaustive(*settings: str, **flags: Any) -> SearchResult:
    """``psvit-search exhaustive``: the best within a budget, all of them scored."""
    return _call("exhaustive", settings, flags)


def evolve(*settings: str, **flags: Any) -> SearchResult:
    """``psvit-search evolve``: evolutionary search."""
    return _call("evolve", settings, flags)


def nsga2(*settings: str, **flags: Any) -> SearchResult:
    """``psvit-search nsga2``: the front of score against cost."""
    return _call("nsga2", settings, flags)


def random(*settings: str, **flags: Any) -> SearchResult:
    """``psvit-search random``: random search."""
    return _call("random", settings, flags)


def finals(*settings: str, **flags: Any) -> FinalResult:
    """``psvit-search finals``: those that a search cannot tell apart, trained alone."""
    return _call("finals", settings, flags)


def rank(*settings: str, **flags: Any) -> RankResult:
    """``psvit-search rank``: inherited scores against networks trained alone."""
    return _call("rank", settings, flags)


def pick(*settings: str, **flags: Any) -> Answer:
    """``psvit-search pick``: the best within a later budget, from what was scored."""
    return _call("pick", settings, flags)


def latency(*settings: str, **flags: Any) -> LatencyTable:
    """``psvit-search latency``: the table that a latency budget is made of."""
    return _call("latency", settings, flags)


def inherit(*settings: str, **flags: Any) -> Path:
    """``psvit-search inherit``: the file with the weights that an architecture inherits."""
    return _call("inherit", settings, flags)


def retrain(*settings: str, **flags: Any) -> RetrainResult:
    """``psvit-search retrain``: one network, trained and tested."""
    return _call("retrain", settings, flags)


def evaluate(*settings: str, **flags: Any) -> dict[str, float]:
    """``psvit-search evaluate``: every metric of trained weights on a split, by name."""
    return _call("evaluate", settings, flags)


def check(*settings: str, **flags: Any) -> CheckReport:
    """``psvit-search check``: one look at all images."""
    return _call("check", settings, flags)


def compare(*settings: str, **flags: Any) -> CompareRecord:
    """``psvit-search compare``: trained networks side by side, ``runs=[FOLDER, ...]``."""
    return _call("compare", settings, flags)


def export(*settings: str, **flags: Any) -> list[Path]:
    """``psvit-search export``: files for other runtimes."""
    return _call("export", settings, flags)


def _call(name: str, settings: tuple[str, ...], flags: Mapping[str, Any]) -> Any:
    """Start a command's task with the settings that the command line would come to.

    Raises:
        ValueError: a setting that there is not or that does not fit, or what the task refuses.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    command = COMMANDS[name]
    overrides = [f"{key}={write(_plain(value))}" for key, value in _keyed(command, flags).items()]
    try:
        config, note = compose.composed(command, [*overrides, *settings])
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error, command)) from error
    return start(command, config, note)


def _keyed(command: Command, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the settings that their flags stand for; any other keyword is a setting of the first level."""
    rows = [flag for flag in (*command.flags, command.argument) if flag]
    keys = {flag.name.strip("-").replace("-", "_").lower(): flag.key for flag in rows}
    return {keys.get(name, name): value for name, value in flags.items()}


def _plain(value: Any) -> Any:
    """Paths as text, alone and in lists."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return fspath(value) if isinstance(value, PathLike) else value
