"""Starting weights: what fits is taken over exactly, what differs is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from psvit.arch import Architecture, CellPath, NetworkSpec
from psvit.archfile import ArchFile, save_arch
from psvit.data.config import DataConfig
from psvit.engine.config import Recipe
from psvit.engine.loop import Task
from psvit.model import PSViT
from psvit.retrain import train as training
from psvit.retrain.config import RetrainConfig
from psvit.retrain.start import start_from
from psvit.retrain.train import retrain
from psvit.supernet.checkpoint import TrainedSupernet
from psvit.supernet.inherit import InheritConfig, inherit_weights
from psvit.weights import save_weights
from psvit.zoo import SPACES

ARCHITECTURE = Architecture.parse("B-BS-B")
FLAT = SPACES["2d_mini_4"]
SEQUENCE = replace(FLAT, kind="1d")


def network_of(spec: NetworkSpec, seed: int = 0) -> PSViT:
    """A network of random weights, biases and norms as well."""
    torch.manual_seed(seed)
    network = PSViT(spec, ARCHITECTURE).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    return network


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[PSViT, Path]]:
    """A network of random weights, and the file of these."""

    def save(spec: NetworkSpec, header: bool = True) -> tuple[PSViT, Path]:
        network, path = network_of(spec), tmp_path / "start.safetensors"
        if header:
            about = {"image_size": list(spec.image_size), "patch_size": spec.patch_size}
            save_weights(path, network, {"network": about})
        else:
            save_file(network.state_dict(), path)
        return network, path

    return save


def test_weights_of_this_very_network_are_taken_over(saved: Callable[..., tuple[PSViT, Path]]) -> None:
    source, path = saved(FLAT)
    network = network_of(FLAT, seed=1)
    assert start_from(path, network, network.spec.classes, adapt=False) == f"starts from {path}"
    assert all(torch.equal(weight, source.state_dict()[name]) for name, weight in network.state_dict().items())


def test_a_head_of_other_classes_is_made_anew_on_demand(saved: Callable[..., tuple[PSViT, Path]]) -> None:
    source, path = saved(FLAT.for_data(classes=7))
    network = network_of(FLAT, seed=1)
    head = network.head.weight.detach().clone()
    with pytest.raises(ValueError, match="its head has 7 classes, the data 10: set adapt=true"):
        start_from(path, network, network.spec.classes, adapt=False)
    line = start_from(path, network, network.spec.classes, adapt=True)
    assert line.endswith("a new head for 10 classes instead of 7")
    assert torch.equal(network.head.weight, head)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.forward_features(images), source.forward_features(images))


@pytest.mark.parametrize("spec", [FLAT, SEQUENCE])
@pytest.mark.parametrize(("before", "after"), [((32, 32), (48, 40)), ((24, 40), (32, 32))])
def test_positions_of_another_image_size_are_interpolated(
    spec: NetworkSpec, before: tuple[int, int], after: tuple[int, int], saved: Callable[..., tuple[PSViT, Path]]
) -> None:
    """The network then answers as the one before does to images of the new size."""
    source, path = saved(replace(spec, image_size=before))
    network = network_of(replace(spec, image_size=after), seed=1)
    grids = [f"{rows // 4}x{columns // 4}" for rows, columns in (before, after)]
    line = start_from(path, network, network.spec.classes, adapt=False)
    assert f"positions interpolated from {grids[0]} to {grids[1]} patches" in line
    images = torch.randn(2, 3, *after)
    torch.testing.assert_close(network(images), source(images))


def test_a_file_of_another_program_has_square_images(saved: Callable[..., tuple[PSViT, Path]]) -> None:
    source, path = saved(FLAT, header=False)
    network = network_of(replace(FLAT, image_size=(40, 48)), seed=1)
    assert "interpolated from 8x8 to 10x12 patches" in start_from(path, network, network.spec.classes, adapt=False)
    images = torch.randn(2, 3, 40, 48)
    torch.testing.assert_close(network(images), source(images))
    _, path = saved(replace(FLAT, image_size=(24, 40)), header=False)
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 60, .*in the file"):
        start_from(path, network, network.spec.classes, adapt=False)


def test_what_does_not_fit_is_named(saved: Callable[..., tuple[PSViT, Path]], tmp_path: Path) -> None:
    _, path = saved(FLAT)
    other = PSViT(FLAT, Architecture.parse("B-BSB-B"))
    with pytest.raises(ValueError, match=r"weights of another network: stages\.1\.2\..* missing in the file"):
        start_from(path, other, other.spec.classes, adapt=True)
    with pytest.raises(ValueError, match="no such weights file"):
        start_from(tmp_path / "none", other, other.spec.classes, adapt=True)


# ------------------------------------------------------------------------------------------------ inherited weights


@pytest.fixture
def inherited(supernet_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """An arch.json of the supernet's space, and the weights that it inherits."""
    save_arch(tmp_path / "arch.json", ArchFile(FLAT, ARCHITECTURE))
    config = InheritConfig(
        arch=str(tmp_path / "arch.json"), supernet=str(supernet_run), save=str(tmp_path / "inherited.safetensors")
    )
    weights = inherit_weights(config)
    assert f"--arch {config.arch} --start {weights}" in capsys.readouterr().out
    return Path(config.arch), weights


