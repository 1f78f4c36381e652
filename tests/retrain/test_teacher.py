"""Distillation: the losses by hand, what a teacher sees, that it stays as it is, and faults. Nothing is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import v2

from psvit.arch import Architecture
from psvit.archfile import ArchFile, save_arch
from psvit.data.config import DataConfig
from psvit.data.data import Data, open_data
from psvit.data.transforms import Normalize
from psvit.engine.config import Recipe
from psvit.engine.feed import Feed
from psvit.engine.loop import classification_loss
from psvit.engine.runtime import Runtime
from psvit.model import PSViT
from psvit.retrain import train as training
from psvit.retrain.config import DistillConfig, RetrainConfig
from psvit.retrain.teacher import Teacher, distillation_loss, load_teacher
from psvit.retrain.train import retrain
from psvit.weights import save_weights
from psvit.zoo import SPACES

RESNET, VIT, SQUEEZE = "timm:test_resnet.r160_in1k", "timm:test_vit3.r160_in1k", "torchvision:squeezenet1_1"


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data(DataConfig())


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DistillConfig]:
    """A teacher by its name, with random weights of so many classes on file."""
    folder = tmp_path_factory.mktemp("teachers")

    def make(teacher: str, classes: int = 10, **settings: Any) -> DistillConfig:
        library, _, name = teacher.partition(":")
        file = folder / f"{name}-{classes}.{'safetensors' if library == 'timm' else 'pth'}"
        if not file.exists():
            torch.manual_seed(classes)
            if library == "timm":
                save_file(timm.create_model(name, num_classes=classes).state_dict(), file)
            else:
                torch.save({"model": models.get_model(name, num_classes=classes).state_dict(), "epoch": 3}, file)
        return DistillConfig(teacher, str(file), **settings)

    return make


# ------------------------------------------------------------------------------------------------ the losses


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("alpha", "share"), [(None, 0.5), (0.3, 0.3), (1.0, 1.0)])
def test_hard_distillation_is_equation_3(mixed: bool, alpha: float | None, share: float) -> None:
    z_s, z_t, y = example(mixed)
    p = softmax(z_s)
    labels = -(y * np.log(p)).sum(axis=1).mean()
    teachers = -np.mean([np.log(p[image, z_t[image].argmax()]) for image in range(len(p))])
    assert loss_of(z_s, z_t, y, DistillConfig("t", alpha=alpha)) == pytest.approx(
        (1 - share) * labels + share * teachers, rel=1e-5
    )


@pytest.mark.parametrize(("alpha", "share"), [(None, 0.1), (0.7, 0.7)])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_soft_distillation_is_equation_2(alpha: float | None, share: float, tau: float) -> None:
    z_s, z_t, y = example(mixed=True)
    p, q = softmax(z_s / tau), softmax(z_t / tau)
    labels = -(y * np.log(softmax(z_s))).sum(axis=1).mean()
    divergence = (q * np.log(q / p)).sum(axis=1).mean()
    config = DistillConfig("t", mode="soft", alpha=alpha, temperature=tau)
    assert loss_of(z_s, z_t, y, config) == pytest.approx((1 - share) * labels + share * tau**2 * divergence, rel=1e-5)


def example(mixed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    one_hot = np.eye(7)[rng.integers(7, size=5)]
    y = 0.6 * one_hot + 0.4 * one_hot[::-1] if mixed else one_hot
    return 2 * rng.normal(size=(5, 7)), 2 * rng.normal(size=(5, 7)), y


def loss_of(z_s: np.ndarray, z_t: np.ndarray, y: np.ndarray, config: DistillConfig) -> float:
    student, teacher, targets = (torch.tensor(each, dtype=torch.float32) for each in (z_s, z_t, y))
    label_loss = classification_loss(student, targets, Recipe(label_smoothing=0.0))
    return distillation_loss(label_loss, student, teacher, config).item()


def test_faulty_settings() -> None:
    for settings, message in (
        ({"mode": "warm"}, "distill.mode is 'warm'; use one of hard, soft"),
        ({"alpha": 1.5}, "distill.alpha is 1.5"),
        ({"temperature": 0}, "distill.temperature is 0"),
        ({"weights": "w", "teacher": None}, "no teacher"),
    ):
        with pytest.raises(ValueError, match=message):
            DistillConfig(**{"teacher": "t", **settings})


# ------------------------------------------------------------------------------------------------ what it sees


@pytest.mark.parametrize("name", [SQUEEZE, RESNET, "ours"])
def test_it_sees_what_its_own_library_would_feed_it(
    name: str, digits: Data, teachers: Callable[..., DistillConfig], tmp_path: Path
) -> None:
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = Normalize((0.3, 0.4, 0.5), (0.2, 0.3, 0.4))  # of another dataset than the teacher's
    data: Any = SimpleNamespace(classes=10, normalize=theirs, config=SimpleNamespace(name="toys"))
    if name == "ours":
        teacher = load_teacher(ours(tmp_path, classes=10), data, (64, 64))
        fed = theirs(pixels)
    else:
        teacher = load_teacher(teachers(name), data, (64, 64))
        if name == RESNET:
            settings = timm.data.resolve_data_config(model=timm.create_model(RESNET[5:]))
            mean, std = settings["mean"], settings["std"]
            assert mean == (0.5, 0.5, 0.5)
        else:
            preset = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
            mean, std = preset.mean, preset.std
        fed = v2.functional.normalize(v2.functional.to_dtype(pixels, torch.float32, scale=True), mean, std)
    torch.testing.assert_close(teacher.see(theirs(pixels)), fed, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(teacher(theirs(pixels)), teacher.network(fed), rtol=1e-3, atol=1e-4)


def test_only_a_teacher_of_a_fixed_size_gets_resized_images(
    digits: Data, teachers: Callable[..., DistillConfig]
) -> None:
    images = torch.randn(2, 3, 32, 32)
    assert load_teacher(teachers(RESNET), digits, (32, 32)).see(images).shape == (2, 3, 32, 32)
    fixed = load_teacher(teachers(VIT), digits, (32, 32))
    assert fixed.see(images).shape == (2, 3, 160, 160)
    assert fixed(images).shape == (2, 10)


def test_its_multiply_adds_are_counted(digits: Data, tmp_path: Path) -> None:
    """Those of a network of ours are known from its shapes."""
    arch = ArchFile(SPACES["2d_mini_4"], Architecture.parse("B-BS-B"))
    assert load_teacher(ours(tmp_path, 10), digits, (32, 32)).flops == arch.cost.flops


def ours(folder: Path, classes: int) -> DistillConfig:
    """A network of ours with random weights beside its arch.json."""
    arch = ArchFile(SPACES["2d_mini_4"].for_data(classes), Architecture.parse("B-BS-B"))
    save_arch(folder / "arch.json", arch)
    torch.manual_seed(1)
    save_weights(folder / "model.safetensors", PSViT(arch.spec, arch.architecture), {})
    return DistillConfig(str(folder / "arch.json"))


# ------------------------------------------------------------------------------------------------ in a training


@pytest.fixture
def config(tmp_path: Path, quick: Recipe, monkeypatch: pytest.MonkeyPatch) -> RetrainConfig:
    for where in (
        "artifacts.draw_training",
        "train.draw_architecture",
        "train._draw_predictions",
        "train.write_report",
    ):
        monkeypatch.setattr(f"psvit.retrain.{where}", lambda *_: None)  # test_train looks at the pictures
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # its import takes seconds
    save_arch(tmp_path / "arch.json", ArchFile(SPACES["2d_mini_4"], Architecture.parse("B-B-B")))
    mixed = replace(quick.augment, mixup=0.8, cutmix=1.0, mix_probability=1.0)
    recipe = replace(quick, epochs=2, batch_size=170, ema_decay=0.5, drop_path=0.1, augment=mixed)
    data = DataConfig(test_fraction=0.8)  # two steps an epoch
    return RetrainConfig(arch=str(tmp_path / "arch.json"), out=str(tmp_path / "run"), data=data, recipe=recipe)


def test_it_stays_frozen_and_apart_and_sees_the_mixed_images(
    config: RetrainConfig,
    teachers: Callable[..., DistillConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded: list[Teacher] = []
    shown: list[Tensor] = []  # to the student in training
    answers: list[tuple[Tensor, Tensor]] = []  # of the teacher: images, logits
    losses: list[tuple[Tensor, ...]] = []
    load, forward, answer, learn = load_teacher, PSViT.forward, Teacher.__call__, distillation_loss

    def remember_teacher(*arguments: Any) -> Teacher:
        loaded.append(load(*arguments))
        return loaded[-1]

    def remember_images(network: PSViT, images: Tensor) -> Tensor:
        if network.training:
            shown.append(images)
        return forward(network, images)

    def remember_answer(teacher: Teacher, images: Tensor) -> Tensor:
        assert not any(module.training for module in teacher.network.modules())
        answers.append((images, answer(teacher, images)))
        return answers[-1][1]

    def remember_loss(label_loss: Tensor, student: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
        losses.append((student, teacher, learn(label_loss, student, teacher, config)))
        return losses[-1][-1]

    monkeypatch.setattr(training, "load_teacher", remember_teacher)
    monkeypatch.setattr(PSViT, "forward", remember_images)
    monkeypatch.setattr(Teacher, "__call__", remember_answer)
    monkeypatch.setattr(training, "distillation_loss", remember_loss)
    distill = teachers(RESNET)
    made = retrain(replace(config, distill=distill))

    assert len(shown) == len(answers) == len(losses) == 4
    whole = torch.cat([image.flatten() for image, _ in answers])
    assert torch.equal(whole, torch.cat([image.flatten() for image in shown]))
    assert all(student.requires_grad and not teacher.requires_grad for student, teacher, _ in losses)
    assert all(teacher is own for (_, teacher, _), (_, own) in zip(losses, answers, strict=True))
    written = pd.read_csv(made.folder / "metrics.csv")["loss"]
    assert list(written) == pytest.approx([(losses[i][2] + losses[i + 1][2]).item() / 2 for i in (0, 2)], rel=1e-5)

    (teacher,) = loaded
    weights = load_file(str(distill.weights))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in teacher.network.state_dict().items())
    assert any("running_mean" in name for name in weights)
    assert all(each.grad is None and not each.requires_grad for each in teacher.network.parameters())
    own_names = PSViT(SPACES["2d_mini_4"], Architecture.parse("B-B-B")).state_dict().keys()
    assert load_file(made.weights).keys() == own_names
    checkpoint = torch.load(made.folder / "checkpoint.pt", weights_only=True)
    assert checkpoint["model"].keys() == own_names
    assert (made.folder / "checkpoint.pt").stat().st_size < 6 * made.weights.stat().st_size
    assert f"learns from {RESNET}" in capsys.readouterr().out


def test_it_sees_mixed_images(config: RetrainConfig, digits: Data) -> None:
    """The batches of these trainings are mixed, as their targets tell."""
    feed = Feed(digits, "train", (32, 32), config.recipe, Runtime(0, torch.device("cpu")))
    _, targets = next(feed(0))
    assert targets.shape == (170, 10)
    assert (targets.max(dim=1).values < 1).any()


class Killed(Exception):
    """Stands for a SIGKILL."""


def test_killed_and_resumed_is_unbroken(
    config: RetrainConfig,
    teachers: Callable[..., DistillConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    config = replace(
        config, distill=teachers(RESNET, mode="soft"), recipe=replace(config.recipe, checkpoint_every=1, batch_size=110)
    )
    whole = retrain(config)
    corrupt = replace(config, out=str(tmp_path / "corrupt"))
    learn, calls = training.distillation_loss, 0

    def die(*arguments: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls in (3, 5):  # in the middle of an epoch, and again right after
            raise Killed
        return learn(*arguments)

    monkeypatch.setattr(training, "distillation_loss", die)
    for _ in range(2):
        with pytest.raises(Killed):
            retrain(corrupt)
    again = retrain(corrupt)
    for file in ("model.safetensors", "model_ema.safetensors"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    other = replace(corrupt, distill=replace(config.distill, temperature=2.0))
    with pytest.raises(ValueError, match=r"distill.temperature was 3.0 and is 2.0"):
        retrain(other)


# ------------------------------------------------------------------------------------------------ faults


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(
    config: RetrainConfig, teachers: Callable[..., DistillConfig], tmp_path: Path
) -> None:
    for distill, message in (
        (DistillConfig(RESNET), f"teacher {RESNET} has 1000 classes, the data digits 10"),  # and nothing is downloaded
        (DistillConfig(SQUEEZE), "has 1000 classes, the data digits 10"),
        (teachers(RESNET, classes=7), "has 7 classes, the data digits 10"),
        (teachers(SQUEEZE, classes=7), "has 7 classes, the data digits 10"),
        (ours(tmp_path / "teacher", classes=3), "has 3 classes, the data digits 10"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            retrain(replace(config, distill=distill))
        assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


def test_faults(
    digits: Data, teachers: Callable[..., DistillConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code.pth"
    torch.save(nn.Linear(2, 2), code)  # a pickle that would have to run code
    names = tmp_path / "names.pth"
    torch.save({"epoch": 3}, names)
    for distill, message in (
        (DistillConfig("torchvision:regnet_y_16fg"), "no such classifier; did you mean .*regnet_y_16gf"),
        (DistillConfig("timm:regnety_160.deit_in1"), "no such classifier; did you mean .*regnety_160.deit_in1k"),
        (DistillConfig("timm:zzzz"), "timm.list_models"),
        (DistillConfig("timn:resnet10t"), "write torchvision:NAME, timm:NAME, or the path of an arch.json"),
        (DistillConfig(SQUEEZE, str(tmp_path / "none.pth")), "there is no such weights file"),
        (DistillConfig(SQUEEZE, str(tmp_path / "none.safetensors")), "there is no such weights file"),
        (DistillConfig(SQUEEZE, str(code)), "cannot be read as plain tensors"),
        (DistillConfig(SQUEEZE, str(names)), "holds no state_dict"),
        (DistillConfig(VIT, teachers(RESNET).weights), "weights of another network"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load_teacher(distill, digits, (32, 32))
        assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        load_teacher(DistillConfig(RESNET), digits, (32, 32))


def test_pretrained_weights_are_the_librarys_own_and_a_failed_download_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = SimpleNamespace(
        classes=1000, normalize=Normalize((0, 0, 0), (1, 1, 1)), config=SimpleNamespace(name="in1k")
    )
    torch.manual_seed(3)
    weights = models.squeezenet1_1().state_dict()
    asked: list[dict[str, Any]] = []
    state_dict = "torchvision.models._api.load_state_dict_from_url"
    monkeypatch.setattr(state_dict, lambda url, **settings: asked.append(settings) or weights)
    teacher = load_teacher(DistillConfig(SQUEEZE), data, (64, 64))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in teacher.network.state_dict().items())
    assert asked[0]["weights_only"] is True

    def offline(*_: Any, **__: Any) -> Any:
        raise URLError("no route to host")

    monkeypatch.setattr(state_dict, offline)
    monkeypatch.setattr(timm, "create_model", offline)
    for name in (SQUEEZE, RESNET):
        with pytest.raises(ValueError, match=rf"weights of {name} .*no route to host.*distill.weights=FILE"):
            load_teacher(DistillConfig(name), data, (64, 64))
