"""Predictions for pictures in files: those of the network by hand, in every form in which they are asked for."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import psvit
from psvit.archfile import save_arch
from psvit.cli.main import main
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.networks import find_arch
from psvit.weights import save_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights far from zero, which knows the digits by other names."""
    folder = tmp_path_factory.mktemp("run")
    known = open_data(DataConfig()).trained_on((32, 32))
    known = type(known)(tuple(f"digit {name}" for name in known.class_names), known.preprocessing)
    arch = find_arch("2d_mini_4:BS-B-B").meets(known)
    torch.manual_seed(0)
    network = arch.build()
    torch.nn.init.normal_(network.head.weight)
    save_arch(folder / "arch.json", arch)
    save_weights(folder / "model.safetensors", network, arch.about() | {"trained_on": known.to_json()})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight digits as PNG files in two folders, one file that is broken, and one that is no image."""
    digits = open_data(DataConfig())
    for index in range(8):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.image("test", index).permute(1, 2, 0).numpy()).save(path)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "pictures" / "notes.txt").write_text("no image")
    return tmp_path / "pictures"


def by_hand(run: Path) -> tuple[list[str], torch.Tensor]:
    """Of the first eight digits: the class and the probabilities."""
    from safetensors.torch import load_file

    network = find_arch("2d_mini_4:BS-B-B").build().eval()
    network.load_state_dict(load_file(run / "model.safetensors"))
    ((images, _),) = open_data(DataConfig()).eval_batches("test", (32, 32), 1000)
    with torch.no_grad():
        probabilities = network(images[:8]).softmax(dim=1)
    return [f"digit {place}" for place in probabilities.argmax(dim=1).tolist()], probabilities


def test_three_lines_of_python(run: Path, pictures: Path) -> None:
    model = psvit.load(run, device="cpu")
    names, probabilities = by_hand(run)
    for index, name in enumerate(names):
        path = pictures / "ab"[index % 2] / f"{index}.png"
        first, *others = model.predict(path)
        assert first.name == name
        assert first.confidence == pytest.approx(probabilities[index].max().item(), abs=1e-5)
        assert [first.confidence, *(each.confidence for each in others)] == sorted(
            (each.confidence for each in model.predict(path)), reverse=True
        )
        array = np.array(Image.open(path))
        for form in (str(path), Image.open(path), array, torch.from_numpy(array).permute(2, 0, 1)):
            assert model.predict(form) == [first, *others]
    assert sum(each.confidence for each in model.predict(path, top=99)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="a picture must be a file"):
        model.predict(array.astype(np.float32))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_command(run: Path, pictures: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    names, probabilities = by_hand(run)
    words = ["predict", str(run), str(pictures), "device=cpu", f"workers={workers}", "batch_size=3"]
    assert main([*words, "--csv", "--top", "2"]) == 0
    out, err = capsys.readouterr()
    rows = [*csv.DictReader(io.StringIO(out))]
    assert len(rows) == 16
    for row in rows:
        index = int(Path(row["file"]).stem)
        values = probabilities[index].sort(descending=True).values
        assert float(row["confidence"]) == pytest.approx(values[int(row["place"]) - 1].item(), abs=1e-5)
        assert row["place"] != "1" or row["class"] == names[index]
    assert "broken.png" in err
    assert "notes.txt" not in out + err


def test_json_files_and_standard_input(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, broken = (str(pictures / name) for name in ("a/0.png", "b/1.png", "broken.png"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{second}\n{broken}\n"))
    assert main(["predict", str(run / "arch.json"), first, "-", "--json", "device=cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    names, _ = by_hand(run)
    assert [found["predictions"][path][0]["name"] for path in (first, second)] == names[:2]
    assert list(found["unreadable"]) == [broken]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "a.png"], "holds no trained network"),
        (["RUN"], "no pictures are given"),
        (["RUN", "none.png"], "none.png: there is no such file or folder"),
        (["RUN", "PICTURES/broken.png"], "none of 1 pictures can be read"),
        (["RUN", "PICTURES", "--csv", "--json"], "csv and json"),
    ],
)
def test_faults_are_one_line(
    run: Path, pictures: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    words = [word.replace("RUN", str(run)).replace("PICTURES", str(pictures)) for word in words]
    assert main(["predict", *words, "device=cpu"]) == 2
    assert said in capsys.readouterr().err


def test_weights_that_do_not_know_their_classes_are_refused(tmp_path: Path) -> None:
    arch = find_arch("2d_mini_4:B-B-B")
    save_arch(tmp_path / "arch.json", arch)
    save_weights(tmp_path / "model.safetensors", arch.build(), arch.about())
    with pytest.raises(ValueError, match="does not say its classes"):
        psvit.load(tmp_path)
