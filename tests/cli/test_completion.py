"""Completion in the shell."""

import pytest

from psvit.cli.commands import COMMANDS
from psvit.cli.main import main


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("psvit-search ", {name.partition(" ")[0] for name in COMMANDS}),
        ("psvit-search e", ["evolve", "evaluate", "exhaustive", "export", "explain"]),
        ("psvit-search detect ", ["evaluate", "shapes", "train"]),
        ("psvit-search detect t", ["train"]),
        ("psvit-search detect train --st", ["--start"]),
        ("psvit-search train-supernet space=1d_tiny", ["space=1d_tiny_16", "space=1d_tiny_8"]),
        ("psvit-search run search=e", ["search=evolve", "search=exhaustive"]),
        ("psvit-search evolve --flops 5M search.pop", ["search.population="]),
        ("psvit-search evolve --fl", ["--flops"]),
        ("psvit-search evolve --exp", []),
        ("psvit-search retrain --arch ", []),
        ("psvit-search nonsense da", []),
        ("psvit-search run retrain.recipe.ep", ["retrain.recipe.epochs="]),
    ],
)
def test_completion(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(expected)


def test_completion_is_installed_for_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", "install=bash"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("hydra_bash_completion psvit-search")
