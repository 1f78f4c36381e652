"""Flags and settings as Hydra gets them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS
from psvit.cli.faults import UsageError
from psvit.cli.main import main


def test_values_arrive_as_they_were_written(settings: Callable[..., Any]) -> None:
    plain = ["my run", "a,b", "null", "true", "1e3", "007", "1_000", "nan", "-", "ü", " padded ", "1.2G..1.3G"]
    special = ["a=b", "it's", 'say "x"', "back\\slash", "end\\", "[x]", "{y: 1}", "(a)", "a:b", "#x", "$HOME", "a|b%~"]
    for first, second in zip(plain, special, strict=True):
        config = settings("evolve", f"--out={first}", f"--name={second}")
        assert (config.out, config.name) == (first, second)


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        (["evolve", "--flops", "1.3G"], ["search.budget.flops=1.3G"]),
        (["space", "--flops=1.3G", "--json"], ["flops=1.3G", "json=true"]),
        (["evolve", "seed=1", "--supernet", "runs/a"], ["supernet=runs/a", "seed=1"]),
        (["inspect", "arch.json", "--save", "a.png"], ["target=arch.json", "save=a.png"]),
        (["inspect", "--json", "1d_tiny_16:BSB-BB-B"], ["target=1d_tiny_16:BSB-BB-B", "json=true"]),
        (["space", "1d_tiny_16", "space.cells=4"], ["space=1d_tiny_16", "space.cells=4"]),
        (["evaluate", "--split", "search"], ["split=search"]),
        (["evolve", "-m", "--flops", "1G,1.3G"], ["search.budget.flops=1G,1.3G"]),
        (["evolve", "--flops", "1G,1.3G"], ["search.budget.flops='1G,1.3G'"]),
        (["random", "--num-images", "100"], ["search.num_images='100'"]),
    ],
)
def test_flags_become_overrides(arguments: list[str], overrides: list[str]) -> None:
    _, got = parse(COMMANDS[arguments[0]], arguments[1:])
    assert sorted(got) == sorted(overrides)


def test_a_word_with_an_equals_sign_is_a_setting_whatever_lies_there(
    folder: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "seed=1").touch()
    (folder / "lr=1.json").touch()
    assert main(["evolve", "seed=1"]) == 0
    assert tasks[0].seed == 1
    assert main(["inspect", "lr=1.json"]) == 2
    assert "has no setting 'lr'" in capsys.readouterr().err
    assert main(["inspect", "./lr=1.json"]) == 0
    assert tasks[1].target == "./lr=1.json"


@pytest.mark.parametrize(
    "text",
    [
        "# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: pathlib.Path.touch\n      _args_: [made]\n",
        "lr: 0.1\nextra:\n  - {deep: [{_target_: pathlib.Path.touch}]}\n",
        '"\\x5ftarget_": os.system\n',
        "# @package hydra.callbacks.x\nname: y\n",
        "defaults:\n  - override /hydra/callbacks: mine\n",
        "defaults:\n  - /hydra/launcher: mine\n",
        "a: [",
        "a: " + "[" * 3000,
    ],
)
def test_a_strangers_recipe_that_could_start_code_is_refused(
    text: str, folder: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "theirs/recipe").mkdir(parents=True)
    (folder / "theirs/recipe/mine.yaml").write_text(text)
    assert main(["train-supernet", "--config-dir", "theirs", "recipe=mine"]) == 2
    line = capsys.readouterr().err
    assert "theirs/recipe/mine.yaml" in line
    assert line.count("\n") == 1
    assert tasks == []
    assert not (folder / "made").exists()


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x._target_=pathlib.Path.touch",
        "+hydra/callbacks=mine",
        "+recipe.x={_target_:os.system}",
        "++hydra.launcher._target_=os.system",
        "+recipe.x={\\_target_:os.system}",
    ],
)
def test_a_setting_that_could_start_code_is_refused(
    word: str, tasks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-supernet", word]) == 2
    assert "could start any code" in capsys.readouterr().err
    assert tasks == []


class Trap:
    """Unpickling it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--experimental-re", "--exp"])
@pytest.mark.parametrize("joined", [True, False])
def test_no_file_is_unpickled(
    flag: str, joined: bool, folder: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.pickle").write_bytes(pickle.dumps(Trap()))
    words = [f"{flag}=config.pickle"] if joined else [flag, "config.pickle"]
    assert main(["train-supernet", *words]) == 2
    assert capsys.readouterr().err.startswith("psvit-search: --experimental-rerun is refused: it unpickles a file")
    assert main(["-sc", *words]) == 2
    assert main(["train-supernet", "-sc", *words]) == 2
    assert tasks == []
    assert [path.name for path in folder.iterdir()] == ["config.pickle"]


def test_a_flag_that_is_refused_is_not_proposed() -> None:
    with pytest.raises(UsageError, match=r"has no flag --experimental-reruns \('psvit-search retrain --help'.*\)$"):
        parse(COMMANDS["retrain"], ["--experimental-reruns"])
