"""Tar shards: what is in them, which split they are of, and what is wrong with damaged ones."""

import io
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.data.config import DataConfig
from psvit.data.data import open_data
from psvit.data.decode import read_image
from psvit.data.webdataset import TarImages, find_shards, open_webdataset, read_members

Files = Iterable[tuple[str, bytes]]


def picture(number: int, kind: str = "png", mode: str = "RGB") -> bytes:
    """A picture whose every pixel is ``number``."""
    file = io.BytesIO()
    Image.new(mode, (20 + number % 7, 16), (number,) * 3 if mode == "RGB" else number).save(file, kind)
    return file.getvalue()


def sample(number: int, label: int | str) -> Files:
    return [(f"{number:04}.png", picture(number)), (f"{number:04}.cls", str(label).encode())]


def write_tar(path: Path, files: Files, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shard(path: Path, numbers: range, classes: int = 3) -> Path:
    return write_tar(path, [file for number in numbers for file in sample(number, number % classes)])


def fault(root: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the message
        open_webdataset(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values(images: TarImages) -> list[int]:
    """What :func:`picture` was made of."""
    return [int(images.read(index)[0, 0, 0]) for index in range(len(images.labels))]


def test_shards_of_one_folder(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000001.tar", range(5, 9))
    write_shard(tmp_path / "train-000000.tar", range(5))
    write_shard(tmp_path / "val-000000.tar", range(100, 104))
    dataset = open_webdataset(tmp_path)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.photographs
    assert dataset.open_test is not None
    assert dataset.train.labels.tolist() == [number % 3 for number in range(9)]
    assert values(dataset.train) == list(range(9))
    assert values(dataset.open_test()) == [100, 101, 102, 103]
    assert dataset.train.names[0] == "train-000000.tar/0000.png"
    assert dataset.train.names[8] == "train-000001.tar/0008.png"
    assert dataset.train.read(6).shape == (3, 16, 26)


@pytest.mark.parametrize(
    ("paths", "train", "test"),
    [
        (["train/000.tar", "train/001.tar", "val/000.tar"], 2, 1),
        (["train-0.tar", "test-0.tar", "val-0.tar", "val-1.tar"], 1, 1),
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], 1, 1),
        (["shard-0.tar", "shard-1.tar", ".hidden.tar", "other/x.tar"], 2, 0),
        (["train-0.tar"], 1, 0),
    ],
)
def test_which_split_a_shard_is_of(tmp_path: Path, paths: list[str], train: int, test: int) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert tuple(map(len, find_shards(tmp_path))) == (train, test)


def test_splits_through_data(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", range(30))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    records = []
    for workers in (0, 2):
        data = open_data(DataConfig("webdataset", str(tmp_path), workers=workers))
        assert data.class_names == ("ant", "bee", "cat")
        assert [data.size(split) for split in ("train", "search", "test")] == [21, 3, 6]
        images, labels = zip(*data.eval_batches("train", (8, 8), 5), strict=True)
        records.append((data.split_record(), torch.cat(images), torch.cat(labels).tolist()))
    assert records[0][0] == records[1][0]
    assert torch.equal(records[0][1], records[1][1])
    assert records[0][2] == records[1][2] == data.labels("train").tolist()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_tar_and_any_sample(tmp_path: Path, form: int) -> None:
    folder = "f" * 60 + "/" + "g" * 60  # needs more than the 100 bytes of a header's name
    files = [
        ("__meta__.json", b"{}"),
        (f"{folder}/a.b.png", b"no picture: its extension is b.png"),
        (f"{folder}/a.JPG", picture(7, "jpeg")),
        (f"{folder}/a.json", b'{"label": 5}'),
        (f"{folder}/a.cls", b" 1\n"),
        ("b/a.cls", b"0"),
        ("b/a.jpeg", picture(9, "jpeg", "L")),
        ("only.txt", b"text"),
        ("c.cls", b"2"),
        ("c.png", picture(11)),
    ]
    write_tar(tmp_path / "train-0.tar", files, form)
    images = open_webdataset(tmp_path).train
    assert values(images) == [7, 9, 11]
    assert images.labels.tolist() == [1, 0, 2]
    assert images.names[0] == f"train-0.tar/{folder}/a.jpg"
    assert images.encoded(0) == picture(7, "jpeg")
    assert images.encoded(1) == picture(9, "jpeg", "L")
    assert images.encoded(2) is None
    assert images.read(0, lambda height, width: (4, 4)).shape == (3, 4, 5)
    assert values(pickle.loads(pickle.dumps(images))) == [7, 9, 11]


def test_what_is_in_a_tar_is_where_it_is_said_to_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [(f"{number}.bin", rng.bytes(int(rng.integers(0, 2000)))) for number in range(50)]
    path = write_tar(tmp_path / "x.tar", files)
    whole = path.read_bytes()
    members = list(read_members(path))
    assert [whole[m.offset : m.offset + m.length] for m in members] == [content for _, content in files]


def test_a_picture_in_a_tar_is_that_of_a_file(tmp_path: Path) -> None:
    Image.effect_noise((30, 20), 50).convert("CMYK").save(tmp_path / "x.jpg")
    content = (tmp_path / "x.jpg").read_bytes()
    write_tar(tmp_path / "t.tar", [("x.jpg", content), ("x.cls", b"1")])
    assert torch.equal(open_webdataset(tmp_path).train.read(0), read_image(tmp_path / "x.jpg"))


# ------------------------------------------------------------------------------------------------ faults


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    assert "holds no training tar" in fault(tmp_path)
    write_shard(tmp_path / "val-0.tar", range(4))
    assert "holds no training tar" in fault(tmp_path)
    write_shard(tmp_path / "extra-0.tar", range(4))
    assert "extra-0.tar belongs to no known split" in fault(tmp_path)
    (tmp_path / "extra-0.tar").rename(tmp_path / "train-0.tar")
    open_webdataset(tmp_path)
    write_tar(tmp_path / "train-0.tar", [("a.txt", b"")])
    assert "hold no images; a sample is" in fault(tmp_path)


def test_labels_that_cannot_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "train-0.tar"
    write_tar(path, [("a.png", picture(0)), ("b.cls", b"0")])
    assert "has image a.png but no a.cls" in fault(tmp_path)
    for text in ("", "cat", "-1", "1.5", "1e3", "9" * 30):
        write_tar(path, [*sample(0, 0), *sample(1, text)])
        assert f"0001.cls of {path} is {text!r}; it must be a class number" in fault(tmp_path)
    write_tar(path, [*sample(0, 0), *sample(1, 0)])
    assert "only one class, '0'" in fault(tmp_path)
    write_tar(path, [*sample(0, 0), *sample(1, 2)])
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert "train-0.tar/0001.png has class 2, but there are 2, counted from 0" in fault(tmp_path)
    (tmp_path / "classes.txt").write_text("ant\n\nbee\n")
    assert "has an empty line" in fault(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff")
    assert "one class per line, in UTF-8" in fault(tmp_path)
    (tmp_path / "classes.txt").unlink()
    write_tar(tmp_path / "val-0.tar", sample(5, 3))
    dataset = open_webdataset(tmp_path)
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.open_test is not None
    with pytest.raises(ValueError, match=r"val-0\.tar/0005\.png has class 3, but there are 3"):
        dataset.open_test()


def test_a_tar_that_is_cut_off_is_named_wherever_it_is_cut(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "train-0.tar", range(4))
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) + 511 & ~511  # where the last file ends, filled up to a block
    open_webdataset(tmp_path)
    for length in [0, 1, 511, 512, 513, *range(0, end + 1, 256)]:
        path.write_bytes(whole[:length])
        assert str(path) in fault(tmp_path)
    path.write_bytes(whole[: end + 512])  # as some programs end a tar
    open_webdataset(tmp_path)
    damaged = bytearray(whole)
    damaged[end // 2 & ~511 : (end // 2 & ~511) + 512] = b"x" * 512
    for content in (damaged, b"no tar at all" * 100, b"\x1f\x8b" + bytes(600)):
        path.write_bytes(content)
        assert str(path) in fault(tmp_path)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", [*sample(0, 0), ("1.png", picture(1)[:40]), ("1.cls", b"1")])
    images = open_webdataset(tmp_path).train
    images.read(0)
    with pytest.raises(ValueError, match=rf"cannot read image train-0\.tar/1\.png of {tmp_path} \(.*\); repair"):
        images.read(1)
