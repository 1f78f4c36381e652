"""Weights know their preprocessing and their classes: the same pictures give the same figures from any container."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.data.config import AugmentConfig, DataConfig
from psvit.data.data import open_data
from psvit.engine.config import Recipe
from psvit.networks import find_network
from psvit.preprocessing import TrainedOn
from psvit.retrain.config import DistillConfig, EvaluateConfig, RetrainConfig
from psvit.retrain.evaluate import evaluate
from psvit.retrain.fit import load_trained, open_trained
from psvit.retrain.start import start_from
from psvit.retrain.teacher import load_teacher
from psvit.retrain.train import retrain
from psvit.weights import read_about, read_trained_on, save_weights

ARCH = "2d_mini_4:BS-B-B"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that has learned digits for an epoch."""
    augment = AugmentConfig(
        [0.9, 1.0], [1.0, 1.0], flip=0.0, randaugment_ops=0, erasing=0.0, mixup=0.0, cutmix=0.0, mix_probability=0.0
    )
    recipe = Recipe(epochs=1, batch_size=64, lr=2e-3, warmup_epochs=0.2, drop_path=0.0, augment=augment)
    out = tmp_path_factory.mktemp("digits") / "run"
    return retrain(RetrainConfig(arch=ARCH, out=str(out), recipe=recipe)).weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test pictures of digits as PNG files, in folders by class."""
    root = tmp_path_factory.mktemp("png")
    data = open_data(DataConfig())
    for index, label in enumerate(data.labels("test")):
        for split in ("train", "test"):
            path = root / split / data.class_names[label] / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.image("test", index).permute(1, 2, 0).numpy()).save(path)
    return root


def scores(weights: Path, data: DataConfig, arch: str | None = None) -> dict[str, float]:
    return evaluate(EvaluateConfig(arch=arch or str(weights.parent / "arch.json"), weights=str(weights), data=data))


def test_the_header_and_arch_json_say_what_it_was_trained_on(weights: Path) -> None:
    data = open_data(DataConfig())
    known = read_trained_on(weights)
    assert known == find_network(str(weights.parent / "arch.json")).trained_on == data.trained_on((32, 32))
    assert known is not None
    assert known.class_names == tuple("0123456789")
    assert (known.preprocessing.mean, known.preprocessing.resize) == (data.normalize.mean, "stretch")


@pytest.mark.parametrize("arch", [None, ARCH])
def test_pictures_in_a_folder_score_as_the_dataset(weights: Path, folder: Path, arch: str | None) -> None:
    expected = scores(weights, DataConfig())
    found = scores(weights, DataConfig("imagefolder", root=str(folder)), arch)
    assert found["top1"] == expected["top1"] > 0.2
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def without(root: Path, missing: str, other: str | None, to: Path) -> Path:
    """A copy of a folder of classes in which one is missing, or has another name."""
    for split in ("train", "test"):
        for path in (root / split).iterdir():
            name = other if path.name == missing else path.name
            if name is not None:
                (to / split).mkdir(parents=True, exist_ok=True)
                (to / split / name).symlink_to(path)
    return to


def test_fewer_classes_are_scored_by_their_names(weights: Path, folder: Path, tmp_path: Path) -> None:
    """Without the first, every label of the folder is one less than the network's output."""
    some = DataConfig("imagefolder", root=str(without(folder, "0", None, tmp_path / "some")))
    network = load_trained(find_network(str(weights.parent / "arch.json")), weights)
    ((images, labels),) = open_data(DataConfig()).eval_batches("test", (32, 32), 10_000)
    with torch.no_grad():
        right = network(images[labels > 0]).argmax(1) == labels[labels > 0]
    assert scores(weights, some)["top1"] == pytest.approx(right.double().mean().item(), abs=1e-12)


