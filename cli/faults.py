"""What a user can get wrong, in one line each: which setting, and what to write instead."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from psvit.cli.commands import Command
from psvit.cli.compose import CONF, load
from psvit.cli.schema import describe, keys
from psvit.data.names import printable
from psvit.data.workers import worker_fault

if TYPE_CHECKING:
    from hydra.errors import ConfigCompositionException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

_LONGEST = 300  # characters of a message that others have made
_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


class UsageError(ValueError):
    """A command line that makes no sense; the message says in one line what to write."""


def complain(line: str) -> None:
    """Print one line on stderr, with the number of the process if it is not the first.

    What a name or a stranger's text in it would do to the terminal, or to a second line, is escaped.
    """
    rank = f" (process {os.environ['RANK']})" if os.environ.get("RANK", "0") != "0" else ""
    print(f"psvit-search{rank}: {printable(line, most=None)}", file=sys.stderr)


def check_working_folder() -> None:
    """Raise UsageError if the folder that the command was started in is gone."""
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the working folder no longer exists; change into another one") from error


def unexpected(error: BaseException) -> str:
    """One line for what no task foresees; its traceback goes into a file unless the cause is known."""
    if line := worker_fault(error):
        return line
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO) and not error.filename:  # mostly stdout
        return f"cannot write: {error.strerror}; free some space, or redirect the output to a place with room"
    handle, name = tempfile.mkstemp(prefix="psvit-search-", suffix=".txt", text=True)
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        traceback.print_exception(error, file=file)
    reason = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {printable(reason)[:_LONGEST]}; this was not foreseen, its traceback is in {name}"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean evolve?``, or nothing."""
    close = get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def where_settings_are(command: Command) -> str:
    """How to see all settings of a command, to be added to a line."""
    return f" ('psvit-search {command.name} --cfg job' shows them all)"


def explain(error: BaseException, command: Command) -> str:
    """One line for what Hydra, OmegaConf or a task found wrong."""
    from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(error)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}; write key=value, with special characters in quotes: \"key='a=b'\""
    if isinstance(error, ConfigCompositionException):
        if isinstance(error.__cause__, OmegaConfBaseException):
            return _bad_setting(error.__cause__, command)
        return _bad_override(error, command)
    if isinstance(error, OmegaConfBaseException):
        return _bad_setting(error, command)
    return str(error)


def _no_such_choice(error: MissingConfigException) -> str:
    """Of a group of ``conf/``, such as ``data``, or in folders of one, as ``supernet/digits`` of ``recipe``."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = error.options
    if not options and group:
        files = (CONF / group).rglob("*.yaml")
        group, _, folder = group.partition("/")
        name = f"{folder}/{name}".lstrip("/")
        options = sorted(file.relative_to(CONF / group).with_suffix("").as_posix() for file in files)
    choose = f"; choose one of {', '.join(options)}" if options else ""
    return f"{group}={name}: there is no such choice{choose}"


def _bad_override(error: ConfigCompositionException, command: Command) -> str:
    """An override that does not fit the defaults list."""
    line = _first_line(error)
    if line.startswith("Ambiguous value"):
        override = line.partition("'")[2].rstrip("'")
        return f"{override}: add -m to run once per value; a list is written key=[a,b]"
    absent = re.match(r"Could not override '(.+?)'\. No match in the defaults list", line)
    return f"{command.name} has no setting {absent[1]!r}{where_settings_are(command)}" if absent else line


def _bad_setting(error: OmegaConfBaseException, command: Command) -> str:
    """A setting that is missing, unknown, or of the wrong type."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, ValidationError

    key = str(error.full_key or "")
    if isinstance(error, MissingMandatoryValue):
        return _missing(key, command)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        guess = did_you_mean(key, [*keys(load(command.schema)), "hydra"])
        return f"{command.name} has no setting {key!r}{where_settings_are(command)}{guess}"
    line = _first_line(error)
    if isinstance(error, ValidationError):
        found = re.match(r"Value '(.*)' of type '.*' could not be converted to (\w+)", line)
        return f"{key} is {found[1]!r}; it must be {_TYPES.get(found[2], found[2])}" if found else f"{key}: {line}"
    return line


def _missing(key: str, command: Command) -> str:
    flag = next((flag for flag in (*command.flags, command.argument) if flag and flag.key == key), None)
    if flag is None:
        return f"{key} is missing; give it as {key}=..."
    usage = " ".join(dict.fromkeys((flag.name, flag.value)))
    return f"{key} is missing; write psvit-search {command.name} {usage} ({describe(load(command.schema), key)})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
