"""Every reader of files, with a whole sample of what it reads, made by the commands themselves."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from psvit import api
from psvit.archfile import load_arch
from psvit.cli.main import main
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.decode import read_image
from psvit.data.idx import read_idx
from psvit.data.record import DataRecord
from psvit.deploy.model import load
from psvit.detection.coco import open_coco
from psvit.detection.data_config import CocoConfig
from psvit.engine.checkpoint import load_checkpoint
from psvit.engine.outcomes import ImageOutcomes
from psvit.retrain.fit import load_trained
from psvit.retrain.results import RetrainRecord
from psvit.run.folder import RunFolder
from psvit.search.history import HistoryRecord
from psvit.search.pick import read_scored
from psvit.search.records import RaceRecord, SearchRecord
from psvit.search.tables import FRONT, HISTORY, TOP
from psvit.supernet.checkpoint import TrainedSupernet

TINY = ("recipe.epochs=1", "recipe.warmup_epochs=0", "recipe.batch_size=720")


@dataclass(frozen=True)
class Reader:
    """A reader and its sample.

    Attributes:
        name: of the row in the table.
        path: of the sample.
        read: gives what was read, as something that can be compared by ``repr``.
        sealed: whether a change must not go unnoticed.
        rows: whether rows are read, and those that are there of a file that was cut short.
        costly: whether a reading takes a tenth of a second or more.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    sealed: bool = False
    rows: bool = False
    costly: bool = False


