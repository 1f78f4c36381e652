"""Exported files: they answer as the network by hand does, say what they are, and are not left when they differ."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import psvit
from psvit.archfile import save_arch
from psvit.cli.main import main
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.deploy import formats as formats_module
from psvit.deploy.model import Fault
from psvit.networks import find_arch
from psvit.weights import save_weights

ROOT = Path(__file__).parent.parent.parent
NO_OPENVINO = importlib.util.find_spec("openvino") is None
NO_ONNX = any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    known = open_data(DataConfig()).trained_on((32, 32))
    arch = find_arch("1d_mini_4:BS-B-B").meets(known)
    torch.manual_seed(0)
    network = arch.build()
    torch.nn.init.normal_(network.head.weight)
    save_arch(folder / "arch.json", arch)
    save_weights(folder / "model.safetensors", network, arch.about() | {"trained_on": known.to_json()})
    return folder


def answers(run: Path) -> tuple[Tensor, Tensor, float]:
    """Test images, the logits of the network by hand, and its top-1."""
    from safetensors.torch import load_file

    network = find_arch("1d_mini_4:BS-B-B").build().eval()
    network.load_state_dict(load_file(run / "model.safetensors"))
    ((images, labels),) = open_data(DataConfig()).eval_batches("test", (32, 32), 1000)
    with torch.no_grad():
        logits = network(images)
    return images, logits, (logits.argmax(1) == labels).double().mean().item()


def test_torch_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "torch-export", "--save", str(tmp_path / "out")]) == 0
    images, logits, top1 = answers(run)
    assert f"test top-1 {top1:.4f} on {len(images)} images" in capsys.readouterr().out
    extra = {"psvit.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=extra).module()
    torch.testing.assert_close(program(images[:7]), logits[:7], atol=1e-4, rtol=1e-4)
    said = json.loads(extra["psvit.json"])
    assert said["class_names"] == list("0123456789")
    assert (said["image_size"], said["preprocessing"]["mean"]) == ([32, 32], [0.309] * 3)


@pytest.mark.skipif(NO_ONNX, reason="needs the extra 'export'")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx(run: Path, tmp_path: Path) -> None:
    import onnxruntime

    assert main(["export", str(run), "--to", "onnx", "--save", str(tmp_path)]) == 0
    images, logits, _ = answers(run)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"images": images[:7].numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), logits[:7], atol=1e-4, rtol=1e-4)
    said = json.loads(session.get_modelmeta().custom_metadata_map["psvit"])
    assert said["class_names"] == list("0123456789")


@pytest.fixture(scope="module")
def openvino_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("openvino")
    assert main(["export", str(run), "--to", "openvino", "--save", str(folder)]) == 0
    return folder / "model.xml"


def test_openvino(run: Path, openvino_file: Path) -> None:
    """By OpenVINO alone; in bfloat16, which it chooses on some CPUs, the logits would be further apart."""
    import openvino

    model = openvino.Core().read_model(openvino_file)
    network = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images, logits, _ = answers(run)
    for batch in (1, 2, 7):
        found = network({"images": images[:batch].numpy()})["logits"]
        torch.testing.assert_close(torch.from_numpy(found), logits[:batch], atol=1e-4, rtol=1e-4)
    assert str(model.inputs[0].get_partial_shape()) == "[?,3,32,32]"
    said = json.loads(model.get_rt_info(["psvit"]).value)
    assert said["class_names"] == list("0123456789")
    assert (said["image_size"], said["preprocessing"]["mean"]) == ([32, 32], [0.309] * 3)


def test_openvino_is_two_files_in_full_precision(run: Path, openvino_file: Path) -> None:
    from safetensors.torch import load_file

    assert sorted(path.name for path in openvino_file.parent.iterdir()) == ["model.bin", "model.xml"]
    numbers = sum(weight.numel() for weight in load_file(run / "model.safetensors").values())
    assert openvino_file.with_suffix(".bin").stat().st_size > 3 * numbers, "halves would be 2 bytes each"


def test_openvino_sends_nothing(run: Path, tmp_path: Path) -> None:
    """Left alone it sends its makers word of each import and conversion, and leaves an identity in the home folder."""
    pytest.importorskip("openvino")
    code = "import sys; from psvit.cli.main import main; status = main(sys.argv[1:]); " + (
        "sys.exit(status or any(name.startswith('openvino_telemetry.') for name in sys.modules))"
    )
    command = [sys.executable, "-c", code, "export", str(run), "--to", "openvino", "--save", str(tmp_path / "out")]
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    assert subprocess.run(command, env=environment, cwd=ROOT, capture_output=True).returncode == 0
    assert not (tmp_path / "home/intel").exists()


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "of another export", "missing"])
def test_damaged_openvino_files_are_one_line(
    openvino_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    for path in openvino_file.parent.iterdir():
        shutil.copy(path, tmp_path)
    whole = (tmp_path / name).read_bytes()
    middle = len(whole) // 2
    if damage == "missing":
        (tmp_path / name).unlink()
    else:
        changed = {
            "cut": whole[:-100],
            "empty": b"",
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "of another export": whole.replace(whole[200:300], whole[200:300][::-1]),
        }
        (tmp_path / name).write_bytes(changed[damage])
    assert main(["predict", str(tmp_path / "model.xml"), str(ROOT / "docs/images/scores.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.xml" in line
    assert any(words in line for words in ("cannot be opened", "did not write it", "holds no trained network"))


def test_an_export_is_not_exported_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"some")
    assert main(["export", str(tmp_path / "model.onnx")]) == 2
    assert "give a run folder of retrain, or its arch.json\n" in capsys.readouterr().err
    (tmp_path / "model.bin").write_bytes(b"some")
    assert main(["predict", str(tmp_path / "model.bin"), str(tmp_path)]) == 2
    assert "name the .xml beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "to", ["torch-export", pytest.param("openvino", marks=pytest.mark.skipif(NO_OPENVINO, reason="needs openvino"))]
)
def test_a_file_that_answers_differently_is_not_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    form = formats_module.FORMATS_BY_NAME[to]

    def worse(path: Path) -> tuple[formats_module.Run, str | None]:
        network, about = form.open(path)
        return lambda images: network(images) + 0.5 * (len(images) == 5), about

    monkeypatch.setitem(formats_module.FORMATS_BY_NAME, to, replace(form, open=worse))
    assert main(["export", str(run), "--to", to, "--save", str(tmp_path / "out")]) == 2
    assert "differ from torch's by 0.5 at a batch of 5" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_unknown_formats_and_missing_runtimes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "--to", "onxx"]) == 2
    assert "to is 'onxx'; use torch-export, onnx, openvino, hub" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "model.onnx needs onnx, onnxscript, onnxruntime: pip install" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "openvino"]) == 2
    assert capsys.readouterr().err.endswith("model.xml needs openvino: pip install 'psvit-search[openvino]'\n")


@pytest.mark.parametrize(
    "to",
    [
        "torch-export",
        pytest.param("onnx", marks=pytest.mark.skipif(NO_ONNX, reason="needs the extra 'export'")),
        pytest.param("openvino", marks=pytest.mark.skipif(NO_OPENVINO, reason="needs the extra 'openvino'")),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_predict_reads_exported_files(run: Path, tmp_path: Path, to: str) -> None:
    """All test pictures as PNG files, by the file alone: the classes that the network by hand finds."""
    assert main(["export", str(run), "--to", to, "--save", str(tmp_path)]) == 0
    file = tmp_path / formats_module.FORMATS_BY_NAME[to].file
    digits, paths = open_data(DataConfig()), []
    images, logits, _ = answers(run)
    for index in range(len(images)):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(digits.image("test", index).permute(1, 2, 0).numpy()).save(paths[-1])
    batches = psvit.load(file).predict_files(paths, 1, 64, 0)
    found = [int(answer[1][0].name) for batch in batches for answer in batch if not isinstance(answer, Fault)]
    assert found == logits.argmax(dim=1).tolist()


def test_files_that_are_no_exports_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), tmp_path / "other.pt2")
    (tmp_path / "broken.pt2").write_bytes(b"no zip")
    for name, expected in (("other.pt2", "did not write it"), ("broken.pt2", "cannot be opened")):
        assert main(["predict", str(tmp_path / name), str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
        assert name in line
    with pytest.raises(ValueError, match="computes on the CPU"):
        psvit.load(tmp_path / "other.pt2", device="cuda")
