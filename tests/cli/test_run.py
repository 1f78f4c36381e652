"""``psvit-search run``: its parts get what they need, and its report names the commands that repeat them."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psvit.arch import Architecture
from psvit.archfile import ArchFile, save_arch
from psvit.cli.main import main
from psvit.cli.run import retrain_config, run_all, search_config, supernet_config
from psvit.run.folder import RunFolder, recorded_command
from psvit.zoo import SPACES
from tests.search.builders import claims

REQUESTED = ["run", "search=random", "--flops", "5M", "--name", "x", "supernet.recipe.epochs=7", "seed=1"]
REQUESTED += ["retrain.recipe.epochs=8", "retrain.hold_out=true", "search.trials=9"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Parts that make their run folders and nothing else: command -> the settings that it was called with."""
    seen: dict[str, Any] = {}

    def start(command: str, config: Any) -> Path:
        seen[command] = config
        with RunFolder(Path(config.out), asdict(config)) as run:
            return run.path

    def search(config: Any) -> Any:
        folder = start(config.search.searcher, config)
        save_arch(folder / "arch.json", ArchFile(SPACES["2d_mini_4"], Architecture.parse("BS-B-B")))
        (folder / "scores.png").touch()
        best = SimpleNamespace(architecture="BS-B-B", flops=2_500_000, params=150_000, top1=0.875, loss=0.5)
        return SimpleNamespace(
            folder=folder, arch=folder / "arch.json", best=best, claims=claims(others=50, place=1), preferred=best
        )

    def retrain(config: Any) -> Any:
        folder = start("retrain", config)
        return SimpleNamespace(folder=folder, weights=folder / "model.safetensors", top1=0.9781)

    train_supernet = SimpleNamespace(train_supernet=lambda config: start("train-supernet", config))
    monkeypatch.setitem(sys.modules, "psvit.supernet.train", train_supernet)
    monkeypatch.setattr("psvit.search.run.search", search)
    monkeypatch.setitem(sys.modules, "psvit.retrain.train", SimpleNamespace(retrain=retrain))
    return seen


def test_it_passes_on_what_each_part_needs(seen: dict[str, Any], folder: Path) -> None:
    assert main(REQUESTED) == 0
    assert list(seen) == ["train-supernet", "random", "retrain"]
    assert seen["train-supernet"].recipe.epochs == 7
    assert (seen["retrain"].recipe.epochs, seen["retrain"].hold_out) == (8, True)
    assert (seen["random"].supernet, seen["random"].search.trials) == (seen["train-supernet"].out, 9)
    assert seen["retrain"].arch == "runs/x/random-5M-seed1/arch.json"
    assert {config.seed for config in seen.values()} == {1}
    report = (folder / "runs/x/report.md").read_text()
    for fact in (
        "BS-B-B",
        "top-1 0.9125 (95% interval 0.8900 to 0.9300)",
        "0.9781",
        "at most 5 M",
        "next to 50 random architectures of equal cost (within 2%): place 1 of 51",
        "![scores](random-5M-seed1/scores.png)",
    ):
        assert fact in report


def test_the_commands_in_its_report_repeat_the_parts(
    seen: dict[str, Any], folder: Path, settings: Callable[..., Any]
) -> None:
    assert main(REQUESTED) == 0
    lines = (folder / "runs/x/report.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("psvit-search ")]
    assert commands == [recorded_command(Path(config.out)) for config in seen.values()]
    for line in commands:
        words = shlex.split(line)[1:]
        assert settings(*words) == seen.pop(words[0])
    assert not seen


def test_it_records_the_parts_commands_when_called_as_a_function(
    seen: dict[str, Any], folder: Path, settings: Callable[..., Any]
) -> None:
    run_all(settings(*REQUESTED))
    assert recorded_command(folder / "runs/x/supernet") == (
        "psvit-search train-supernet --name x seed=1 recipe.epochs=7"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flops", "1M"], "meets FLOPs at most 1 M: the space reaches 2.1449 M"),
        (["--flops", "5M", "search.num_images=20"], "a search scores on 20 images; it needs 36 at least"),
        (["--flops", "5M", "data.search_fraction=0.04", "final=4"], "images to judge a final; it needs 36"),
    ],
)
def test_what_a_later_part_would_refuse_is_refused_before_the_first(
    seen: dict[str, Any], words: list[str], message: str, capsys: pytest.CaptureFixture[str], files: Callable[[], list]
) -> None:
    assert main(["run", *words]) == 2
    assert message in capsys.readouterr().err
    assert not seen
    assert files() == []


