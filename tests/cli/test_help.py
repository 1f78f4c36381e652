"""What ``--help`` prints: everything that it names, with the defaults that are so, in 100 columns."""

from collections.abc import Callable

import pytest
import yaml

from psvit.cli.commands import COMMANDS
from psvit.cli.compose import CONF, load
from psvit.cli.help import help_of
from psvit.cli.main import main
from psvit.cli.schema import describe
from psvit.paper.published import ABLATIONS


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(f"  {command.name} " in text and command.summary in text for command in COMMANDS.values())
    assert 'eval "$(psvit-search -sc install=bash)"' in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str], files: Callable[[], list[str]]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    command = COMMANDS[name]
    assert all(f"\n  {flag.name} " in text for flag in command.flags)
    assert all(f"\n  {key}=" in text for key in command.settings.split())
    assert f"psvit-search {name} --cfg job" in text
    assert "experimental-rerun" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert files() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_and_setting_is_explained_by_its_docstring(name: str) -> None:
    command, text = COMMANDS[name], " ".join(help_of(COMMANDS[name]).split())
    flags = [flag for flag in (*command.flags, command.argument) if flag]
    for key in [*command.settings.split(), *(flag.key for flag in flags)]:
        if key == "experiment":  # a group without a setting of its own
            continue
        documented = describe(load(command.schema), key.partition("@")[2] or key)
        assert documented, key
        assert documented in text, key


def test_help_shows_the_defaults_of_the_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((CONF / "recipe/supernet/digits.yaml").read_text())
    main(["train-supernet", "--help"])
    text = capsys.readouterr().out
    assert f"recipe.epochs={recipe['epochs']} " in text
    assert "seed=0 " in text
    datasets = ", ".join(sorted(path.stem for path in (CONF / "data").glob("*.yaml")))
    assert f"choices: {datasets}" in " ".join(text.split())
    assert "(default: runs/default/supernet)" in text


def test_help_says_what_is_required() -> None:
    text = help_of(COMMANDS["evaluate"])
    assert "its trained weights, a model.safetensors (required)" in text
    assert "images to score on: test, search or train (default: test)" in text
    assert "inspect TARGET [FLAGS]" in help_of(COMMANDS["inspect"])
    assert "space [NAME] [FLAGS]" in help_of(COMMANDS["space"])


def test_the_argument_of_ablate_names_all_tables() -> None:
    text = help_of(COMMANDS["ablate"])
    assert all(name in text.partition("Flags:")[0] for name in [*ABLATIONS, "all"])


def test_examples_are_not_cut_between_a_flag_and_its_value() -> None:
    text = help_of(COMMANDS["retrain"])
    assert "--arch runs/default/exhaustive-5M/arch.json \\\n      --start inherited.safetensors\n" in text
    assert "\0" not in text


def test_commands_of_two_words_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "--help"]) == 0
    overview = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert (name in overview and command.summary in overview) == name.startswith("detect ")
    assert main(["detect", "train", "--help"]) == 0
    assert "Usage: psvit-search detect train" in capsys.readouterr().out
