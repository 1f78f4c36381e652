"""psvit-search explain as a whole: what it writes, for which networks, and what it refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.explain.config import ExplainConfig
from psvit.explain.explain import explain
from psvit.explain.similarity import measure
from psvit.model import PSViT
from psvit.networks import find_network
from psvit.run.files import write_text
from psvit.weights import load_weights, save_weights

OURS = "1d_mini_4:BSB-BB-BS"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of random weights for digits, by the name of their network."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for number, name in enumerate((OURS, "2d_mini_4:B-B-B", "torchvision:resnet18")):
        torch.manual_seed(number)
        network = find_network(name).for_data(10, (32, 32))
        files[name] = str(folder / f"{number}.safetensors")
        save_weights(Path(files[name]), network.build(), network.about())
    return files


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files: drawing takes most of the time."""
    for place in ("psvit.draw", "psvit.explain.plots"):
        monkeypatch.setattr(f"{place}.save_figure", lambda figure, path: write_text(path, ""))


def settings(weights: dict[str, str], save: Path, name: str = OURS, **more: Any) -> ExplainConfig:
    return ExplainConfig(arch=name, weights=weights[name], save=str(save), num_images=6, **more)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_writes_tables_pictures_and_numbers(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(settings(weights, tmp_path)) == tmp_path
    files = {path.name for path in tmp_path.iterdir()}
    pictures = {"attention.png", "heads.png", "tokens.png", "gradcam.png", "architecture.png"}
    assert files == {*pictures, "architecture.svg", "attention.csv", "heads.csv", "tokens.csv", "explain.json"}
    for name in pictures:
        with Image.open(tmp_path / name) as image:
            image.load()
    about = json.loads((tmp_path / "explain.json").read_text())
    assert {key: about[key] for key in ("data", "split", "images", "seed")} == {
        "data": "digits",
        "split": "test",
        "images": 6,
        "seed": 0,
    }
    (network,) = about["networks"]
    assert network["network"] == "1d_mini_4 BSB-BB-BS"
    assert network["flops"] == find_network(OURS).for_data(10, (32, 32)).cost.flops

    layers = rows(tmp_path / "attention.csv")
    assert len(layers) == 6 + 3 + 3  # pairs of layers, of each and itself too
    shared = [row for row in layers if row["same_map"] == "True" and row["layer"] != row["other_layer"]]
    assert [(row["stage"], row["layer"], row["other_layer"], row["similarity"]) for row in shared] == [
        ("1", "1", "2", "1"),
        ("3", "1", "2", "1"),
    ]
    own = [row for row in layers if int(row["other_layer"]) == int(row["layer"]) + 1 and row["same_map"] == "False"]
    attention = network["attention"]
    assert attention["pairs"] == len(own) == 2
    assert attention["pairs_that_share"] == 2
    for key, column in (("neighbours", "similarity"), ("different_images", "different_images")):
        assert attention[key] == pytest.approx(np.mean([float(row[column]) for row in own]), rel=1e-4)

    heads = rows(tmp_path / "heads.csv")
    assert len(heads) == 2 * 2**2 + 3**2 + 4**2
    assert sum(row["matched"] == "True" for row in heads) == 2 * 2 + 3 + 4

    tokens = rows(tmp_path / "tokens.csv")
    assert [row["kind"] for row in tokens] == list("BSBBBBS")
    assert [row["tokens"] for row in tokens] == ["64"] * 3 + ["32"] * 2 + ["16"] * 2  # without the class token
    assert network["tokens"]["first_layer"] == pytest.approx(float(tokens[0]["similarity"]), rel=1e-4)
    assert network["tokens"]["last_layer"] == pytest.approx(float(tokens[-1]["similarity"]), rel=1e-4)
    assert len(network["gradcam"]) == 6

    said = capsys.readouterr().out
    assert f"neighbouring layers {attention['neighbours']:.3f}, on different images" in said
    assert "(2 pairs; 2 more share a map)" in said
    assert f"{network['tokens']['first_layer']:.3f} after the first layer" in said
    assert all(name in said for name in files)


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_of_the_images_that_the_seed_draws(weights: dict[str, str], tmp_path: Path) -> None:
    data = open_data(DataConfig())
    network = find_network(OURS).for_data(10, (32, 32)).build().eval()
    assert isinstance(network, PSViT)
    load_weights(Path(weights[OURS]), network)
    found = {}
    for seed in (0, 1):
        explain(settings(weights, tmp_path / str(seed), seed=seed))
        about = json.loads((tmp_path / str(seed) / "explain.json").read_text())["networks"][0]
        names = [one["image"] for one in about["gradcam"]]
        numbers = [int(name.removeprefix("test image ")) for name in names]
        images = torch.stack([data.image("test", number) for number in numbers])
        _, tokens = measure(network, [data.normalize(images)])
        assert about["tokens"]["last_layer"] == pytest.approx(tokens[-1][-1].same, rel=1e-4)
        with torch.no_grad():
            most, classes = network(data.normalize(images)).softmax(1).max(1)
        assert [int(one["predicted"]) for one in about["gradcam"]] == classes.tolist()
        assert [one["probability"] for one in about["gradcam"]] == pytest.approx(most.tolist(), rel=1e-4)
        assert [int(one["true"]) for one in about["gradcam"]] == data.labels("test")[numbers].tolist()
        found[seed] = names
    assert found[0] != found[1]


@pytest.mark.usefixtures("undrawn")
def test_two_networks_side_by_side(weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "2d_mini_4:B-B-B"
    explain(settings(weights, tmp_path, versus=other, versus_weights=weights[other]))
    files = {path.name for path in tmp_path.iterdir()}
    assert {"attention_versus.png", "tokens_versus.png", "architecture_versus.svg"} <= files
    assert "heads_versus.png" not in files  # it has no neighbours
    names = {"1d_mini_4 BSB-BB-BS", "2d_mini_4 B-B-B"}
    assert {row["network"] for row in rows(tmp_path / "attention.csv")} == names
    assert {row["network"] for row in rows(tmp_path / "tokens.csv")} == names
    about = json.loads((tmp_path / "explain.json").read_text())["networks"]
    assert about[1]["attention"]["neighbours"] is None
    assert [one["true"] for one in about[0]["gradcam"]] == [one["true"] for one in about[1]["gradcam"]]
    assert "no neighbouring layers with maps of their own" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_the_same_network_twice_is_told_apart(weights: dict[str, str], tmp_path: Path) -> None:
    explain(settings(weights, tmp_path, versus=OURS, versus_weights=weights[OURS]))
    one, other = json.loads((tmp_path / "explain.json").read_text())["networks"]
    assert other.pop("network") == f"{one.pop('network')} (versus)"
    assert one == other


def test_a_resnet_has_grad_cam_only(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.bmp"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    pictures = [str(tmp_path / "a.png"), str(tmp_path / "b.bmp")]
    explain(settings(weights, tmp_path / "out", "torchvision:resnet18", pictures=pictures))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gradcam.png", "explain.json"}
    assert "torchvision:resnet18: has no attention maps to compare" in capsys.readouterr().out
    (network,) = json.loads((tmp_path / "out" / "explain.json").read_text())["networks"]
    assert network["attention"] is None
    assert [one["image"] for one in network["gradcam"]] == ["a.png", "b.bmp"]
    assert [one["true"] for one in network["gradcam"]] == [None, None]


def test_faults_are_one_line(weights: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("this is no picture")
    other = weights["2d_mini_4:B-B-B"]
    for more, said in (
        ({"weights": other}, "weights of another network"),
        ({"weights": str(tmp_path / "none")}, "no such weights file"),
        ({"arch": "nothing"}, "no network is named 'nothing'"),
        ({"arch": "torchvision:vgg11"}, "explain supports .* resnet18"),
        ({"pictures": [str(tmp_path / "no.png")]}, r"no\.png .*it is not an image"),
        ({"pictures": [str(tmp_path / "none.png")]}, r"none\.png"),
        ({"data": DataConfig(name="cifar10")}, "data.root"),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            explain(replace(settings(weights, tmp_path / "out"), **more))
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_data_of_other_classes_is_refused(weights: dict[str, str], tmp_path: Path) -> None:
    from psvit.archfile import save_arch
    from psvit.networks import find_arch

    save_arch(tmp_path / "arch.json", find_arch(OURS).for_data(7, (32, 32)))
    with pytest.raises(ValueError, match="has 7 classes, the data digits 10"):
        explain(replace(settings(weights, tmp_path / "out"), arch=str(tmp_path / "arch.json")))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"num_images": 1}, "num_images is 1; it must be at least 2: one image is compared with others"),
        ({"split": "val"}, "split is 'val'"),
        ({"versus": "deit_tiny_16"}, "--versus-weights"),
        ({"versus_weights": "w"}, "--versus NET"),
    ],
)
def test_settings_that_do_not_fit(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ExplainConfig(**more)


def test_settings_load_no_torch() -> None:
    code = "import sys, psvit.explain.config; sys.exit(bool({'torch', 'captum', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