def test_unknown_classes_are_refused_by_name(weights: Path, folder: Path, tmp_path: Path) -> None:
    other = DataConfig("imagefolder", root=str(without(folder, "0", "zebra", tmp_path / "other")))
    for arch in (None, ARCH):
        with pytest.raises(ValueError, match=r"model.safetensors knows '0', .* and not 'zebra' of the data"):
            scores(weights, other, arch)
    teacher = DistillConfig(teacher=str(weights.parent / "arch.json"))
    with pytest.raises(ValueError, match=r"only the teacher has '0'"):
        load_teacher(teacher, open_data(other), (32, 32))
    config = RetrainConfig(arch=str(weights.parent / "arch.json"), out=str(tmp_path / "run"), data=other)
    with pytest.raises(ValueError, match=r"arch.json has a class '0', the data imagefolder has none"):
        retrain(config)
    with pytest.raises(ValueError, match=r"its head knows other classes than the data, of which only it has '0'"):
        retrain(replace(config, arch=ARCH, start=str(weights)))


@pytest.fixture
def reversed_weights(weights: Path, tmp_path: Path) -> Path:
    """The same network with its outputs in the opposite order, and a header that says so."""
    network = load_trained(find_network(ARCH).for_data(10, (32, 32)), weights)
    assert isinstance(network.head, torch.nn.Linear)
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight.flip(0))
        network.head.bias.copy_(network.head.bias.flip(0))
    about: dict[str, Any] = read_about(weights)
    about["trained_on"]["class_names"].reverse()
    save_weights(tmp_path / "model.safetensors", network, about)
    return tmp_path / "model.safetensors"


def test_another_order_of_classes_is_the_same_network(weights: Path, reversed_weights: Path) -> None:
    data = open_data(DataConfig())
    expected = open_trained(ARCH, weights, data)
    assert scores(reversed_weights, DataConfig(), ARCH)["top1"] == scores(weights, DataConfig(), ARCH)["top1"]
    network = find_network(ARCH).for_data(10, (32, 32)).build().eval()
    told = start_from(reversed_weights, network, 10, adapt=False, class_names=data.class_names)
    assert told.endswith("its outputs put in the order of the classes")
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), expected.module(images))
    arch = weights.parent / "arch.json"
    teachers = [
        load_teacher(DistillConfig(teacher=str(arch), weights=str(file)), data, (32, 32))
        for file in (weights, reversed_weights)
    ]
    one, other = (teacher(images) for teacher in teachers)
    assert torch.equal(one, other)
    assert torch.equal(one, expected.module(images))


def test_a_new_head_is_trained_on_demand(weights: Path) -> None:
    torch.manual_seed(0)
    network = find_network(ARCH).for_data(10, (32, 32)).build()
    before = network.head.weight.detach().clone()
    others = ("a", *"123456789")
    assert start_from(weights, network, 10, adapt=True, class_names=others).endswith("a new head for other classes")
    assert torch.equal(network.head.weight, before)
    assert not torch.equal(
        network.head.weight, load_trained(find_network(ARCH).for_data(10, None), weights).head.weight
    )


def test_starting_weights_and_teachers_keep_their_normalisation(weights: Path, folder: Path, tmp_path: Path) -> None:
    png = DataConfig("imagefolder", root=str(folder))
    digits = open_data(DataConfig()).normalize
    teacher = load_teacher(DistillConfig(teacher=str(weights.parent / "arch.json")), open_data(png), (32, 32))
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(teacher.see(open_data(png).normalize(pixels)), digits(pixels), rtol=1e-5, atol=1e-5)
    recipe = Recipe(epochs=1, batch_size=100, warmup_epochs=0.2)
    tuned = retrain(RetrainConfig(arch=ARCH, start=str(weights), out=str(tmp_path / "run"), data=png, recipe=recipe))
    known = read_trained_on(tuned.weights)
    assert isinstance(known, TrainedOn)
    assert known.preprocessing.mean == digits.mean
    assert np.allclose(known.preprocessing.std, digits.std)
