"""retrain and evaluate from end to end on digits."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from psvit.arch import Architecture
from psvit.archfile import ArchFile, load_arch, save_arch
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.engine.config import Recipe
from psvit.model import PSViT
from psvit.retrain.config import EvaluateConfig, RetrainConfig
from psvit.retrain.evaluate import evaluate
from psvit.retrain.start import start_from
from psvit.retrain.train import RetrainResult, retrain
from psvit.weights import load_weights, read_about
from psvit.zoo import SPACES


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, quick: Recipe) -> RetrainConfig:
    folder = tmp_path_factory.mktemp("retrain")
    save_arch(folder / "arch.json", ArchFile(SPACES["2d_mini_4"], Architecture.parse("B-BS-B")))
    recipe = replace(quick, epochs=8, batch_size=120, lr=3e-3, ema_decay=0.5)
    return RetrainConfig(arch=str(folder / "arch.json"), out=str(folder / "run"), recipe=recipe)


@pytest.fixture(scope="module")
def made(config: RetrainConfig) -> RetrainResult:
    return retrain(config)


def test_it_learns_and_tells_what_it_did(made: RetrainResult, config: RetrainConfig) -> None:
    assert made.top1 > 0.8
    result = json.loads((made.folder / "result.json").read_text())
    assert result["top1"] == made.top1
    assert result["trained_on"] == "train+search"
    assert result["num_test_images"] + result["num_images"] == 1797
    data = open_data(DataConfig())
    assert load_arch(made.folder / "arch.json") == load_arch(Path(config.arch)).meets(data.trained_on((32, 32)))
    for picture in ("training.png", "predictions.png", "architecture.png"):
        assert (made.folder / picture).read_bytes().startswith(b"\x89PNG")
    hub = made.folder / "hub"
    assert (hub / "model.safetensors").samefile(made.weights)
    assert f"test images of digits | {made.top1:.4f} (" in (hub / "README.md").read_text()


def test_both_weights_give_their_top1_by_hand_and_by_evaluate(made: RetrainResult, config: RetrainConfig) -> None:
    """The weights themselves are the model; their moving average lies beside them."""
    result = json.loads((made.folder / "result.json").read_text())
    found = {}
    for key, file in (("top1", made.weights), ("ema_top1", made.folder / "model_ema.safetensors")):
        network = PSViT(SPACES["2d_mini_4"], Architecture.parse("B-BS-B")).eval()
        load_weights(file, network)
        assert read_about(file)["architecture"] == "B-BS-B"
        ((images, labels),) = open_data(DataConfig()).eval_batches("test", (32, 32), 10_000)
        with torch.no_grad():
            found[key] = network(images)
        by_hand = (found[key].argmax(1) == labels).double().mean().item()
        assert result[key] == pytest.approx(by_hand, abs=1e-12)
        measured = evaluate(EvaluateConfig(arch=config.arch, weights=str(file), batch_size=100))
        assert measured["top1"] == pytest.approx(by_hand, abs=1e-12)
    assert made.top1 == result["top1"]
    top5 = (found["top1"].argsort(descending=True)[:, :5] == labels[:, None]).sum().item() / len(labels)
    assert result["top1"] < top5
    assert result["metrics"] == {"top5": pytest.approx(top5, abs=1e-12)}
    assert not torch.allclose(found["top1"], found["ema_top1"])
    checkpoint = torch.load(made.folder / "checkpoint.pt", weights_only=True)
    assert torch.equal(network.head.weight, checkpoint["ema"]["head.weight"])


def test_held_out_images_are_watched_only_on_demand(
    config: RetrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = replace(config, out=str(tmp_path / "run"), hold_out=True, recipe=replace(config.recipe, epochs=1))
    folder = retrain(held).folder
    assert capsys.readouterr().out.startswith("digits: 10 classes; 1,295 to learn from, 359 to test on\n")
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"search_top1", "search_loss", "ema_search_top1", "ema_search_loss"} <= set(header)
    assert "search_top1" not in (Path(config.out) / "metrics.csv").read_text()
    assert json.loads((folder / "result.json").read_text())["trained_on"] == "train"


def test_data_that_does_not_fit_is_refused_or_adapted_to(config: RetrainConfig, tmp_path: Path) -> None:
    spec = SPACES["2d_mini_4"].for_data(classes=3, image_size=(24, 24))
    save_arch(tmp_path / "arch.json", ArchFile(spec, Architecture.parse("B-B-B")))
    recipe = replace(config.recipe, epochs=1, ema_decay=None)
    other = replace(config, arch=str(tmp_path / "arch.json"), out=str(tmp_path / "run"), recipe=recipe)
    with pytest.raises(ValueError, match=r"arch.json has 3 classes at 24x24 px, the data digits 10 classes at 32x32"):
        retrain(other)
    folder = retrain(replace(other, adapt=True)).folder
    assert asdict(load_arch(folder / "arch.json").spec) == asdict(SPACES["2d_mini_4"])
    assert not (folder / "model_ema.safetensors").exists(), "nothing was averaged"
    assert json.loads((folder / "result.json").read_text())["ema_top1"] is None


@pytest.mark.slow
def test_networks_of_torchvision_train_and_start_alike(config: RetrainConfig, tmp_path: Path) -> None:
    """By name, with the data's classes; trained weights start another training, with a new head for other classes."""
    recipe = replace(config.recipe, epochs=1, batch_size=700, ema_decay=0.5)
    resnet = replace(config, arch="torchvision:resnet18", out=str(tmp_path / "run"), recipe=recipe)
    folder = retrain(resnet).folder
    result = json.loads((folder / "result.json").read_text())
    assert result["network"] == "torchvision:resnet18"
    assert result["data"] == "digits"
    assert not (folder / "arch.json").exists()
    network = resnet18(num_classes=10).eval()
    load_weights(folder / "model.safetensors", network)
    ((images, labels),) = open_data(DataConfig()).eval_batches("test", (32, 32), 10_000)
    with torch.no_grad():
        by_hand = (network(images).argmax(1) == labels).double().mean().item()
    assert result["top1"] == pytest.approx(by_hand, abs=1e-12)
    weights = str(folder / "model.safetensors")
    measured = evaluate(EvaluateConfig(arch="torchvision:resnet18", weights=weights))
    assert measured["top1"] == pytest.approx(by_hand, abs=1e-12)
    other = resnet18(num_classes=3)
    line = start_from(Path(weights), other, 3, adapt=True)
    assert line.endswith("a new head for 3 classes instead of 10")
    assert torch.equal(other.layer4[0].conv1.weight, network.layer4[0].conv1.weight)
    for change, message in (
        ({"layer_decay": 0.5}, "recipe.layer_decay needs an order of the layers"),
        ({"checkpoint_activations": True}, "recipe.checkpoint_activations=false"),
    ):
        with pytest.raises(ValueError, match=message):
            retrain(replace(resnet, out=str(tmp_path / "no"), recipe=replace(recipe, **change)))
        assert not (tmp_path / "no").exists(), "refused before a run began"


def test_a_name_takes_classes_and_size_from_the_data(config: RetrainConfig, tmp_path: Path) -> None:
    recipe = replace(config.recipe, epochs=1, ema_decay=None)
    folder = retrain(replace(config, arch="2d_tiny_8:B-B-B", out=str(tmp_path / "run"), recipe=recipe)).folder
    spec = load_arch(folder / "arch.json").spec
    assert (spec.classes, spec.image_size, spec.widths) == (10, (32, 32), SPACES["2d_tiny_8"].widths)


def test_faults_of_evaluate(config: RetrainConfig, made: RetrainResult, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(made.weights.read_bytes()[:-10])
    save_arch(tmp_path / "arch.json", ArchFile(SPACES["2d_mini_4"], Architecture.parse("BB-BS-B")))
    for arch, weights, message in (
        (config.arch, cut, "not a valid safetensors file"),
        (config.arch, tmp_path / "none", "no such weights file"),
        (tmp_path / "arch.json", made.weights, "weights of another network: stages.0.1.*missing"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(EvaluateConfig(arch=str(arch), weights=str(weights)))
