"""Every file of conf/experiment for run and retrain: it trains, and its header says what is so.

Networks have their full width and depth; images are few and small. Those for detection: tests/retrain/detection.
"""

import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from psvit.cli import compose
from psvit.cli.arguments import parse
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import CONF
from psvit.cli.run import retrain_config, run_all, search_config, supernet_config
from psvit.engine.loop import Trained
from psvit.networks import find_network
from psvit.paper.ablate import SEARCHES, AblateConfig, training
from psvit.paper.published import ABLATIONS, CONFIGURATIONS, IMAGENET
from psvit.retrain.train import retrain
from psvit.zoo import NETWORKS

RETRAIN = sorted(path.stem for path in (CONF / "experiment/retrain").glob("*.yaml"))
RUN = sorted(path.stem for path in (CONF / "experiment/run").glob("*.yaml"))
DISTILLED = "imagenet_distilled"  # of any network
SHAPES = "shapes"  # of a laptop, for the detector
NAMED = [name for name in RETRAIN if name not in (DISTILLED, SHAPES)]
SEARCH_ROWS = {"search_1d": "imagenet_1d_tiny_16", "search_2d": "imagenet_2d_tiny_8"}
SMALL = ["data.image_size=64", "data.workers=0", "device=cpu"]
TWO_STEPS = ["epochs=1", "batch_size=2", "accumulate=1", "warmup_epochs=0"]


def settings(name: str, *words: str) -> Any:
    """The settings of a command, from its words, as the command gets them."""
    return compose.settings(COMMANDS[name], parse(COMMANDS[name], words)[1])


def arch_of(name: str) -> str:
    """The network that an experiment of ``retrain`` names."""
    return OmegaConf.load(CONF / f"experiment/retrain/{name}.yaml").arch


def header(path: str) -> str:
    """The comment above an experiment, as one line."""
    lines = (CONF / "experiment" / path).read_text().splitlines()
    assert lines[0] == "# @package _global_"
    comment = lines[1 : next(number for number, line in enumerate(lines) if line == "defaults:")]
    assert all(line.startswith("#") for line in comment)
    return re.sub(r"\s+", " ", " ".join(line[1:].rstrip("\\") for line in comment))


def commands(text: str) -> list[list[str]]:
    """The words of the commands in a header, behind ``psvit-search``."""
    found = re.findall(r"psvit-search ((?:detect )?[a-z-]+(?: (?:--[a-z-]+ \S+|[\w.@]+=\S+))+)", text)
    return [shlex.split(each) for each in found]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four JPEGs to train on and four to test on, of two classes."""
    return make_images(tmp_path_factory.mktemp("imagenet"), train=2)


@pytest.fixture(scope="module")
def more_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty to train on, enough to search with."""
    return make_images(tmp_path_factory.mktemp("imagenet"), train=20)