def test_training_starts_with_the_loss_of_the_supernets_path(
    inherited: tuple[Path, Path],
    supernet_run: Path,
    quick: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Begun(Exception):
        pass

    losses: list[tuple[Tensor, Tensor]] = []

    def begin(model: nn.Module, recipe: Recipe, task: Task, *_: Any) -> None:
        images, targets = next(task.feed(0))
        supernet = TrainedSupernet.open(supernet_run).load()
        model.eval(), supernet.eval()
        with torch.no_grad():
            path = CellPath.canonical(ARCHITECTURE, supernet.cells)
            losses.append((task.loss(model, images, targets, 0, 0), cross_entropy(supernet(images, path), targets)))
        raise Begun

    monkeypatch.setattr(training, "train", begin)
    arch, weights = inherited
    recipe = replace(quick, label_smoothing=0.0, batch_size=200)
    config = RetrainConfig(arch=str(arch), start=str(weights), out=str(tmp_path / "run"), recipe=recipe)
    with pytest.raises(Begun):
        retrain(config)
    assert f"starts from {weights}" in capsys.readouterr().out
    with pytest.raises(Begun):
        retrain(replace(config, start=None, out=str(tmp_path / "scratch")))
    (warm, supernets), (scratch, _) = losses
    assert torch.equal(warm, supernets)
    assert scratch > warm + 0.1


def test_a_run_goes_on_only_from_what_it_started_from(
    inherited: tuple[Path, Path], quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in (
        "artifacts.draw_training",
        "train.draw_architecture",
        "train._draw_predictions",
        "train.write_report",
    ):
        monkeypatch.setattr(f"psvit.retrain.{where}", lambda *_: None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arch, weights = inherited
    recipe, data = replace(quick, epochs=1, batch_size=300), DataConfig(test_fraction=0.8)
    config = RetrainConfig(arch=str(arch), start=str(weights), out=str(tmp_path / "run"), data=data, recipe=recipe)
    retrain(config)
    moved = weights.rename(tmp_path / "moved.safetensors")
    retrain(replace(config, start=str(moved)))
    save_weights(moved, network_of(FLAT), {})
    with pytest.raises(ValueError, match="start_sha256 was"):
        retrain(replace(config, start=str(moved)))


def test_faults_of_inherit(supernet_run: Path, tmp_path: Path) -> None:
    config = InheritConfig(
        arch=str(tmp_path / "arch.json"), supernet=str(supernet_run), save=str(tmp_path / "weights.safetensors")
    )
    for spec, architecture, message in (
        (FLAT.for_data(classes=3), "B-B-B", r"from another space than the supernet .*: classes is 3 here, 10 there"),
        (FLAT, "B-BSSS-B", "stage 2 has 4 layers, but the supernet has only 3 cells per stage"),
    ):
        save_arch(tmp_path / "arch.json", ArchFile(spec, Architecture.parse(architecture)))
        with pytest.raises(ValueError, match=message):
            inherit_weights(config)
    with pytest.raises(ValueError, match="holds no trained supernet"):
        inherit_weights(replace(config, supernet=str(tmp_path)))
    assert not Path(config.save).exists()
