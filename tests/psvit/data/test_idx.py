"""The reader of idx files, and Fashion-MNIST on top of it; files are written here by the format's description."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from psvit.data import datasets
from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.datasets import open_dataset
from psvit.data.idx import read_idx


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)


def write(folder: Path, pixels: np.ndarray, compressed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(40, dtype=np.uint8) % 10
    for part, order in (("train", slice(None)), ("t10k", slice(None, None, -1))):
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array[order])
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def test_arrays_come_back(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "plain").write_bytes(idx(pixels))
    (tmp_path / "small.gz").write_bytes(gzip.compress(idx(pixels)))
    assert np.array_equal(read_idx(tmp_path / "plain"), pixels)
    assert np.array_equal(read_idx(tmp_path / "small.gz"), pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content[:-1], "does not hold the 31,360 values"),
        (lambda content: content + b"x", "does not hold the 31,360 values"),
        (lambda content: content[:9], "header is damaged"),
        (lambda content: b"", "not an idx file"),
        (lambda content: b"\0\0\x0d" + content[3:], "not an idx file of bytes"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "header is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["plain", "small.gz"])
def test_damaged_files_are_refused(tmp_path: Path, pixels: np.ndarray, change, words: str, name: str) -> None:  # type: ignore[no-untyped-def]
    content = change(idx(pixels))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ValueError, match=words):
        read_idx(tmp_path / name)


def test_a_damaged_compression_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    content = gzip.compress(idx(pixels))
    for damaged in (content[: len(content) // 2], b"not gzip", content[:-6] + bytes(6)):
        (tmp_path / "a.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read"):
            read_idx(tmp_path / "a.gz")


@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"], ids=["debian", "torchvision"])
@pytest.mark.parametrize("compressed", [True, False])
def test_fashion_mnist(tmp_path: Path, pixels: np.ndarray, below: str, compressed: bool) -> None:
    write(tmp_path / below, pixels, compressed)
    data = open_dataset(DataConfig("fashion-mnist", str(tmp_path)))
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"
    assert data.image_size == (28, 28)
    assert data.train.labels.tolist() == [i % 10 for i in range(40)]
    assert data.open_test is not None
    assert data.open_test().labels.tolist() == [i % 10 for i in range(40)][::-1]
    assert open_data(DataConfig("fashion-mnist", str(tmp_path))).size("train+search") == 40


def test_debians_folder_is_the_default(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "FASHION_MNIST", tmp_path / "here")
    with pytest.raises(ValueError, match="dataset-fashion-mnist"):
        open_dataset(DataConfig("fashion-mnist"))
    write(tmp_path / "here", pixels, compressed=True)
    assert len(open_dataset(DataConfig("fashion-mnist")).train.labels) == 40


def test_a_missing_file_is_named(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path, pixels, compressed=True)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="lacks train-images-idx3-ubyte or train-labels-idx1-ubyte"):
        open_dataset(DataConfig("fashion-mnist", str(tmp_path)))


def test_labels_beyond_the_classes_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    write(tmp_path, pixels, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(40, 10, np.uint8)))
    with pytest.raises(ValueError, match="do not fit"):
        open_dataset(DataConfig("fashion-mnist", str(tmp_path)))
