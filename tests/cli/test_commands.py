"""The table of commands: what it names is there, and every searcher is in it."""

import shlex

import pytest

from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS, Command, find, parts
from psvit.cli.compose import composer, load
from psvit.cli.schema import keys
from psvit.search.searchers import SEARCHERS


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_it_names_is_there(command: Command) -> None:
    assert callable(load(command.task))
    known = set(keys(load(command.schema)))
    for flag in (*command.flags, command.argument):
        assert flag is None or flag.key in known, flag
    named = [flag.name for flag in command.flags]
    assert len(set(named)) == len(named)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_examples_are_understood(command: Command) -> None:
    assert command.examples
    with composer(command) as compose:
        for example in command.examples.values():
            found, words = find(shlex.split(example.partition("psvit-search ")[2]))
            assert found is not None
            flags, overrides = parse(found, words)
            if found == command and "-m" not in flags:
                compose(overrides)


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_is_a_command(name: str) -> None:
    command = COMMANDS[name]
    assert (command.summary, command.examples) == (SEARCHERS[name].summary, SEARCHERS[name].examples)
    assert set(command.settings.split()) > {f"search.{key}" for key in SEARCHERS[name].settings}
    with composer(command) as compose:
        config = compose(["seed=3"])
    assert (config.search.searcher, config.out) == (name, f"runs/default/{name}-seed3")
    assert config.hydra.job.name == name


def test_a_command_is_found_by_one_word_or_two() -> None:
    assert find(["evolve", "--flops", "5M"]) == (COMMANDS["evolve"], ["--flops", "5M"])
    assert find(["detect", "train", "seed=1"]) == (COMMANDS["detect train"], ["seed=1"])
    assert find(["detect", "seed=1"]) == (None, ["seed=1"])
    assert find([]) == (None, [])
    assert parts("detect") == [COMMANDS[f"detect {part}"] for part in ("shapes", "train", "evaluate")]
    assert parts("evolve") == []
