"""A hub folder: psvit.load opens it, timm reads its preprocessing, and its card says what was measured."""

import json
import os
from pathlib import Path

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


def test_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from timm.data import create_transform, resolve_data_config

    known = open_data(DataConfig()).trained_on((32, 32))
    arch = find_arch("1d_mini_4:BS-B-B").meets(known)
    torch.manual_seed(0)
    network = arch.build().eval()
    torch.nn.init.normal_(network.head.weight)
    save_arch(tmp_path / "arch.json", arch)
    save_weights(tmp_path / "model.safetensors", network, arch.about() | {"trained_on": known.to_json()})
    hub, command = tmp_path / "hub", ["export", str(tmp_path), "--to", "hub", "--save", str(tmp_path)]
    assert main(command) == 0
    card = (hub / "README.md").read_text()
    assert "license: other # fill in\n" in card
    (hub / "README.md").write_text(card.replace("license: other # fill in", "license: mit"))
    assert main(command) == 0  # over the first
    assert "license: mit\n" in (hub / "README.md").read_text()
    said = capsys.readouterr().out

    assert os.path.samefile(hub / "model.safetensors", tmp_path / "model.safetensors")
    config = json.loads((hub / "config.json").read_text())
    assert (config["num_classes"], config["label_names"]) == (10, list("0123456789"))
    ((images, labels),) = open_data(DataConfig()).eval_batches("test", (32, 32), 1000)
    with torch.no_grad():
        logits = network(images)
    top1 = f"{(logits.argmax(dim=1) == labels).double().mean().item():.4f}"
    assert f"top-1 {top1} on" in said
    assert f"| Top-1 on {len(labels):,} test images of digits | {top1} (" in (hub / "README.md").read_text()

    picture = Image.fromarray(open_data(DataConfig()).image("test", 0).permute(1, 2, 0).numpy())
    first, *_ = psvit.load(hub, device="cpu").predict(picture)
    assert first.name == str(int(logits[0].argmax()))
    assert first.confidence == pytest.approx(logits[0].softmax(dim=0).max().item(), abs=1e-5)
    seen = create_transform(**resolve_data_config(pretrained_cfg=config["pretrained_cfg"]))(picture)
    assert (seen - images[0]).abs().max() < 3 / 255 / min(known.preprocessing.std)  # PIL rounds otherwise
