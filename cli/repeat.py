"""The line that repeats a run."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from psvit.cli.commands import Command
from psvit.cli.compose import choices, composer
from psvit.cli.grammar import write
from psvit.run.folder import flatten

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Groups of conf/ that many settings follow from, and the setting that names the choice; a scale chooses the data, too.
_GROUPS = {"scale": "scale.name", "space": "space.name", "data": "data.name", "search": "search.searcher"}


def command_line(command: Command, config: Any) -> str:
    """The shortest command line that runs a command with exactly these settings (an instance of its schema)."""
    wanted = flatten(asdict(config))
    with composer(command) as compose:
        words: dict[str, str] = {}  # key -> value in Hydra's grammar
        given = compose([])
        steps = [partial(_chosen, wanted, group) for group in _GROUPS]
        # first what stands on its own, then what may follow from it
        steps += [partial(_differing, wanted, derived) for derived in (False, True)]
        for step in steps:
            if more := step(given):
                words |= more
                given = compose([f"{key}={value}" for key, value in words.items()])
    flags = {flag.key: flag.name for flag in command.flags if flag.value}
    if command.argument:
        flags[command.argument.key] = ""
    short = [f"{flags[key]} {shlex.quote(str(wanted[key]))}".lstrip() for key in words if key in flags]
    long = [shlex.quote(f"{key}={value}") for key, value in words.items() if key not in flags]
    return " ".join(["psvit-search", command.name, *short, *long])


def _chosen(wanted: dict[str, Any], group: str, given: DictConfig) -> dict[str, str]:
    """The choice of a group, unless it is as given: group -> name."""
    name = wanted.get(_GROUPS[group])
    return {group: name} if name in choices(group) and name != given.hydra.runtime.choices[group] else {}


def _differing(wanted: dict[str, Any], derived: bool, given: DictConfig) -> dict[str, str]:
    """Settings that are not as given: key -> value in Hydra's grammar; interpolated ones only if ``derived``."""
    from omegaconf import OmegaConf

    words = {}
    for key, value in wanted.items():
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(given, parent) if parent else given
        if not derived and OmegaConf.is_interpolation(node, leaf):
            continue
        current = None if OmegaConf.is_missing(node, leaf) else OmegaConf.select(given, key)
        if (OmegaConf.to_container(current) if OmegaConf.is_config(current) else current) != value:
            words[key] = write(value)
    return words
