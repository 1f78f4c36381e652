"""Settings as ``conf/`` and overrides make them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from psvit.cli.commands import COMMANDS, Command
from psvit.cli.compose import CONF, choices, composer, load, search_folder
from psvit.cli.compose import settings as compose_settings
from psvit.cli.main import main
from psvit.engine.config import RunConfig
from psvit.search.searchers import SEARCHERS
from psvit.supernet.config import SpaceConfig
from psvit.zoo import SPACES

Settings = Callable[..., Any]


@pytest.mark.parametrize("name", COMMANDS)
def test_cfg_job_shows_all_settings(
    name: str, capsys: pytest.CaptureFixture[str], files: Callable[[], list[str]]
) -> None:
    assert main([*name.split(), "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert set(shown) == {field.name for field in fields(load(COMMANDS[name].schema))}
    assert files() == []


def test_every_dataset_composes_and_chooses_its_recipes() -> None:
    datasets = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
    assert "digits" in datasets
    with composer(COMMANDS["run"]) as compose:
        assert choices("data") == datasets
        for data in datasets:
            config = compose([f"data={data}", "data.root=/images"])
            assert (config.data.name, config.data.root) == (data, "/images")
            for kind in ("supernet", "retrain"):
                own = CONF / "recipe" / kind / f"{data}.yaml"
                written = OmegaConf.load(own if own.exists() else own.with_stem("imagefolder"))
                written.pop("defaults", None)
                assert OmegaConf.merge(config[kind].recipe, written) == config[kind].recipe


def test_a_dataset_without_a_recipe_takes_that_of_imagefolder(
    folder: Path, tasks: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine/data").mkdir(parents=True)
    (folder / "mine/data/flowers.yaml").write_text("name: imagefolder\nroot: /flowers\n")
    words = ["--config-dir", "mine", "data=flowers"]
    assert main(["run", *words]) == 0
    told = {f"recipe@{kind}.recipe={kind}/imagefolder" for kind in ("supernet", "retrain")}
    note, _, given = capsys.readouterr().out.rpartition("; it takes ")
    given, _, large = given.partition(", for thousands of images (for a million: ")
    assert (note, set(given.split())) == ("note: data=flowers has no recipe of its own", told)
    assert set(large.rstrip(")\n").split()) == {choice.replace("imagefolder", "imagenet") for choice in told}
    (folder / "mine/recipe/supernet").mkdir(parents=True)
    (folder / "mine/recipe/supernet/flowers.yaml").write_text("epochs: 7\n")
    assert main(["train-supernet", *words]) == main(["train-supernet", "data=imagefolder"]) == 0
    assert main(["retrain", "--arch", "a", "recipe=retrain/digits", *words]) == 0
    assert capsys.readouterr().out == ""
    run, with_its_own, imagefolder, digits = tasks
    assert (run.data.root, run.supernet.recipe) == ("/flowers", imagefolder.recipe)
    assert run.retrain.recipe.epochs == yaml.safe_load((CONF / "recipe/retrain/imagefolder.yaml").read_text())["epochs"]
    assert (with_its_own.recipe.epochs, digits.recipe.epochs) == (7, 30)


@dataclass
class OwnSettings(RunConfig):
    """Of a command that has no YAML file."""

    number: int = 3


def test_a_command_needs_no_yaml_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up", SimpleNamespace(Schema=OwnSettings))  # type: ignore[arg-type]
    command = Command("made up", "one", "line", task="made_up:task", schema="made_up:Schema", examples={})
    assert compose_settings(command, ["seed=2", "name=x"]) == OwnSettings(name="x", out="runs/x/made-up", seed=2)


def test_imagenet_is_retrained_by_the_deit_recipe(settings: Settings) -> None:
    recipe = settings("retrain", "--arch", "a", "data=imagenet").recipe
    assert settings("retrain", "--arch", "a", "recipe=retrain/deit").recipe == recipe
    # arXiv 2012.12877, table 9
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay) == (300, 1024, 5e-4 * 1024 / 512, 0.05)
    augment = recipe.augment
    assert (augment.mixup, augment.cutmix, augment.erasing, augment.repeats) == (0.8, 1.0, 0.25, 3)
    # rand-m9-mstd0.5 of timm, whose magnitudes end at 10, and which applies an operation with probability 0.5
    randaugment = (augment.randaugment_magnitude, augment.randaugment_std, augment.randaugment_probability)
    assert (augment.randaugment_ops, *randaugment) == (2, 27, 1.5, 0.5)
    assert recipe.ema_decay == 0.99996


def test_cifar100_is_trained_as_cifar10(settings: Settings) -> None:
    assert (
        settings("retrain", "--arch", "a", "data=cifar100").recipe
        == settings("retrain", "--arch", "a", "data=cifar10").recipe
    )


def test_every_named_space_is_a_choice() -> None:
    with composer(COMMANDS["space"]) as compose:
        assert choices("space") == sorted(SPACES)
        for name in ("1d_tiny_16", "2d_base_8"):
            config = compose([f"space={name}", "space.cells=4"])
            assert OmegaConf.to_object(config.space) == SpaceConfig.of(SPACES[name], cells=4)


@pytest.mark.parametrize("command", ["run", "ablate"])
def test_every_searcher_is_a_choice(command: str) -> None:
    with composer(COMMANDS[command]) as compose:
        assert choices("search") == sorted([*SEARCHERS, "auto"])
        for name in choices("search"):
            config = compose([f"search={name}", "search.trials=7"])
            assert (config.search.searcher, config.search.trials) == (name, 7)


def test_experiment(settings: Settings) -> None:
    config = settings("run", "experiment=run/imagenet_1d_tiny_16", "data.root=/in1k", "search.trials=3")
    assert (config.space.name, config.data.name, config.search.budget.flops) == ("1d_tiny_16", "imagenet", "1.3G")
    assert (config.search.trials, config.out) == (3, "runs/imagenet_1d_tiny_16")


def test_distillation_and_fine_tuning_are_composed(settings: Settings) -> None:
    words = ["--name", "in1k", "--arch", "a", "data.root=/in1k"]
    config = settings("retrain", "experiment=retrain/imagenet_distilled", *words)
    assert (config.distill.teacher, config.distill.mode) == ("timm:regnety_160.deit_in1k", "hard")
    assert (config.data.name, config.out) == ("imagenet", "runs/in1k/retrain")
    assert config.recipe == settings("retrain", *words, "data=imagenet").recipe
    tuned = settings("retrain", *words, "--start", "w", "data=imagefolder", "recipe=retrain/finetune")
    assert (tuned.start, tuned.recipe.layer_decay, tuned.recipe.epochs) == ("w", 0.75, 30)


def test_a_users_own_files(folder: Path, tasks: list[Any]) -> None:
    (folder / "mine/recipe").mkdir(parents=True)
    (folder / "mine/recipe/short.yaml").write_text("epochs: 2\n")
    (folder / "mine/space").mkdir()
    (folder / "mine/space/slim.yaml").write_text("name: slim\nkind: 1d\nwidths: [8, 8, 8]\nheads: [1, 1, 1]\n")
    (folder / "mine/search").mkdir()
    (folder / "mine/search/small.yaml").write_text("searcher: random\ntrials: 5\n")
    assert main(["train-supernet", "recipe=short", "--config-dir", "mine", "space=slim"]) == 0
    assert main(["run", "search=small", "--config-dir", "mine"]) == 0
    assert tasks[0].recipe.epochs == 2
    assert tasks[0].space.widths == [8, 8, 8]
    assert (tasks[1].search.searcher, tasks[1].search.trials) == ("random", 5)


def test_steps_find_what_the_step_before_has_left(settings: Settings) -> None:
    supernet = settings("train-supernet", "--name", "x")
    evolve = settings("evolve", "--flops", "1.2G..1.3G", "--name", "x")
    random = settings("random", "--params", "16M", "--name", "x", "seed=2")
    assert supernet.out == evolve.supernet == random.supernet == "runs/x/supernet"
    assert (evolve.out, evolve.search.searcher) == ("runs/x/evolve-1.2G..1.3G", "evolve")
    assert (random.out, random.search.searcher) == ("runs/x/random-16Mparams-seed2", "random")
    assert settings("retrain", "--arch", "a.json", "--name", "x").out == "runs/x/retrain"


def test_search_folders_are_file_names() -> None:
    assert search_folder("evolve", None, None, 0) == "evolve"
    assert search_folder("evolve", "1.3 G", "../16M", 1) == "evolve-1.3G-..16Mparams-seed1"