def make_images(root: Path, train: int) -> Path:
    """JPEGs of two classes: ``train`` of each to train on, two of each to test on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", 2)):
        for name in ("one", "two"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (72, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Trained]:
    """What trainings have made, which is kept here and not saved: the largest has 4 GB in its checkpoint."""
    made: list[Trained] = []
    monkeypatch.setattr("psvit.engine.loop.save_checkpoint", lambda path, state: None)
    monkeypatch.setattr("psvit.retrain.train._conclude", lambda result, *rest: made.append(result))
    return made


# ---------------------------------------------------------------------------------------------------- they train


# of each kind: a sequence, a grid, torchvision's
QUICK = ("psvit_1d_tiny_16", "deit_tiny_16_2d_both", "resnet18")


def slow_but_for_some(name: str) -> Any:
    return pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


LARGEST_FIRST = sorted([*NAMED, SHAPES], key=lambda name: "base" not in name)


@pytest.mark.parametrize("name", [slow_but_for_some(name) for name in LARGEST_FIRST])
def test_a_retraining_takes_two_steps(name: str, images: Path, tmp_path: Path, trained: list[Trained]) -> None:
    words = [f"experiment=retrain/{name}", f"data.root={images}", *SMALL, *(f"recipe.{word}" for word in TWO_STEPS)]
    config = settings("retrain", *words, f"--out={tmp_path}/run")
    assert config.arch == arch_of(name)
    retrain(config)
    (made,) = trained
    assert made.steps == 2
    assert (made.ema is None) == (config.recipe.ema_decay is None)
    network = find_network(config.arch).for_data(2, (64, 64))
    assert sum(weight.numel() for weight in made.model.parameters()) == network.cost.params
    assert all(weight.isfinite().all() for weight in made.model.parameters())


@pytest.mark.slow
def test_a_teacher_of_imagenet_is_learned_from(images: Path, tmp_path: Path, trained: list[Trained]) -> None:
    """RegNetY-16GF with random weights."""
    timm = pytest.importorskip("timm")
    save_file(timm.create_model("regnety_160", num_classes=2).state_dict(), tmp_path / "teacher.safetensors")
    words = [f"experiment=retrain/{DISTILLED}", f"data.root={images}", *SMALL, "--arch", "deit_tiny_16"]
    words += [f"distill.weights={tmp_path}/teacher.safetensors", *(f"recipe.{word}" for word in TWO_STEPS)]
    retrain(settings("retrain", *words, f"--out={tmp_path}/run"))
    assert trained[0].steps == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_run_takes_two_steps_and_searches(name: str, more_images: Path, tmp_path: Path) -> None:
    """In a space of two cells per stage, all of whose networks are scored. All but two images are held out."""
    recipes = [f"{part}.recipe.{word}" for part in ("supernet", "retrain") for word in TWO_STEPS]
    words = [f"experiment=run/{name}", f"data.root={more_images}", *SMALL, *recipes, "space.cells=2"]
    words += ["supernet.recipe.epochs=2", "data.search_fraction=0.95"]
    config = settings("run", *words, "search.num_images=36", "search.baseline=1", f"--out={tmp_path}/run")
    assert config.search.budget.flops == "1.3G"
    run_all(config)
    steps = (tmp_path / "run/supernet/metrics.csv").read_text().splitlines()[-1].split(",")[1]
    assert steps == "2"
    assert (tmp_path / "run/report.md").exists()


# ---------------------------------------------------------------------------------------------------- headers


def test_the_drawn_shapes_are_where_their_header_draws_them() -> None:
    drawn, trained = commands(header(f"retrain/{SHAPES}.yaml"))
    config = settings("retrain", *trained[1:])
    assert drawn == ["detect", "shapes", "--save", "shapes"]
    assert (config.data.name, config.data.root) == ("imagefolder", "shapes/singles")
    detector = settings("detect train", f"experiment=detect/{SHAPES}")
    assert (detector.data.root, detector.arch) == ("shapes", config.arch)
    assert detector.start == f"{config.out}/model.safetensors"


OF_IMAGENET = [*(f"retrain/{name}" for name in [*NAMED, DISTILLED]), *(f"run/{name}" for name in RUN)]


@pytest.mark.parametrize("path", OF_IMAGENET)
def test_the_command_in_a_header_is_the_files_own(path: str, images: Path) -> None:
    command, _, name = path.partition("/")
    lines = commands(header(f"{path}.yaml"))
    words = lines[0]
    assert words[0] == command
    assert f"experiment={path}" in words
    config = settings(command, *words[1:])
    assert config.data.name == "imagenet"
    assert config.data.root == "/data/imagenet"
    if name != DISTILLED:
        assert config.name == name
        assert name in (config.arch.removeprefix("torchvision:") if command == "retrain" else config.name)
    for other, *rest in lines[1:]:
        settings(other, *rest)
    assert "ccuracy: not measured" in header(f"{path}.yaml")


@pytest.mark.parametrize("name", NAMED)
def test_figures_in_a_header_are_the_counted_ones(name: str) -> None:
    text = header(f"retrain/{name}.yaml")
    cost = find_network(arch_of(name)).cost
    flops, params = figures(r"Network: ([\d.]+) G multiply-adds per image, ([\d.]+) M parameters", text)
    assert flops == float(f"{cost.flops / 1e9:.4g}")
    assert params == float(f"{cost.params / 1e6:.4g}")
    # 300 epochs of 1,281,167 images; 30 % of 312 and 989 TFLOP/s, of which a multiply-add is two
    work, a100, h100 = figures(r"not measured: (\S+) multiply-adds, (\S+) hours on an A100 or (\S+) on an H100", text)
    exact = 300 * 1_281_167 * 3 * cost.flops
    assert work == pytest.approx(exact, rel=0.05)
    assert a100 == pytest.approx(exact / (0.3 * 312e12 / 2) / 3600, rel=0.05)
    assert h100 == pytest.approx(exact / (0.3 * 989e12 / 2) / 3600, rel=0.05)


def figures(pattern: str, text: str) -> list[float]:
    """The numbers that a pattern's groups find."""
    found = re.search(pattern, text)
    assert found, text
    return [float(figure) for figure in found.groups()]


