"""detect train and detect evaluate from end to end on drawn shapes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from psvit.archfile import load_arch, save_arch
from psvit.cli.commands import COMMANDS
from psvit.cli.compose import CONF, settings
from psvit.detection import train as training
from psvit.detection.coco import open_split
from psvit.detection.config import DetectEvaluateConfig, DetectRecipe, DetectTrainConfig, HeadConfig
from psvit.detection.data_config import CocoConfig
from psvit.detection.evaluate import evaluate_detector, load_detector
from psvit.detection.feed import DetectionFeed
from psvit.detection.model import make_detector
from psvit.detection.shapes import ShapesConfig, draw_shapes
from psvit.detection.train import DetectResult, train_detector
from psvit.engine.metrics import TIMED
from psvit.engine.optim import adamw
from psvit.engine.runtime import Runtime
from psvit.networks import find_arch, find_network, is_file
from psvit.weights import read_about, save_weights
from tests.hold import Hold

ROOT = Path(__file__).parents[2]
MINI = "2d_mini_4:B-BS-B"
SMALL = {"fpn_channels": 8, "box_width": 16, "mask_layers": 1, "mask_width": 8, "proposals": 30}


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> DetectTrainConfig:
    """Four steps an epoch, with all that a run can have: micro-batches, sizes, flips, drop path, averaged weights."""
    recipe = DetectRecipe(
        epochs=2,
        batch_size=3,
        accumulate=2,
        lr=1e-3,
        warmup_epochs=1,
        decay_epochs=None,
        ema_decay=0.5,
        checkpoint_every=1,
        min_sizes=[32, 48],
        max_size=64,
        box_samples=16,
    )
    out = str(tmp_path_factory.mktemp("detect") / "run")
    data = CocoConfig(root=str(shapes_root))
    return DetectTrainConfig(arch=MINI, out=out, heads=HeadConfig(**SMALL), data=data, recipe=recipe)


@pytest.fixture(scope="module")
def made(config: DetectTrainConfig) -> DetectResult:
    return train_detector(config)


def metrics(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metrics.csv").drop(columns=list(TIMED), errors="ignore")


def evaluation(config: DetectTrainConfig, weights: Path, **settings: Any) -> DetectEvaluateConfig:
    return DetectEvaluateConfig(**{"arch": config.arch, "weights": str(weights), "data": config.data} | settings)


def test_it_trains_and_tells_what_it_did(made: DetectResult, config: DetectTrainConfig) -> None:
    rows = metrics(made.folder)
    assert list(rows["step"]) == [4, 8]
    assert rows["loss"].map(math.isfinite).all()
    assert not [name for name in rows if "ap" in name.split("_")], "only on demand"
    result = json.loads((made.folder / "result.json").read_text())
    assert {part: result[part] for part in ("box", "mask")} == made.scores
    assert (result["network"], result["layers"], result["data"]) == ("2d_mini_4", "B-BS-B", "drawn")
    assert (result["num_images"], result["num_val_images"], result["classes"]) == (12, 6, 4)
    assert load_arch(made.folder / "arch.json") == find_arch(MINI)
    about = read_about(made.weights)
    assert about["class_names"] == ["circle", "square", "triangle", "star"]
    assert about["architecture"] == "B-BS-B"
    for picture in ("training.png", "detections.png"):
        assert (made.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_weights_alone_give_the_detector_back(
    made: DetectResult, config: DetectTrainConfig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """From the run's arch.json and by name, with the same average precision; their average lies beside."""
    capsys.readouterr()
    for arch in (MINI, str(made.folder / "arch.json")):
        picture = tmp_path / "found.png"
        assert evaluate_detector(evaluation(config, made.weights, arch=arch, save=str(picture))) == made.scores
        assert picture.read_bytes().startswith(b"\x89PNG")
    head, box, mask, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert [line.split()[0] for line in (box, mask)] == ["box", "mask"]
    ap = made.scores["box"]["AP"]
    assert ap is not None
    assert box.split()[1] == f"{100 * ap:.1f}"

    checkpoint = torch.load(made.folder / "checkpoint.pt", weights_only=True)
    for file, part in ((made.weights, "model"), (made.folder / "model_ema.safetensors", "ema")):
        detector, _ = load_detector(find_network(MINI), file)
        state = detector.state_dict()
        assert all(torch.equal(tensor, checkpoint[part][name]) for name, tensor in state.items())
    assert detector.transform.min_size == (48,)


