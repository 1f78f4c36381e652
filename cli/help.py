"""What ``--help`` prints. Settings and flags are explained by the docstrings of their schemas."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import psvit
from psvit.cli.commands import COMMANDS, Command, Flag, parts
from psvit.cli.compose import choices, composer, load
from psvit.cli.grammar import write
from psvit.cli.schema import describe

if TYPE_CHECKING:
    from omegaconf import DictConfig

WIDTH = 100  # columns
_EXPERIMENT = "preset from conf/experiment for all settings at once"  # a group without a setting of its own


def overview() -> str:
    """The help of the program: what it does, and all its commands."""
    return f"""\
psvit-search {psvit.__version__}: search for the best vision transformer within a budget (PSViT, arXiv 2108.03428)

It trains one supernet that holds every architecture of a space, searches it for the best one within
your budget of FLOPs, parameters or latency, and retrains the winner from scratch. Unless told
otherwise it works on handwritten digits that come with the package, on a CPU or a GPU.

All at once, a few minutes on a laptop:
  psvit-search run --flops 5M

Or in three steps; each one finds the output of the one before:
  psvit-search train-supernet
  psvit-search exhaustive --flops 5M
  psvit-search retrain --arch runs/default/exhaustive-5M/arch.json

Your own images, one folder per class:
  psvit-search run --flops 5M --name mine data=imagefolder data.root=/path/to/images

Commands ('psvit-search COMMAND --help' explains each):
{_table([(command.name, command.summary) for command in COMMANDS.values()])}

Results go to runs/NAME/ (--name NAME, else "default"): supernet/, exhaustive-5M/ and retrain/, and
run adds report.md. The same command run again resumes where it stopped.

Settings are written key=value after the command, such as seed=1 or recipe.epochs=30; Hydra
(https://hydra.cc) reads them. With every command:
  --cfg job         print all settings and run nothing
  -m seed=1,2,3     run once per value
  --config-dir DIR  use YAML files of your own: recipe=mine is DIR/recipe/mine.yaml

Completion in bash, for settings too:
  eval "$(psvit-search -sc install=bash)\""""


def overview_of(name: str) -> str:
    """The help of the first word of commands of two words."""
    table = _table([(command.name, command.summary) for command in parts(name)])
    return f"Commands ('psvit-search {name} COMMAND --help' explains each):\n{table}"


def help_of(command: Command) -> str:
    """The help of a command."""
    with composer(command) as compose:
        page = _Page(command, compose([]))
        arguments = page.flags([each for each in (command.argument, command.more) if each])
        flags = page.flags(command.flags)
        settings = [page.setting(key) for key in command.settings.split()]
    usage = f"Usage: psvit-search {command.name} {page.argument}[FLAGS] [key=value ...]"
    sections = [textwrap.fill(command.about, WIDTH, break_on_hyphens=False), usage]
    if arguments:
        sections.append("Argument:\n" + _table(arguments))
    sections.append("Flags:\n" + _table([*flags, ("-h, --help", "this text")]))
    if settings:
        sections.append("Useful settings, with their defaults:\n" + _table(settings))
    examples = [f"  # {what}\n{_wrap_command(line)}" for what, line in command.examples.items()]
    sections.append("Examples:\n" + "\n".join(examples))
    sections.append(
        f"All settings:     psvit-search {command.name} --cfg job\n"
        f"Once per value:   psvit-search {command.name} ... -m key=a,b,c"
    )
    return "\n\n".join(sections)


class _Page:
    """Rows of a command's help.

    Args:
        command: the command.
        config: its defaults, as Hydra composes them.
    """

    def __init__(self, command: Command, config: DictConfig) -> None:
        self._command, self._config = command, config
        self._schema = load(command.schema)
        self._chosen = config.hydra.runtime.choices

    @property
    def argument(self) -> str:
        """The argument as the usage shows it."""
        argument = self._command.argument
        more = f"{self._command.more.value} " if self._command.more else ""
        if argument is None:
            return more
        return (f"{argument.value} " if self._default(argument.key) == "???" else f"[{argument.value}] ") + more

    def flags(self, flags: Sequence[Flag]) -> list[tuple[str, str]]:
        """What to write, and what it is for, with its default or a word that it has none."""
        rows = []
        for flag in flags:
            default = self._default(flag.key)
            note = ""
            if default == "???":
                note = " (required)"
            elif flag.value and default is not None:
                note = f" (default: {default})"
            rows.append((" ".join(dict.fromkeys((flag.name, flag.value))).rstrip(), self._text(flag.key) + note))
        return rows

    def setting(self, key: str) -> tuple[str, str]:
        """A setting with its default, and what it is for."""
        return f"{key}={write(self._default(key))}", self._text(key)

    def _default(self, key: str) -> Any:
        """The chosen name of a group, or a value (the term of one that follows from others); ``???`` if required."""
        from omegaconf import OmegaConf
        from omegaconf.errors import InterpolationToMissingValueError

        if key in self._chosen:
            return self._chosen[key]
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(self._config, parent) if parent else self._config
        if OmegaConf.is_missing(node, leaf):
            return "???"
        try:
            return OmegaConf.select(self._config, key)
        except InterpolationToMissingValueError:  # such as ${run}/final, where the run is required
            terms = cast("dict[str, str]", OmegaConf.to_container(self._config, resolve=False))
            return re.sub(r"\$\{(\w+)\}", lambda match: match[1].upper(), terms[key])

    def _text(self, key: str) -> str:
        """A setting's help; of a group, with the names in it."""
        if key not in self._chosen:
            return describe(self._schema, key)
        group, _, place = key.partition("@")
        text = _EXPERIMENT if group == "experiment" else describe(self._schema, place or group)
        return text if place else f"{text}; choices: {', '.join(self._choices(group))}"

    def _choices(self, group: str) -> list[str]:
        if group not in ("recipe", "experiment"):
            return choices(group)
        # a folder for each command that has some
        chosen, name = str(self._chosen[group]), self._command.name
        folder = chosen.partition("/")[0] if group == "recipe" else name.partition(" ")[0]
        return [f"{folder}/{choice}" for choice in choices(f"{group}/{folder}")]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the second one wrapped."""
    column = max(len(left) for left, _ in rows) + 4
    return "\n".join(
        textwrap.fill(
            right,
            WIDTH,
            initial_indent=f"  {left}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        for left, right in rows
    )


def _wrap_command(line: str) -> str:
    """A command, cut where a shell allows it, but not between a flag and its value."""
    whole = re.sub(r"(--\S+) (?=[^-])", "\\1\0", line)
    lines = textwrap.wrap(whole, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return "  " + " \\\n      ".join(lines).replace("\0", " ")