def test_accuracies_in_headers_are_those_of_the_papers_tables() -> None:
    rows = {(row.network or "").removeprefix("torchvision:"): row for row in [*IMAGENET, *CONFIGURATIONS]}
    base = rows.get("psvit_1d_base_8") or rows["psvit_1d_base_16"]  # one row, of which we have two readings
    rows |= {"psvit_1d_base_8": base, "psvit_1d_base_16": base}
    ablations = {f"deit_tiny_16_{row.variant}": row for table in ABLATIONS.values() for row in table}
    searched = {file: ablations[f"deit_tiny_16_{variant}"] for variant, file in SEARCH_ROWS.items()}
    for path, name in [*(("retrain", name) for name in NAMED), *(("run", name) for name in RUN)]:
        printed = re.findall(r"The paper prints ([\d.]+) % top-1", header(f"{path}/{name}.yaml"))
        row = rows.get(name) or searched.get(name) or ablations.get(name)
        expected = None if row is None else getattr(row, "rerun", None) or row.top1
        assert [float(each) for each in printed] == ([] if expected is None else [expected]), name


# ---------------------------------------------------------------------------------------------------- rows


def test_every_network_of_the_paper_has_its_file_and_none_has_two() -> None:
    archs = [arch_of(name) for name in NAMED]
    assert len(set(archs)) == len(archs)
    assert {row.network for row in [*IMAGENET, *CONFIGURATIONS]} <= set(archs)
    assert {name for name in NETWORKS if "_mini_" not in name} <= set(archs)


@pytest.mark.parametrize("table", ABLATIONS)
def test_an_ablation_at_imagenets_scale_trains_what_the_experiments_train(table: str) -> None:
    config: AblateConfig = settings("ablate", table, "scale=imagenet", "data.root=/data/imagenet")
    for row in ABLATIONS[table]:
        ours = training(config, row.variant, seed=0)
        if row.variant in SEARCHES:
            whole = settings("run", f"experiment=run/{SEARCH_ROWS[row.variant]}", "data.root=/data/imagenet")
            theirs = [supernet_config(whole), search_config(whole), retrain_config(whole, Path("arch.json"))]
        else:
            name = "deit_tiny_16" if row.variant == "none" else f"deit_tiny_16_{row.variant}"
            theirs = [None, None, settings("retrain", f"experiment=retrain/{name}", "data.root=/data/imagenet")]
        for one, other in zip((ours.supernet, ours.search, ours.retrain), theirs, strict=True):
            assert (one and without_paths(one)) == (other and without_paths(other))


def without_paths(config: Any) -> dict[str, Any]:
    """Settings without what differs by the folder that a part works in."""
    paths = {"name": "", "out": "", "supernet": "", "arch": Path(getattr(config, "arch", "")).name}
    return asdict(config) | paths