def test_a_class_without_test_images_is_found_before_the_first_part(
    seen: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 200), ("val", 5)):
        for name in ("ant", "bee"):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count if (split, name) != ("val", "bee") else 0):
                (folder / f"images/{split}/{name}/{number}.png").touch()
    assert main(["run", "--flops", "5M", "data=imagefolder", f"data.root={folder}/images"]) == 2
    assert "class folder " in (line := capsys.readouterr().err)
    assert "val/bee has no images" in line
    assert not seen


def test_a_final_is_held_between_search_and_retraining(
    seen: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., Any]
) -> None:
    from psvit.search import finals

    def hold(config: Any) -> Any:
        seen["finals"] = config
        with RunFolder(Path(config.out), asdict(config)) as run:
            save_arch(run.path / "arch.json", ArchFile(SPACES["2d_mini_4"], Architecture.parse("B-B-B")))
            record = SimpleNamespace(lines=["winner of the final: B-B-B", "it changed the winner", "..."])
            return SimpleNamespace(folder=run.path, arch=run.path / "arch.json", record=record)

    monkeypatch.setattr(finals, "finals", hold)
    assert main([*REQUESTED, "final=4"]) == 0
    assert list(seen) == ["train-supernet", "random", "finals", "retrain"]
    held, search = seen["finals"], seen["random"]
    assert (held.run, held.out, held.keep, held.seed) == (search.out, f"{search.out}/final", 4, 1)
    assert held.recipe == seen["retrain"].recipe
    assert seen["retrain"].arch == f"{held.out}/arch.json"
    report = (folder / "runs/x/report.md").read_text()
    assert "winner of the final: B-B-B; it changed the winner" in report
    line = recorded_command(Path(held.out))
    assert line is not None
    assert line in report
    assert settings(*shlex.split(line)[1:]) == held


def test_a_sweep_goes_on_behind_a_job_that_composes_other_commands(seen: dict[str, Any], folder: Path) -> None:
    assert main([*(word for word in REQUESTED if word != "seed=1"), "-m", "seed=0,1"]) == 0
    assert (seen["retrain"].seed, seen["retrain"].out) == (1, "runs/x/1/retrain")
    assert (folder / "runs/x/0/report.md").exists()


def test_a_searcher_is_chosen_once(
    seen: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from psvit.search import auto

    monkeypatch.setattr(auto, "choose", lambda *arguments: auto.Choice("exhaustive", "few are within the budget"))
    assert main(["run", "--flops", "5M"]) == 0
    assert "search=auto: few are within the budget: exhaustive\n" in capsys.readouterr().out
    assert (seen["exhaustive"].out, seen["exhaustive"].search.searcher) == ("runs/default/exhaustive-5M", "exhaustive")
    monkeypatch.setattr(auto, "choose", pytest.fail)
    assert main(["run", "--flops", "5M"]) == 0


def test_it_refuses_several_processes(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert main(["run"]) == 2
    assert "torchrun" in capsys.readouterr().err
    assert not seen


def test_it_and_its_parts_have_the_same_defaults(settings: Callable[..., Any]) -> None:
    whole = settings("run", "search=evolve")
    supernet, search, retrain = settings("train-supernet"), settings("evolve"), settings("retrain", "--arch", "a.json")
    assert supernet_config(whole) == supernet
    assert search_config(whole) == search
    assert retrain_config(whole, Path("a.json")) == retrain