class Killed(Exception):
    """Stands for a SIGKILL: nothing may clean up after it."""


def test_killed_within_a_step_and_resumed_is_unbroken(
    made: DetectResult, config: DetectTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(DetectionFeed):
        def __call__(self, first_step: int) -> Iterator[Any]:
            yield from islice(super().__call__(first_step), 9)  # of two a step
            raise Killed

    again = replace(config, out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "DetectionFeed", Cut)
        with pytest.raises(Killed):
            train_detector(again)
    assert not (tmp_path / "run/result.json").exists()
    same(train_detector(again), made)


def same(one: DetectResult, other: DetectResult) -> None:
    for file in ("model.safetensors", "model_ema.safetensors", "result.json", "arch.json", "detections.png"):
        assert (one.folder / file).read_bytes() == (other.folder / file).read_bytes(), file
    pd.testing.assert_frame_equal(metrics(one.folder), metrics(other.folder))


@pytest.mark.slow
def test_the_command_is_killed_for_real(made: DetectResult, config: DetectTrainConfig, tmp_path: Path) -> None:
    """By SIGKILL as soon as its first checkpoint is there; started again, it ends with the same bits."""
    listed = [f"recipe.{key}={value}" for key, value in vars(config.recipe).items() if key in OVERRIDDEN]
    arguments = [
        *("detect", "train", "--arch", MINI, "--out", str(tmp_path / "run")),
        *(f"heads.{key}={value}" for key, value in SMALL.items()),
        *(text.replace(" ", "").replace("None", "null") for text in listed),
        f"data.root={config.data.root}",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    hold = Hold(tmp_path / "gate", "checkpoint.pt")

    def start(**variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "psvit", *arguments],
            cwd=tmp_path,
            env=environment | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    process = start(**hold.environment)
    hold.wait(process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run/result.json").exists()
    process = start()
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "average precision on 6 validation images" in output
    same(DetectResult(tmp_path / "run", tmp_path / "run/model.safetensors", {}), made)


OVERRIDDEN = {
    *("epochs", "batch_size", "accumulate", "lr", "warmup_epochs", "decay_epochs", "ema_decay", "checkpoint_every"),
    *("min_sizes", "max_size", "box_samples", "drop_path"),
}


@pytest.mark.slow
def test_a_resnet_trains_and_scores_from_weights(
    config: DetectTrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frozen batch norm comes back when the weights are evaluated."""
    network = find_network("torchvision:resnet18").for_data(5, None)
    save_weights(tmp_path / "w.safetensors", network.build(), network.about())
    recipe = replace(config.recipe, epochs=1, batch_size=6, ema_decay=None, min_sizes=[32])
    settings = {"arch": "torchvision:resnet18", "start": str(tmp_path / "w.safetensors"), "watch": True}
    resnet = replace(config, out=str(tmp_path / "run"), recipe=recipe, **settings)
    result = train_detector(resnet)
    assert not (result.folder / "arch.json").exists()
    watched = metrics(result.folder).iloc[-1]
    assert {part: watched[f"val_{part}_ap"] for part in ("box", "mask")} == {
        part: values["AP"] for part, values in result.scores.items()
    }
    assert json.loads((result.folder / "result.json").read_text())["network"] == "torchvision:resnet18"
    assert evaluate_detector(evaluation(resnet, result.weights)) == result.scores
    with pytest.raises(ValueError, match=r"only a PSViT backbone can do this; say recipe.compile=false"):
        train_detector(replace(resnet, out=str(tmp_path / "other"), recipe=replace(recipe, compile="true")))


def test_faults(made: DetectResult, config: DetectTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a 1d network"):
        train_detector(replace(config, arch="1d_mini_4:B-B-B", out=str(tmp_path / "run")))
    save_arch(tmp_path / "arch.json", find_arch("2d_mini_4:B-B-B"))
    classifier = tmp_path / "classifier.safetensors"
    save_weights(classifier, find_network(MINI).build(), find_network(MINI).about())
    with pytest.raises(ValueError, match="weights of another network"):
        train_detector(
            replace(config, arch=str(tmp_path / "arch.json"), start=str(classifier), out=str(tmp_path / "run"))
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        ValueError, match="holds a classifier, not a detector: train a detector with psvit-search detect"
    ):
        evaluate_detector(evaluation(config, classifier))
    with pytest.raises(ValueError, match="weights of another network"):
        evaluate_detector(evaluation(config, made.weights, arch=str(tmp_path / "arch.json")))
    with pytest.raises(ValueError, match=r"pictures are \.png or \.svg"):
        evaluate_detector(evaluation(config, made.weights, save="found.gif"))
    with pytest.raises(ValueError, match=r"holds a run with other settings: heads.fpn_channels was 8 and is 16"):
        train_detector(replace(config, heads=replace(config.heads, fpn_channels=16)))


def test_data_of_other_classes_are_refused(made: DetectResult, config: DetectTrainConfig, tmp_path: Path) -> None:
    root = draw_shapes(ShapesConfig(str(tmp_path / "shapes"), num_images=2, num_val_images=2, size=64, singles=0))
    listing = root / "annotations/instances_val2017.json"
    content = json.loads(listing.read_text())
    other = replace(config.data, root=str(root))

    def refused(message: str) -> None:
        listing.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            evaluate_detector(evaluation(config, made.weights, data=other))

    content["categories"][1]["name"] = "cube"
    refused(r"model.safetensors has a class 'square' where the data has 'cube': give the data it was trained on")
    content["categories"].append({"id": 90, "name": "moon"})
    refused(r"model.safetensors has 4 classes, the data 5: give the data it was trained on \(data.root=...\)")
    with pytest.raises(ValueError, match="list different categories"):
        train_detector(replace(config, data=other, out=str(tmp_path / "run")))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "experiment/detect").glob("*.yaml")))
def test_each_experiment_composes_and_takes_two_steps(name: str, shapes_root: Path) -> None:
    sizes = ["recipe.min_sizes=[32]", "recipe.max_size=64", "recipe.box_samples=16", "recipe.batch_size=2"]
    heads = [f"heads.{key}={value}" for key, value in SMALL.items()]
    words = [f"experiment=detect/{name}", f"data.root={shapes_root}", *sizes, *heads]
    config = settings(COMMANDS["detect train"], words)
    assert isinstance(config, DetectTrainConfig)
    images = open_split(config.data, "train")
    arch = "2d_mini_4:BS-BS-BB" if is_file(config.arch) else config.arch  # a file that a run before has left
    detector = make_detector(training.find_backbone(arch), 4, config.heads, config.recipe).train()
    optimiser = adamw(detector, config.recipe.weight_decay)
    feed = DetectionFeed(images, 0, config.recipe, Runtime(0, torch.device("cpu")))
    before = [weight.detach().clone() for weight in detector.roi_heads.parameters()]
    for pictures, targets in islice(feed(0), 2):
        losses: dict[str, torch.Tensor] = detector(pictures, targets)
        loss = torch.stack([*losses.values()]).sum()
        assert loss.isfinite()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert all(not torch.equal(a, b) for a, b in zip(before, detector.roi_heads.parameters(), strict=True))
