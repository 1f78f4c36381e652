"""Completion in the shell: ``psvit-search -sc query=bash`` with the line so far in ``COMP_LINE``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS, find
from psvit.cli.faults import UsageError
from psvit.cli.launch import launch

_ASKED = ("install=", "uninstall=", "query=")


def complete(words: Sequence[str]) -> int:
    """Complete commands and flags here, and leave settings, and the scripts of shells, to Hydra; gives the exit status.

    Raises:
        UsageError: something else is asked.
    """
    if len(words) != 1 or not words[0].startswith(_ASKED):
        raise UsageError("write psvit-search -sc install=bash, or uninstall=bash")
    command = COMMANDS["run"]
    if words[0].startswith("query="):
        line = os.environ.get("COMP_LINE", "")
        before = line.split()[1:]
        word = "" if line.endswith(" ") or not before else before.pop()
        found, after = find(before)
        if found is None:
            print(" ".join(_commands_after(before, word)))
            return 0
        command = found
        if word.startswith("-"):
            print(" ".join(flag.name for flag in command.flags if flag.name.startswith(word)))
            return 0
        if any(before[-1] == flag.name and flag.value for flag in command.flags):
            return 0  # the shell completes names of files
        try:
            _, overrides = parse(command, after)
        except UsageError:
            return 0
        os.environ["COMP_LINE"] = " ".join(["psvit-search", *overrides, word])
    return launch(command, ["-sc", *words], [])


def _commands_after(before: Sequence[str], word: str) -> list[str]:
    """Words that go on with a command's name and begin with ``word``."""
    names = (name.split() for name in COMMANDS)
    following = (name[len(before)] for name in names if name[: len(before)] == before and len(name) > len(before))
    return [name for name in dict.fromkeys(following) if name.startswith(word)]
