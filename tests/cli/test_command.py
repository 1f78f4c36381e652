"""The command `psvit-search`: help, flags, settings, faults, sweeps and completion; tasks are stood in for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from psvit.arch import Architecture
from psvit.archfile import ArchFile, save_arch
from psvit.cli import command as psvit_search
from psvit.cli import run as pipeline
from psvit.cli.command import COMMANDS, CONF, Command, command_line, composer, main, parse, search_folder
from psvit.run.signals import Stopped
from psvit.supernet.config import SpaceConfig
from psvit.zoo import SPACES

DATASETS = ("digits", "imagefolder", "imagenet", "packed", "webdataset", "cifar10", "cifar100")
# what must be said for the settings to be complete
REQUIRED = {
    "inherit": ["--arch", "a.json", "--save", "w"],
    "retrain": ["--arch", "a.json"],
    "evaluate": ["--arch", "a.json", "--weights", "w"],
    "explain": ["--arch", "a.json", "--weights", "w"],
    "inspect": ["a.json"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no trace of torchrun."""
    monkeypatch.chdir(tmp_path)
    for key in ("RANK", "WORLD_SIZE", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(sys, "argv", ["psvit-search"])
    return tmp_path


def stand_in(monkeypatch: pytest.MonkeyPatch, task: Callable[[Any], Any]) -> None:
    """Let ``task`` stand in for every task."""
    tasks = {command.task for command in COMMANDS.values()}
    load = psvit_search._load
    monkeypatch.setattr(psvit_search, "_load", lambda name: task if name in tasks else load(name))


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings that tasks were called with."""
    called: list[Any] = []
    stand_in(monkeypatch, called.append)
    return called


def settings(*words: str) -> Any:
    """What a command line gives its task, composed without a run of Hydra."""
    command = COMMANDS[words[0]]
    with composer(command) as compose:
        config = compose(parse(command, words[1:])[1])
        del config.hydra
        return OmegaConf.to_object(config)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(f"  {command.name} " in text and command.summary in text for command in COMMANDS.values())
    assert 'eval "$(psvit-search -sc install=bash)"' in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_subcommand(name: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(flag.name in text for flag in COMMANDS[name].flags)
    assert all(f"\n  {key}=" in text for key in COMMANDS[name].settings.split())
    assert f"psvit-search {name} --cfg job" in text
    assert max(map(len, text.splitlines())) <= 100
    assert files(folder) == []


def test_help_shows_the_defaults_of_the_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((CONF / "recipe/supernet/digits.yaml").read_text())
    main(["train-supernet", "--help"])
    text = capsys.readouterr().out
    assert f"recipe.epochs={recipe['epochs']} " in text
    assert "seed=0 " in text
    assert ", ".join(sorted(DATASETS)) in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_examples_of_the_help_are_understood(command: Command) -> None:
    with composer(command) as compose:
        for example in command.examples.values():
            found, words = psvit_search._find(shlex.split(example.partition("psvit-search ")[2]))
            assert found is not None
            flags, overrides = parse(found, words)
            if found == command and "-m" not in flags:
                compose(overrides)


def test_commands_of_two_words_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "--help"]) == 0
    overview = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert (name in overview and command.summary in overview) == name.startswith("detect ")
    assert main(["detect", "train", "--help"]) == 0
    assert "Usage: psvit-search detect train" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("psvit-search 0.")


def test_no_torch_before_a_task_starts() -> None:
    """Help, completion, --cfg and faults must be instant."""
    script = """
import os, sys
from psvit.cli import command as psvit_search
os.environ["COMP_LINE"] = "psvit-search train-supernet spa"
for words in (["--help"], ["-sc", "query=bash"], ["evaluate"], ["evolve", "search.population=abc"],
              ["run", "--help"], ["train-supernet", "--cfg", "job"]):
    psvit_search.main(words)
for name in psvit_search.COMMANDS:
    psvit_search._register(psvit_search.COMMANDS[name])
assert not {"torch", "pandas", "matplotlib"} & set(sys.modules), "loaded"
"""
    home = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(home)}, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("name", COMMANDS)
def test_cfg_job_shows_all_settings(name: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main([name, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    schema = psvit_search._load(COMMANDS[name].schema)
    assert set(shown) == {field.name for field in fields(schema)}
    assert files(folder) == []


def test_every_dataset_composes_and_chooses_its_recipes() -> None:
    with composer(COMMANDS["run"]) as compose:
        for data in DATASETS:
            config = compose([f"data={data}", "data.root=/images"])
            assert (config.data.name, config.data.root) == (data, "/images")
            for kind in ("supernet", "retrain"):
                written = OmegaConf.load(CONF / "recipe" / kind / f"{data}.yaml")
                written.pop("defaults", None)
                assert OmegaConf.merge(config[kind].recipe, written) == config[kind].recipe


def test_imagenet_is_retrained_by_the_deit_recipe() -> None:
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


def test_cifar100_is_trained_as_cifar10() -> None:
    assert (
        settings("retrain", "--arch", "a", "data=cifar100").recipe
        == settings("retrain", "--arch", "a", "data=cifar10").recipe
    )


def test_every_named_space_is_a_choice() -> None:
    with composer(COMMANDS["space"]) as compose:
        assert psvit_search._choices("space") == sorted(SPACES)
        for name in ("1d_tiny_16", "2d_base_8"):
            config = compose([f"space={name}", "space.cells=4"])
            assert OmegaConf.to_object(config.space) == SpaceConfig.of(SPACES[name], cells=4)


def test_experiment() -> None:
    config = settings("run", "experiment=run/imagenet_1d_tiny_16", "data.root=/in1k", "search.trials=3")
    assert (config.space.name, config.data.name, config.search.budget.flops) == ("1d_tiny_16", "imagenet", "1.3G")
    assert (config.search.trials, config.out) == (3, "runs/imagenet_1d_tiny_16")


def test_distillation_and_fine_tuning_are_composed() -> None:
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
    assert main(["train-supernet", "recipe=short", "--config-dir", "mine", "space=slim"]) == 0
    assert tasks[0].recipe.epochs == 2
    assert tasks[0].space.widths == [8, 8, 8]


def test_steps_find_what_the_step_before_has_left() -> None:
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


# ------------------------------------------------------------------------------------------------ flags


def test_values_arrive_as_they_were_written() -> None:
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
    ],
)
def test_flags_become_overrides(arguments: list[str], overrides: list[str]) -> None:
    _, got = parse(COMMANDS[arguments[0]], arguments[1:])
    assert sorted(got) == sorted(overrides)


def test_a_file_with_an_equals_sign_is_an_argument(folder: Path, tasks: list[Any]) -> None:
    (folder / "lr=1.json").touch()
    assert main(["inspect", "lr=1.json"]) == 0
    assert tasks[0].target == "lr=1.json"


def test_sweep_with_overrides_before_and_behind_the_flag(folder: Path, tasks: list[Any]) -> None:
    assert main(["random", "search.trials=3", "-m", "seed=0,1,2", "--flops", "5M", "--out", "o"]) == 0
    assert [(config.seed, config.search.trials, config.out) for config in tasks] == [
        (0, 3, "o/0"),
        (1, 3, "o/1"),
        (2, 3, "o/2"),
    ]
    assert ".hydra" not in " ".join(files(folder))


def test_sweep_over_a_flag(tasks: list[Any]) -> None:
    assert main(["evolve", "--flops", "4M,5M", "-m"]) == 0
    assert [(config.search.budget.flops, config.out) for config in tasks] == [
        ("4M", "runs/default/evolve-4M/0"),
        ("5M", "runs/default/evolve-5M/1"),
    ]


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("evolv", ["'evolv'", "did you mean evolve?"]),
        ("--flops 5M evolve", ["--flops", "psvit-search --help"]),
        ("detect", ["write psvit-search detect and one of", "train", "evaluate", "shapes"]),
        ("detect tain --name x", ["write psvit-search detect and one of", "train"]),
        ("evolve --flopz 5M", ["--flopz", "did you mean --flops?"]),
        ("evolve --flops", ["--flops"]),
        ("evolve --cfg jobs", ["--cfg", "jobs"]),
        ("evolve stray", ["'stray'", "key=value"]),
        ("evolve +search.popluation=5", ["search.popluation", "did you mean search.population?"]),
        ("evolve search.population=abc", ["search.population", "'abc'", "whole number"]),
        ("train-supernet recipe.lr=fast", ["recipe.lr", "'fast'", "a number"]),
        ("evolve search.population=0", ["search.population", "at least 1"]),
        ("evolve space=1d_tiny_16", ["evolve has no setting 'space'"]),
        ("space 1d_tiny", ["space=1d_tiny", "1d_tiny_16"]),
        ("evaluate data=imagenets", ["data=imagenets", "imagenet"]),
        ("evaluate batch_size=1,2", ["batch_size=1,2", "-m"]),
        ("evaluate data=[1", ["'data=[1'", "quotes"]),
        ("evaluate data.root=${oc.env:NO_SUCH_VARIABLE} --arch a --weights w", ["NO_SUCH_VARIABLE"]),
        ("inspect --config-dir nowhere", ["nowhere"]),
        ("retrain", ["arch", "--arch NET"]),
        ("evaluate --arch a.json", ["weights", "--weights FILE"]),
        ("inspect", ["inspect TARGET"]),
        ("evaluate --arch a --weights w --split tests", ["split", "'tests'"]),
    ],
)
def test_faults_take_one_line(
    arguments: str, words: list[str], tasks: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert (tasks, files(folder)) == ([], [])


def test_a_fault_that_a_task_finds(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def task(config: Any) -> None:
        raise ValueError("the budget is too small; give 2.1 M at least")

    stand_in(monkeypatch, task)
    assert main(["evolve", "--flops", "1M"]) == 2
    assert capsys.readouterr().err == "psvit-search: the budget is too small; give 2.1 M at least\n"
    assert files(folder) == []
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="too small"):
        main(["evolve", "--flops", "1M"])


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(config: Any) -> None:
        raise RuntimeError("shapes do not match")

    stand_in(monkeypatch, task)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["evolve"])


def test_a_failed_job_of_a_sweep_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def task(config: Any) -> None:
        if config.seed == 1:
            raise ValueError("no")
        done.append(config.seed)

    stand_in(monkeypatch, task)
    assert main(["evolve", "-m", "seed=0,1,2"]) == 2
    assert done == [0, 2]
    assert "psvit-search: no\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [Stopped("stopped; the same command goes on"), KeyboardInterrupt()])
def test_stopped(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def task(config: Any) -> None:
        raise error

    stand_in(monkeypatch, task)
    assert main(["train-supernet"]) == 130
    assert capsys.readouterr().err.count("\n") <= 1


# ------------------------------------------------------------------------------------------------ what is left behind


def test_hydra_leaves_nothing_behind(tasks: list[Any], folder: Path) -> None:
    for words in ("train-supernet", "inspect a.json", "inspect a.json -m json=false,true"):
        assert main(words.split()) == 0
        assert files(folder) == [], words
    assert len(tasks) == 4
    assert main(["random", "-m", "seed=0,1", "--out", "o"]) == 0
    assert files(folder) == ["o", "o/0", "o/1", "o/multirun.yaml"]


def test_inspect_and_space_leave_nothing_behind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "deit_tiny_16"]) == 0
    assert "5,717,416" in capsys.readouterr().out
    assert main(["space", "1d_tiny_16", "--flops", "1.3G"]) == 0
    assert "250,047" in capsys.readouterr().out
    assert files(folder) == []


def test_only_one_process_of_a_sweep_writes(
    monkeypatch: pytest.MonkeyPatch, tasks: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train-supernet", "-m", "seed=0,1"]) == 0
    assert [config.out for config in tasks] == ["runs/default/supernet/0", "runs/default/supernet/1"]
    left = [file for file in files(folder) if (folder / file).is_file()]
    assert left == []
    assert main(["retrain"]) == 2
    assert capsys.readouterr().err.startswith("psvit-search (process 1): ")


# ------------------------------------------------------------------------------------------------ completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("psvit-search ", {name.partition(" ")[0] for name in COMMANDS}),
        ("psvit-search e", ["evolve", "evaluate", "exhaustive", "explain"]),
        ("psvit-search detect ", ["evaluate", "shapes", "train"]),
        ("psvit-search detect t", ["train"]),
        ("psvit-search detect train --st", ["--start"]),
        ("psvit-search train-supernet space=1d_tiny", ["space=1d_tiny_16", "space=1d_tiny_8"]),
        ("psvit-search evolve --flops 5M search.pop", ["search.population="]),
        ("psvit-search evolve --fl", ["--flops"]),
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


# ------------------------------------------------------------------------------------------------ run


@pytest.mark.parametrize(
    "arguments",
    [
        "train-supernet --name x space=1d_tiny_16 space.widths=[192,256,384] data=cifar10 data.root=/c seed=3",
        "train-supernet --out o recipe=supernet/imagefolder recipe.clip_norm=1.5 paths=batch",
        "evolve --flops 1.2G..1.3G --supernet 'my runs/supernet' --name x search.mutation=0.25 seed=1",
    ],
)
def test_command_line_repeats_a_run(arguments: str) -> None:
    words = shlex.split(arguments)
    config = settings(*words)
    repeated = command_line(COMMANDS[words[0]], config)
    assert settings(*shlex.split(repeated)[1:]) == config
    assert "--out" not in repeated or "--out" in arguments


def test_run_passes_on_what_each_part_needs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    seen: dict[str, Any] = {}

    def train_supernet(config: Any) -> Path:
        seen["train-supernet"] = config
        return Path(config.out)

    def search(config: Any) -> Any:
        seen["random"] = config
        arch = Path(config.out) / "arch.json"
        save_arch(arch, ArchFile(SPACES["2d_mini_4"], Architecture.parse("BS-B-B")))
        (arch.parent / "scores.png").touch()
        best = SimpleNamespace(architecture="BS-B-B", flops=2_500_000, params=150_000, top1=0.875, loss=0.5)
        return SimpleNamespace(folder=arch.parent, arch=arch, best=best, comparison="place 1 among 50")

    def retrain(config: Any) -> Any:
        seen["retrain"] = config
        return SimpleNamespace(folder=Path(config.out), weights=Path(config.out) / "model.safetensors", top1=0.9781)

    monkeypatch.setitem(sys.modules, "psvit.supernet.train", SimpleNamespace(train_supernet=train_supernet))
    monkeypatch.setitem(sys.modules, "psvit.search.run", SimpleNamespace(search=search))
    monkeypatch.setitem(sys.modules, "psvit.retrain.train", SimpleNamespace(retrain=retrain))
    arguments = ["run", "search=random", "--flops", "5M", "--name", "x", "supernet.recipe.epochs=7", "seed=1"]
    assert main([*arguments, "retrain.recipe.epochs=8", "retrain.hold_out=true", "search.trials=9"]) == 0

    assert list(seen) == ["train-supernet", "random", "retrain"]
    assert seen["train-supernet"].recipe.epochs == 7
    assert (seen["retrain"].recipe.epochs, seen["retrain"].hold_out) == (8, True)
    assert (seen["random"].supernet, seen["random"].search.trials) == (seen["train-supernet"].out, 9)
    assert seen["retrain"].arch == "runs/x/random-5M-seed1/arch.json"
    assert {config.seed for config in seen.values()} == {1}

    report = (folder / "runs/x/report.md").read_text()
    for fact in (
        "BS-B-B",
        "0.8750",
        "0.9781",
        "at most 5 M",
        "place 1 among 50",
        "![scores](random-5M-seed1/scores.png)",
    ):
        assert fact in report
    # the commands that it names repeat the parts
    for line in report.splitlines():
        if line.startswith("psvit-search "):
            words = shlex.split(line)[1:]
            assert settings(*words) == seen.pop(words[0])
    assert not seen


def test_run_refuses_several_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("supernet.train", "search.run", "retrain.train"):
        names = dict.fromkeys(("train_supernet", "search", "retrain"), pytest.fail)
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**names))
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert main(["run"]) == 2
    assert "torchrun" in capsys.readouterr().err


def test_run_and_its_parts_have_the_same_defaults() -> None:
    whole = settings("run", "search=evolve")
    supernet, search, retrain = settings("train-supernet"), settings("evolve"), settings("retrain", "--arch", "a.json")
    assert pipeline.supernet_config(whole) == supernet
    assert pipeline.search_config(whole) == search
    assert pipeline.retrain_config(whole, Path("a.json")) == retrain
