"""The command ``psvit-search``: a table of commands in front of Hydra.

A command is a schema (a dataclass that checks and types the settings) and a task (a function of that dataclass), and
has a YAML file in ``conf/`` where its defaults say more than the schema. Short flags become Hydra's overrides;
everything else is Hydra's own. Tasks, and with them torch, are imported when a task starts and not before, so that
help, completion and faults in a command line show at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import psvit
from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS, find, parts
from psvit.cli.completion import complete
from psvit.cli.faults import UsageError, check_working_folder, complain, did_you_mean, unexpected
from psvit.cli.help import help_of, overview, overview_of
from psvit.cli.launch import launch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, 2 after a fault of the user, 130 when the user stopped it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # OpenMP threads spin long while they wait, which slows a small network down as soon as it shares its cores with
    # anything (benchmarks/openmp_spin.py); read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Several processes look for unused parameters, and torch would warn wherever a step happens to have none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        status = _dispatch(words)
        if status == 0 and sys.stdout is not None:  # as where it was closed
            sys.stdout.flush()  # here, where its faults are said
    except UsageError as error:
        complain(str(error))
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # as `psvit-search paper | head` leaves it: nobody reads on
        status = 141
    except Exception as error:  # a fault of ours, or of the machine, that no reader has foreseen
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        complain(unexpected(error))
        status = 2
    if status:
        _let_go_of_output()
    return status


def _let_go_of_output() -> None:
    """Write what can be written; Python would fail on the rest once more at its end, in words of its own."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    check_working_folder()
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"psvit-search {psvit.__version__}")
        return 0
    if words[0] in ("-sc", "--shell-completion"):
        return complete(words[1:])
    command, rest = find(words)
    asks_help = not {"-h", "--help"}.isdisjoint(rest)
    if command is None:
        if not parts(words[0]) or not asks_help:
            raise UsageError(_no_command(words[0]))
        print(overview_of(words[0]))
        return 0
    if asks_help:
        print(help_of(command))
        return 0
    return launch(command, *parse(command, rest))


def _no_command(name: str) -> str:
    """What to say of a word that is no command, or only the first word of some."""
    if following := [command.name.partition(" ")[2] for command in parts(name)]:
        return f"write psvit-search {name} and one of {', '.join(following)}"
    return f"there is no command {name!r} ('psvit-search --help' lists them){did_you_mean(name, COMMANDS)}"