def make_samples(folder: Path) -> None:
    """One small job of each kind, below ``folder``."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        common = {"runs": str(folder / "runs"), "name": "x"}
        run = api.train_supernet(*TINY, "space.cells=2", "watch=0", **common)
        found = api.exhaustive("search.baseline=5", supernet=str(run), flops="5M", **common)
        race = ("search.baseline=5", "search.race=true", "search.race_keep=1", "search.rank_by=top1")
        api.exhaustive(*race, f"out={folder / 'race'}", supernet=str(run), flops="5M")
        made = api.retrain(*TINY, arch=str(found.folder / "arch.json"), **common)
        to = "torch-export,onnx" + ",openvino" * (find_spec("openvino") is not None)
        api.export(model=str(made.folder), to=to, save=str(folder / "export"))
        main(f"detect shapes --save {folder}/shapes --num-images 4 --num-val-images 2 singles=0".split())
        main(["prepare-data", "data=digits", "--save", str(folder / "packed"), "store=raw", "size=16"])
    write_pictures(folder)


def write_pictures(folder: Path) -> None:
    """The samples that need no job: pictures of each format, a list, tar shards, an idx file."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff", "a.ppm", "a.jp2"):
        picture = Image.fromarray(rng.integers(0, 256, (19, 23, 3), np.uint8))
        picture.save(folder / "pictures" / name)
    lines, images = ["file,label,split"], folder / "csv"
    (images / "pictures").mkdir(parents=True)
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars/train-000000.tar", "w") as tar:
        for number in range(24):
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(picture, "png")
            (images / f"pictures/{number}.png").write_bytes(picture.getvalue())
            lines.append(f"pictures/{number}.png,{'ab'[number % 2]},{('train', 'train', 'test')[number % 3]}")
            for ending, content in (("png", picture.getvalue()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (images / "list.csv").write_text("\n".join(lines) + "\n")
    pixels = rng.integers(0, 256, (3, 5, 5), np.uint8)
    (folder / "images-idx3-ubyte").write_bytes(
        bytes([0, 0, 8, 3, *(0, 0, 0, 3), *(0, 0, 0, 5), *(0, 0, 0, 5)]) + pixels.tobytes()
    )


def readers(folder: Path) -> list[Reader]:
    """Those whose samples lie below ``folder``."""
    return [each for each in (*_of_runs(folder), *_of_pictures(folder)) if each.path.exists()]


def _of_runs(folder: Path) -> list[Reader]:
    run = folder / "runs/x"
    supernet, search, retrain, export = run / "supernet", run / "exhaustive-5M", run / "retrain", folder / "export"

    def record(name: str, path: Path, kind: Any) -> Reader:
        return Reader(name, path, lambda: kind.load(path).to_json())

    def table(name: str, kind: Any) -> Reader:
        return Reader(name, search / name, lambda: kind.read(search / name).to_numpy().tolist(), sealed=True, rows=True)

    def exported(name: str, sealed: bool = False) -> Reader:
        opened = export / name.replace(".bin", ".xml")
        return Reader(name, export / name, lambda: _exported(opened), sealed, costly=True)

    settings = yaml.safe_load((search / "config.yaml").read_text()) if search.exists() else {}
    return [
        Reader("arch.json", search / "arch.json", lambda: load_arch(search / "arch.json").about()),
        record("data.json", supernet / "data.json", DataRecord),
        record("history.json", search / "history.json", HistoryRecord),
        record("result.json of a search", search / "result.json", SearchRecord),
        record("result.json of retrain", retrain / "result.json", RetrainRecord),
        record("race.json", folder / "race/race.json", RaceRecord),
        table("history.csv", HISTORY),
        table("front.csv", FRONT),
        table("top.csv", TOP),
        Reader("history.csv, by pick", search / "history.csv", lambda: _scored(search), sealed=True, rows=True),
        Reader("config.yaml", search / "config.yaml", lambda: _enter(search, settings), sealed=True),
        Reader("supernet.safetensors", supernet / "supernet.safetensors", lambda: _supernet(supernet), costly=True),
        Reader("model.safetensors", retrain / "model.safetensors", lambda: _weights(retrain), costly=True),
        Reader("outcomes.safetensors", retrain / "outcomes.safetensors", lambda: _outcomes(retrain)),
        Reader("checkpoint.pt", retrain / "checkpoint.pt", lambda: _checkpoint(retrain), sealed=True, costly=True),
        exported("model.pt2"),
        exported("model.onnx"),
        exported("model.xml", sealed=True),
        exported("model.bin", sealed=True),
        _of_data("packed", folder / "packed", folder / "packed/index.json", sealed=True),
        Reader("COCO's listing", *_coco(folder / "shapes")),
    ]


def _of_pictures(folder: Path) -> list[Reader]:
    def picture(path: Path) -> Reader:
        return Reader(f"picture {path.suffix}", path, lambda: read_image(path).numpy().tobytes())

    listed, idx = folder / "csv/list.csv", folder / "images-idx3-ubyte"
    return [
        _of_data("csv", listed, listed),
        _of_data("webdataset", folder / "tars", folder / "tars/train-000000.tar"),
        Reader("idx", idx, lambda: read_idx(idx).tobytes()),
        *(picture(path) for path in sorted((folder / "pictures").iterdir())),
    ]


def _of_data(name: str, root: Path, path: Path, sealed: bool = False) -> Reader:
    return Reader(name, path, lambda: _images(DataConfig(name, str(root), workers=0)), sealed)


def _enter(search: Path, settings: dict[str, Any]) -> str:
    """A run folder taken again with the settings that it was made with."""
    with RunFolder(search, settings):
        return "entered"


def _scored(search: Path) -> list[Any]:
    rows: list[Any] = read_scored(search).frame.to_numpy().tolist()
    return rows


def _supernet(run: Path) -> bytes:
    trained = TrainedSupernet.open(run)
    return b"".join(tensor.numpy().tobytes() for tensor in trained.load().state_dict().values())


def _weights(run: Path) -> bytes:
    network = load_trained(load_arch(run / "arch.json"), run / "model.safetensors")
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def _outcomes(run: Path) -> bytes:
    return b"".join(value.tobytes() for value in vars(ImageOutcomes.load(run / "outcomes.safetensors")).values())


def _checkpoint(run: Path) -> str:
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return repr(plain(load_checkpoint(run / "checkpoint.pt")))


def _exported(path: Path) -> bytes:
    model = load(path)
    picture = np.full((*model.image_size, 3), 100, np.uint8)
    return repr(model.predict(picture)).encode()


def _images(config: DataConfig) -> bytes:
    data = open_data(config)
    parts = []
    for split in ("train", "search", "test"):
        parts += [data.labels(split).tobytes(), data.image(split, 0).numpy().tobytes()]
    return b"".join([*parts, repr(data.class_names).encode()])


def _coco(root: Path) -> tuple[Path, Callable[[], Any]]:
    config = CocoConfig()
    listing = root / config.train_annotations

    def read() -> str:
        images = open_coco(root / config.train_images, listing)
        return repr([images[index] for index in range(len(images))])

    return listing, read
