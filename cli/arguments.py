"""A command's words as the flags and overrides that Hydra knows."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from psvit.cli.commands import Command
from psvit.cli.faults import UsageError, did_you_mean, where_settings_are
from psvit.cli.grammar import quote
from psvit.data.names import printable

RERUN = "--experimental-rerun"  # of Hydra: it unpickles a file
_STARTS_CODE = "_target_"  # what Hydra takes for the name of something to call


def parse(command: Command, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's words as flags of Hydra's and as overrides; Hydra wants the flags first.

    Raises:
        UsageError: an unknown flag, a flag without its value, or a word that is neither flag nor ``key=value``.
    """
    ours, hydras = _parsers(command)
    short, rest = ours.parse_known_args(words)
    known, unknown = hydras.parse_known_intermixed_args(rest)
    if unknown:
        name = unknown[0].partition("=")[0]
        options = [*ours._option_string_actions, *hydras._option_string_actions]
        guess = did_you_mean(name, [option for option in options if option != RERUN])
        raise UsageError(f"{command.name} has no flag {name} ('psvit-search {command.name} --help' lists them){guess}")
    if known.experimental_rerun is not None:
        raise UsageError(f"{RERUN} is refused: it unpickles a file, which may run any code; give the settings instead")
    for folder in (known.config_dir, known.config_path):
        if folder is not None:
            check_recipes(Path(folder))
    for word in known.overrides:
        if _STARTS_CODE in word.replace("\\", "") or re.match(r"[+~]*hydra[./]callbacks", word):
            raise UsageError(f"{printable(word)} is refused: it could start any code; give plain values")
    plain = [word for word in known.overrides if _is_bare(word)]
    flags = [word for word in rest if word not in known.overrides]
    overrides = [word for word in known.overrides if word not in plain]
    given = {key: value for key, value in vars(short).items() if value is not None}
    if command.argument and plain:
        given = {command.argument.key: plain.pop(0), **given}
    if command.more and plain:
        overrides.insert(0, f"{command.more.key}=[{','.join(quote(word, sweep=False) for word in plain)}]")
        plain = []
    if plain:
        raise UsageError(f"{plain[0]!r} is not a setting; write settings as key=value{where_settings_are(command)}")
    switches = {flag.key for flag in command.flags if not flag.value}
    short_overrides = [
        f"{key}={value if key in switches else quote(value, sweep=known.multirun)}" for key, value in given.items()
    ]
    return flags, short_overrides + overrides


def check_recipes(folder: Path) -> None:
    """Refuse YAML files that could let Hydra start code: by ``_target_``, or by settings of Hydra's own.

    Launchers and sweepers stay possible by their names, on the command line: ``hydra/launcher=submitit_slurm``.

    Raises:
        UsageError: a file below the folder has such a key, or cannot be read.
    """
    for path in sorted(folder.rglob("*.y*ml")):
        try:
            text = path.read_text(encoding="utf-8")
            keys = set(_keys(yaml.safe_load(text)))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise UsageError(f"cannot read {path}: {reason}; fix it, or move it out of --config-dir") from error
        keys |= {line.partition("@package")[2].strip() for line in text.splitlines() if line.startswith("#")}
        if any(key == _STARTS_CODE or re.match(r"(override +)?/?hydra\b", key) for key in keys):
            raise UsageError(
                f"{path} is refused: it holds {_STARTS_CODE} or settings of Hydra's own, which could start any code; a "
                "recipe has plain values"
            )


def _keys(node: Any) -> Iterator[str]:
    """Every key in a YAML document, and what its lists name."""
    if isinstance(node, dict):
        yield from map(str, node)
        for value in node.values():
            yield from _keys(value)
    elif isinstance(node, list):
        for each in node:
            yield from _keys(each)
    elif isinstance(node, str):
        yield node


def _parsers(command: Command) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """One for the flags of the command, one for Hydra's; both raise their errors."""
    from hydra._internal.utils import get_args_parser

    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in command.flags:
        if flag.value:
            ours.add_argument(flag.name, dest=flag.key)
        else:
            ours.add_argument(flag.name, dest=flag.key, action="store_const", const="true")
    hydras = get_args_parser()
    for parser in (ours, hydras):
        parser.error = _refuse  # type: ignore[method-assign]
    return ours, hydras


def _refuse(message: str) -> NoReturn:
    raise UsageError(message)


def _is_bare(word: str) -> bool:
    """Whether a word is an argument of its own, and not ``key=value`` or ``~key``.

    Whatever lies in the working folder: a file whose name has a ``=`` is written ``./a=b.json``.
    """
    return not word.startswith("~") and ("=" not in word or word.startswith(("/", "./", "../")))
