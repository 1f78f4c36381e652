"""Weights that know their classes and how images are prepared for them, on the same pictures in other containers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.archfile import load_arch
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.engine.config import Recipe
from psvit.networks import find_arch
from psvit.retrain.config import DistillConfig, EvaluateConfig, RetrainConfig
from psvit.retrain.evaluate import evaluate
from psvit.retrain.start import start_from
from psvit.retrain.teacher import load_teacher
from psvit.retrain.train import RetrainResult, retrain
from psvit.weights import load_weights, read_interface, read_tensors

MINI = "2d_mini_4:B-B-B"
Folder = Callable[..., DataConfig]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quick: Recipe) -> RetrainResult:
    recipe = replace(quick, epochs=6, batch_size=120, lr=3e-3)
    return retrain(RetrainConfig(arch=MINI, out=str(tmp_path_factory.mktemp("made") / "run"), recipe=recipe))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a folder of PNG files: the digits of the test split, their classes under other names where asked."""

    def make(names: dict[str, str] | None = None) -> DataConfig:
        digits, root = open_data(DataConfig()), tmp_path / "pictures"
        for index, label in enumerate(digits.labels("test")):
            name = digits.class_names[label]
            name = (names or {}).get(name, name)
            for part in ("train", "test"):
                path = root / part / name / f"{index:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if part == "test" or index < 200:
                    Image.fromarray(digits.image("test", index).permute(1, 2, 0).numpy()).save(path)
        return DataConfig(name="imagefolder", root=str(root))

    return make


def score(made: RetrainResult, data: DataConfig, arch: str | None = None) -> dict[str, float]:
    arch = arch or str(made.folder / "arch.json")
    return evaluate(EvaluateConfig(arch=arch, weights=str(made.weights), data=data, device="cpu"))


def strip(path: Path) -> None:
    """Make an arch.json one of version 1."""
    document = json.loads(path.read_text())
    document = {key: document[key] for key in document if key not in ("class_names", "preprocessing")}
    path.write_text(json.dumps(document | {"version": 1}))


def test_both_files_say_it(made: RetrainResult) -> None:
    known = read_interface(made.weights)
    assert known is not None
    assert known == load_arch(made.folder / "arch.json").interface
    assert known.class_names == tuple("0123456789")
    assert (known.preprocessing.mean, known.preprocessing.resize) == ((0.309, 0.309, 0.309), "squeeze")


def test_the_same_pictures_give_the_same_figures_from_files(made: RetrainResult, folder: Folder) -> None:
    assert made.top1 > 0.7
    pictures = folder()
    found = score(made, pictures)
    assert found["top1"] == made.top1
    assert found == pytest.approx(score(made, DataConfig()), abs=1e-6)
    assert found == pytest.approx(score(made, pictures, MINI), abs=1e-6)


def test_classes_are_found_by_their_names(made: RetrainResult, folder: Folder, tmp_path: Path) -> None:
    """A weights file that calls its classes z0 to z9, backwards in the alphabet: z9 is the digit 0."""
    from safetensors.torch import save_file

    names = [f"z{9 - digit}" for digit in range(10)]
    known = read_interface(made.weights)
    assert known is not None
    renamed = tmp_path / "renamed.safetensors"
    about = find_arch(MINI).about() | replace(known, class_names=tuple(names)).to_json()
    save_file(read_tensors(made.weights), renamed, {"psvit": json.dumps(about)})
    backwards = folder({str(digit): name for digit, name in enumerate(names)})
    assert score(replace(made, weights=renamed), backwards, MINI)["top1"] == made.top1
    with pytest.raises(ValueError, match=r"knows the classes '0', '1', .* but not 'z0'"):
        score(made, backwards)

    network = find_arch(MINI).build().eval()
    data = open_data(backwards)
    line = start_from(renamed, network, 10, adapt=False, class_names=data.class_names)
    assert line.endswith("classes ordered as the data's")
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = find_arch(MINI).build().eval()
    load_weights(made.weights, expected)
    torch.testing.assert_close(network(images), expected(images).flip(1))
    with pytest.raises(ValueError, match="knows the classes"):
        start_from(made.weights, network, 10, adapt=False, class_names=data.class_names)
    assert "a new head" in start_from(made.weights, network, 10, adapt=True, class_names=data.class_names)


def test_a_teacher_sees_images_its_own_way(made: RetrainResult, folder: Folder) -> None:
    data = open_data(folder())
    teacher = load_teacher(DistillConfig(str(made.folder / "arch.json")), data, (32, 32))
    ((images, labels),) = data.eval_batches("test", (32, 32), 1000)
    answers = teacher(images).argmax(dim=1)
    assert float((answers == labels).double().mean()) == pytest.approx(made.top1, abs=0.01)


def test_older_files_go_on_and_say_that_they_do_not_know(
    made: RetrainResult, folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    old = tmp_path / "old.safetensors"
    save_file(read_tensors(made.weights), old, {"psvit": json.dumps(find_arch(MINI).about())})
    (tmp_path / "arch.json").write_text((made.folder / "arch.json").read_text())
    strip(tmp_path / "arch.json")
    assert load_arch(tmp_path / "arch.json").interface is None
    found = score(replace(made, weights=old), DataConfig(), str(tmp_path / "arch.json"))
    assert found["top1"] == made.top1
    assert "does not say how images are prepared" in capsys.readouterr().out
    assert score(replace(made, weights=old), folder(), MINI)["loss"] != pytest.approx(found["loss"], abs=1e-3)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("class_names", ["a"], r"\$\.class_names: has 1 names, but \$\.network 10 classes"),
        ("preprocessing/std", [1, 0, 1], r"\$\.preprocessing: std is .* must be above 0"),
        ("preprocessing/resize", "crop", r"\$\.preprocessing: resize is 'crop'; it must be cover or squeeze"),
        ("preprocessing/mean", ["x", 0, 0], r"\$\.preprocessing\.mean\[0\]: is 'x'"),
        ("preprocessing/channels", "BGR", r"\$\.preprocessing: channels is 'BGR'"),
        ("preprocessing/crop", 0.5, r"\$\.preprocessing: crop is 0.5"),
        ("version", 1, r"\$\.class_names: unknown key"),
    ],
)
def test_faults_are_refused_by_their_place(
    made: RetrainResult, tmp_path: Path, place: str, value: object, said: str
) -> None:
    document = json.loads((made.folder / "arch.json").read_text())
    *above, last = place.split("/")
    inner = document[above[0]] if above else document
    inner[last] = value
    (tmp_path / "arch.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=said):
        load_arch(tmp_path / "arch.json")


def test_figures_do_not_depend_on_the_order_of_reading() -> None:
    """Labels of a split follow the weights' order, the split itself does not."""
    data = open_data(DataConfig())
    known = replace(data.interface((32, 32)), class_names=tuple("9876543210"))
    seen = data.seen_by(known, "weights")
    assert np.array_equal(9 - seen.labels("search"), data.labels("search"))
    (batch,) = seen.eval_batches("search", (32, 32), 1000)
    assert np.array_equal(batch[1].numpy(), seen.labels("search"))
