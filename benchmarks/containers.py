"""Does a trained network score the same wherever its pictures and its weights lie?

    python -m benchmarks.containers RUN

RUN is a run folder of ``retrain`` on handwritten digits (``make demo`` leaves runs/demo-5M-seed0/retrain). Its test
pictures are written as PNG files, packed, and put into tar shards; its weights are exported; one table says the top-1
from each: by ``evaluate``, by ``predict``, in other runtimes, and in timm with timm's own transform and loader.
"""

from __future__ import annotations

import argparse
import io
import platform
import tarfile
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_data_config

import psvit
import psvit.timm
from psvit import api
from psvit.data.config import DataConfig, PrepareConfig
from psvit.data.data import open_data
from psvit.data.prepare import prepare_data
from psvit.deploy.model import Fault, Model

SPLITS = ("train", "test")


def write_pictures(folder: Path) -> None:
    """Digits as PNG files, ``test/7/0001.png``, and as tar shards beside them, ``shards/test-000000.tar``."""
    digits = open_data(DataConfig())
    for split, source in zip(SPLITS, ("train+search", "test"), strict=True):
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / f"shards/{split}-000000.tar", "w") as tar:
            for index, label in enumerate(digits.labels(source)):
                picture = io.BytesIO()
                Image.fromarray(digits.image(source, index).permute(1, 2, 0).numpy()).save(picture, "png")
                path = folder / "png" / split / digits.class_names[label] / f"{index:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture.getvalue())
                for suffix, content in (("png", picture.getvalue()), ("cls", str(int(label)).encode())):
                    member = tarfile.TarInfo(f"{index:04d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def predicted(model: Model, pictures: Path) -> float:
    """Top-1 by what ``predict`` says of PNG files in folders of their classes."""
    paths = sorted(str(path) for path in pictures.rglob("*.png"))
    right = 0
    for batch in model.predict_files(paths, 1, 64, 0):
        for answer in batch:
            if isinstance(answer, Fault):
                raise ValueError(answer.reason)
            path, (first, *_) = answer
            right += Path(path).parent.name == first.name
    return right / len(paths)


@torch.inference_mode()
def by_timm(hub: Path, pictures: Path) -> float:
    """Top-1 as timm's validate.py computes it: its own dataset, transform and loader, the model by ``create_model``."""
    model = timm.create_model(f"local-dir:{hub}", pretrained=True).eval()
    config = resolve_data_config({}, model=model, use_test_size=True)
    dataset = create_dataset("", root=str(pictures), split="validation")
    loader = create_loader(
        dataset,
        input_size=config["input_size"],
        batch_size=64,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        num_workers=0,
        device=torch.device("cpu"),
    )
    right = sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in loader)
    return right / len(dataset)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.containers")
    parser.add_argument("run", type=Path)
    run: Path = parser.parse_args().run
    weights = {"arch": str(run / "arch.json"), "weights": str(run / "model.safetensors")}
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        folder = Path(temporary)
        write_pictures(folder)
        png, test = folder / "png", folder / "png/test"
        prepare_data(
            PrepareConfig(data=DataConfig(name="imagefolder", root=str(png)), save=str(folder / "packed"), size=32)
        )
        rows["evaluate, digits of the package"] = api.evaluate("split=test", **weights)["top1"]
        for name, root in (("imagefolder", png), ("packed", folder / "packed"), ("webdataset", folder / "shards")):
            found = api.evaluate(f"data={name}", f"data.root={root}", "split=test", **weights)
            rows[f"evaluate, data={name}, of the PNG files"] = found["top1"]
        rows["predict, PNG files"] = predicted(psvit.load(run), test)
        hub, *_ = api.export(model=str(run), to="hub", save=str(folder))
        rows["predict, hub folder, PNG files"] = predicted(psvit.load(hub), test)
        for file in api.export(model=str(run), to="torch-export,onnx,openvino", save=str(folder)):
            rows[f"predict, {file.name}, PNG files"] = predicted(psvit.load(file), test)
        rows["timm, hub folder, its transform and loader, PNG files"] = by_timm(hub, test)
    print(f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}\n")
    print("| weights and pictures | top-1 |\n|---|---|")
    for name, top1 in rows.items():
        print(f"| {name} | {top1:.4f} |")


if __name__ == "__main__":
    main()
