"""Reading a packed cache, and what is wrong with damaged ones."""

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.data import prepare, shards, store
from psvit.data.config import DataConfig, PrepareConfig
from psvit.data.data import open_data
from psvit.data.packed import PackedImages, open_packed
from psvit.data.prepare import prepare_data
from psvit.data.shards import ShardFiles
from psvit.data.store import pack_names, unpack_names


@pytest.fixture
def make_cache(make_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pack 24 + 8 images, a few to a shard."""
    monkeypatch.setattr(prepare, "SHARD_BYTES", 4000)
    make_folder("root/train", count=12)
    make_folder("root/val", count=4)

    def make(**changed: object) -> Path:
        config = PrepareConfig(
            str(tmp_path / "cache"), 16, workers=0, data=DataConfig("imagefolder", str(tmp_path / "root"))
        )
        prepare_data(replace(config, **changed))
        return tmp_path / "cache"

    return make


def fault(root: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the message
        open_packed(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_lie_one_behind_the_other(make_cache) -> None:
    root = make_cache()
    images = open_packed(root).train
    assert isinstance(images, PackedImages)
    records = [images.encoded(index) for index in range(24)]
    assert len(images.files.paths) > 3
    shards = b"".join((root / path.name).read_bytes() for path in images.files.paths)
    assert b"".join(record or b"" for record in records) == shards
    assert images.table.shard.tolist() == sorted(images.table.shard.tolist())
    assert images.size is None
    assert images.labels.tolist() == [0] * 12 + [1] * 12


def test_jpegs_are_read_at_a_reduced_scale(make_cache) -> None:
    images = open_packed(make_cache()).train
    shape = images.read(0).shape
    assert images.read(0, lambda height, width: (4, 4)).shape[1:] == tuple(-(-side // 4) for side in shape[1:])


def test_raw_pixels_are_no_jpegs(make_cache) -> None:
    images = open_packed(make_cache(store="raw")).train
    assert images.size == (16, 16)
    assert images.encoded(0) is None
    read = images.read(0, lambda height, width: (4, 4))
    assert read.shape == (3, 16, 16)
    read.zero_()  # in memory of its own
    assert images.read(0).any()


@pytest.mark.parametrize("names", [["a"], ["a/b c.jpg", "ä/\udcff.png", "new\nline", ""]])
def test_any_file_name_is_kept(names: list[str]) -> None:
    assert unpack_names(pack_names(names)) == names


def test_more_shards_than_files_that_may_be_open(make_cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "OPEN_FILES", 2)
    images = open_packed(make_cache()).train
    expected = [images.read(index) for index in range(24)]
    before = len(os.listdir("/dev/fd"))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for image, other in zip(pool.map(images.read, range(24)), expected, strict=True):
                assert torch.equal(image, other)
    assert len(os.listdir("/dev/fd")) <= before + 1


def _read_all(images: PackedImages, expected: list[torch.Tensor]) -> None:
    for _ in range(20):
        for index, image in enumerate(expected):
            assert torch.equal(images.read(index), image)


@pytest.mark.parametrize("method", ["fork", "pickled"])
def test_processes_read_at_once(make_cache, method: str) -> None:
    images = open_packed(make_cache()).train
    expected = [images.read(index) for index in range(24)]  # files are open now
    given = pickle.loads(pickle.dumps(images)) if method == "pickled" else images
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_read_all, args=(given, expected)) for _ in range(2)]
    for process in processes:
        process.start()
    _read_all(given, expected)
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_loader_workers_read_it(make_cache) -> None:
    data = [open_data(DataConfig("packed", str(make_cache()), workers=workers)) for workers in (0, 2)]
    one, two = ([images for images, _ in part.eval_batches("test", (16, 16), 3)] for part in data)
    assert torch.equal(torch.cat(one), torch.cat(two))


def test_squeezed_photographs_are_scored_in_their_own_shape(tmp_path: Path) -> None:
    """The middle that is cut out of them is that of the picture, up to the loss by squeezing."""
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        for index, shape in enumerate([(400, 160), (160, 400), (200, 210)]):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
            (tmp_path / "root" / label).mkdir(parents=True, exist_ok=True)
            coarse.resize(shape, Image.Resampling.BICUBIC).save(tmp_path / f"root/{label}/{index}.png")
    source = DataConfig("imagefolder", str(tmp_path / "root"))
    prepare_data(PrepareConfig(str(tmp_path / "cache"), 160, "raw", workers=0, data=source))
    expected, squeezed = (
        torch.cat([images.int() for images, _ in open_data(config).pixel_batches("train+search", (64, 64), [range(4)])])
        for config in (source, DataConfig("packed", str(tmp_path / "cache")))
    )
    assert (expected - squeezed).abs().float().mean() < 1.5  # 24, where the shape is not given back


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("kind", ["jpeg", "raw"])
def test_a_flipped_bit_is_found_and_named(make_cache, kind: str) -> None:
    root = make_cache(store=kind)
    images = open_packed(root).train
    number = 13
    shard = root / f"train-{images.table.shard[number]:05}.bin"
    content = bytearray(shard.read_bytes())
    content[images.table.offset[number] + images.table.length[number] - 1] ^= 4
    shard.write_bytes(content)
    for index in set(range(24)) - {number}:
        images.read(index)
    with pytest.raises(ValueError, match=rf"{shard} is damaged, at image bee/01\.png; .* --save {root} --verify"):
        images.read(number)
    assert images.encoded(number) is None
    with pytest.raises(ValueError, match=rf"^1 of the \d+ files of {root} are damaged or missing: {shard.name}; "):
        store.verify(root, threads=2)


def test_a_shard_that_is_cut_off_while_it_is_read(make_cache) -> None:
    root = make_cache()
    images = open_packed(root).train
    os.truncate(root / "train-00000.bin", 100)
    with pytest.raises(ValueError, match=r"train-00000\.bin is cut off at byte 100, at image ant/00\.png; "):
        images.read(0)
    for path in root.glob("*.bin"):
        path.unlink()
    with pytest.raises(ValueError, match=r"cannot read .*\.bin: No such file or directory, at image bee/11\.png; "):
        open_images(root).read(23)


def open_images(root: Path) -> PackedImages:
    """The images of a cache, not looking at the sizes of its files."""
    index = store.read_index(root)
    paths = [root / store.shard_name("train", number) for number in range(len(index.shards["train"]))]
    return PackedImages(ShardFiles(paths), store.read_table(root, "train", index.tables["train"]), raw=False)


def test_shards_that_are_missing_or_cut_off_are_refused(make_cache) -> None:
    root = make_cache()
    with open(root / "train-00002.bin", "ab") as file:
        file.write(b"x")
    os.truncate(root / "train-00000.bin", 100)
    (root / "test-00001.bin").unlink()
    assert "missing or cut off: train-00000.bin, train-00002.bin, test-00001.bin; run the prepare-data" in fault(root)


def test_an_index_that_is_no_index_is_refused(make_cache, tmp_path: Path) -> None:
    assert "holds no finished cache" in fault(tmp_path)
    root = make_cache()
    path = root / "index.json"
    index = json.loads(path.read_text())
    for change, words in (
        ({"version": 3}, "has version 3; this program reads 2"),
        ({"format": "psvit-arch"}, "it is not the index of a cache"),
        ({"photographs": 1}, "its values are not those that were written"),
    ):
        path.write_text(json.dumps(index | change))
        assert words in fault(root)
    del index["sha256"]
    for change, words in (
        ({"mean": [1, 2]}, "is damaged"),
        ({"files": {}}, "is damaged"),
        ({"files": []}, "is damaged"),
        ({"settings": 3}, "is damaged"),
        ({"settings": {"store": "zip"}}, "is damaged"),
        ({"mean": [10**400, 1, 1]}, "is damaged"),
        ({"class_names": None}, "is damaged"),
    ):
        changed = index | change
        path.write_text(json.dumps(changed | {"sha256": store._digest(changed)}))
        assert words in fault(root)
    for text in ("", "[]", "{", "\ud800"):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        assert "cannot read" in fault(root)
    path.write_text(json.dumps(index | {"sha256": store._digest(index)}))
    assert open_packed(root).class_names == ("ant", "bee")
    table = (root / "train.npz").read_bytes()
    (root / "train.npz").write_bytes(table[:-200] + bytes(200))
    assert "train.npz is missing or damaged" in fault(root)
    (root / "train.npz").unlink()
    assert "train.npz is missing or damaged" in fault(root)


def test_the_table_holds_no_objects(make_cache) -> None:
    with np.load(make_cache() / "train.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(store.Table._fields)
        assert all(arrays[name].dtype.kind in "iuf" for name in arrays)
