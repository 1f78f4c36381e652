"""Packing a dataset: what a cache holds, and that stops, kills and numbers of processes leave no trace in it."""

import json
import multiprocessing
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psvit.cli.main import main
from psvit.data import prepare
from psvit.data.cache_folder import CacheFolder
from psvit.data.config import DataConfig, PrepareConfig
from psvit.data.data import Data, open_data
from psvit.data.datasets import open_dataset
from psvit.data.packed import open_packed
from psvit.data.prepare import prepare_data


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SHARD_BYTES", 6000)


def settings(root: Path, save: Path, **changed: object) -> PrepareConfig:
    config = PrepareConfig(save=str(save), size=16, workers=0, data=DataConfig("imagefolder", str(root)))
    return replace(config, **changed)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def packed(folder: Path, **changed: object) -> Data:
    return open_data(DataConfig("packed", str(folder), **changed))


def fault(config: PrepareConfig) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the message
        prepare_data(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what it holds


@pytest.mark.parametrize("own_test", [True, False])
def test_splits_names_and_classes_are_those_of_the_source(make_folder, tmp_path: Path, own_test: bool) -> None:
    make_folder("root/train", count=9)
    if own_test:
        make_folder("root/val", count=3)
    prepare_data(settings(tmp_path / "root", tmp_path / "cache"))
    for changed in ({}, {"split_seed": 5, "search_fraction": 0.3, "test_fraction": 0.4}):
        source = open_data(DataConfig("imagefolder", str(tmp_path / "root"), **changed))
        cache = packed(tmp_path / "cache", **changed)
        assert cache.split_record() == source.split_record() | {"dataset": "packed"}
        assert cache.class_names == source.class_names
        for split in ("train", "search", "test"):
            assert cache.labels(split).tolist() == source.labels(split).tolist()
            for index in range(source.size(split)):
                height, width = source.image(split, index).shape[1:]
                assert min(cache.image(split, index).shape[1:]) == min(16, height, width)


@pytest.mark.parametrize("size", [16, 30, 64])
def test_jpegs_keep_their_shape_and_are_never_enlarged(make_folder, tmp_path: Path, size: int) -> None:
    root = make_folder("root")
    prepare_data(settings(root, tmp_path / "cache", size=size))
    source = open_dataset(DataConfig("imagefolder", str(root))).train
    images = open_packed(tmp_path / "cache").train
    assert images.aspects is None
    for index in range(len(source.labels)):
        picture = Image.fromarray(source.read(index).permute(1, 2, 0).numpy())
        scale = min(1, size / min(picture.size))
        shape = (round(picture.width * scale), round(picture.height * scale))
        expected = np.asarray(picture.resize(shape, Image.Resampling.BICUBIC)).astype(int)
        image = images.read(index).permute(1, 2, 0).numpy().astype(int)
        assert min(image.shape[:2]) == min(size, *picture.size)
        assert np.abs(image - expected).mean() < 4  # coloured noise: colours at half resolution would be 30 off


def test_raw_pixels_are_squeezed_and_their_aspect_is_known(make_folder, tmp_path: Path) -> None:
    root = make_folder("root")
    prepare_data(settings(root, tmp_path / "cache", size=24, store="raw"))
    source = open_dataset(DataConfig("imagefolder", str(root))).train
    images = open_packed(tmp_path / "cache").train
    assert images.size == (24, 24)
    assert images.aspects is not None
    assert images.aspects.dtype == np.float32
    for index in range(len(source.labels)):
        picture = Image.fromarray(source.read(index).permute(1, 2, 0).numpy())
        expected = np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        np.testing.assert_array_equal(images.read(index).numpy(), expected)
        assert images.aspects[index] == pytest.approx(picture.width / picture.height)
    # packed once more, the aspects are still those of the pictures
    again = settings(root, tmp_path / "again", store="raw", data=DataConfig("packed", str(tmp_path / "cache")))
    prepare_data(again)
    assert open_packed(tmp_path / "again").train.aspects.tolist() == images.aspects.tolist()


def test_large_jpegs_are_decoded_at_a_reduced_scale_that_is_not_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
        (tmp_path / "root" / label).mkdir(parents=True)
        coarse.resize((900, 600), Image.Resampling.BICUBIC).save(tmp_path / "root" / label / "x.jpg", quality=95)
    prepare_data(settings(tmp_path / "root", tmp_path / "cache", store="raw", size=64))
    source = open_dataset(DataConfig("imagefolder", str(tmp_path / "root"))).train
    images = open_packed(tmp_path / "cache").train
    for index in (0, 1):
        whole = Image.fromarray(source.read(index).permute(1, 2, 0).numpy())
        expected = np.asarray(whole.resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1).astype(int)
        assert np.abs(images.read(index).numpy() - expected).max() <= 6


def test_digits_keep_what_is_known_of_them(tmp_path: Path) -> None:
    prepare_data(settings(tmp_path, tmp_path / "cache", data=DataConfig(), store="raw", size=32))
    digits, cache = open_dataset(DataConfig()), open_packed(tmp_path / "cache")
    for name in ("class_names", "image_size", "mean", "std", "photographs", "open_test"):
        assert getattr(cache, name) == getattr(digits, name)
    assert torch.equal(cache.train.read(1000), digits.train.read(1000))
    split = Data(DataConfig(), digits).split_record()
    assert packed(tmp_path / "cache").split_record() == split | {"dataset": "packed"}


# ------------------------------------------------------------------------------------------------ the same bytes


@pytest.mark.usefixtures("small_shards")
def test_any_number_of_processes_makes_the_same_bytes(make_folder, tmp_path: Path) -> None:
    make_folder("root/train", count=12)
    make_folder("root/val", count=5)
    for workers in (0, 1, 2):
        prepare_data(settings(tmp_path / "root", tmp_path / str(workers), workers=workers))
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(list((tmp_path / "0").glob("train-*.bin"))) > 2


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(make_folder, tmp_path: Path) -> None:
    """``PSVIT_KILLS=100`` kills more often."""
    make_folder("root/train", count=60)
    make_folder("root/val", count=10)
    fork = multiprocessing.get_context("fork")
    began = time.monotonic()
    prepare_data(settings(tmp_path / "root", tmp_path / "whole", workers=1))
    took = time.monotonic() - began
    expected, rng, kills = contents(tmp_path / "whole"), random.Random(0), 0
    while kills < int(os.environ.get("PSVIT_KILLS", "6")):
        config = settings(tmp_path / "root", tmp_path / f"killed{kills}", workers=1)
        for _ in range(4):
            process = fork.Process(target=prepare_data, args=(config,))
            process.start()
            process.join(rng.uniform(0, took))
            if process.is_alive():
                process.kill()
                kills += 1
            process.join()
        prepare_data(config)
        assert contents(Path(config.save)) == expected


@pytest.mark.usefixtures("small_shards")
def test_whole_shards_are_not_made_again(make_folder, tmp_path: Path) -> None:
    root = make_folder("root", count=20)
    last = root / "bee/19.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:50])
    config = settings(root, tmp_path / "cache")
    assert str(last) in fault(config)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.bin")}
    assert len(done) > 3
    last.write_bytes(whole)
    prepare_data(config)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    prepare_data(settings(root, tmp_path / "unbroken"))
    assert contents(tmp_path / "cache").keys() == contents(tmp_path / "unbroken").keys()
    assert packed(tmp_path / "cache").size("train+search") == 32


@pytest.mark.usefixtures("small_shards")
def test_shards_that_were_lost_are_made_again(make_folder, tmp_path: Path) -> None:
    root, cache = make_folder("root", count=20), tmp_path / "cache"
    config = settings(root, cache)
    prepare_data(config)
    expected = contents(cache)
    (cache / "train-00001.bin").unlink()
    (cache / "train-00003.bin").write_bytes(expected["train-00003.bin"][:-1])
    with pytest.raises(
        ValueError, match=r"missing or cut off: train-00001\.bin, train-00003\.bin; run the prepare-data"
    ):
        packed(cache)
    root = root.rename(tmp_path / "moved")
    config = settings(root, cache)
    prepare_data(config)
    assert contents(cache) == expected
    (cache / "train-00001.bin").unlink()
    for path in (root / "ant").iterdir():
        Image.new("RGB", (40, 40)).save(path)
    assert "differs from what was written before" in fault(config)
    assert not (cache / "train-00001.bin").exists()


# ------------------------------------------------------------------------------------------------ faults


def test_a_folder_with_something_else_is_refused(make_folder, tmp_path: Path) -> None:
    root, cache = make_folder("root"), tmp_path / "cache"
    assert "holds other files, such as" in fault(settings(root, root))
    prepare_data(settings(root, cache))
    assert "size was 16 and is 20" in fault(settings(root, cache, size=20))
    assert "store was jpeg and is raw" in fault(settings(root, cache, store="raw"))
    assert "quality was 95 and is 90" in fault(settings(root, cache, quality=90))
    (root / "ant/00.png").rename(root / "ant/000.png")
    assert "the names of the images or classes differ" in fault(settings(root, cache))
    make_folder("root", count=8)
    assert "images was {'train': 12} and is {'train': 17}" in fault(settings(root, cache))
    (tmp_path / "file").touch()
    assert "give another folder" in fault(settings(root, tmp_path / "file"))


@pytest.mark.usefixtures("small_shards")
def test_an_unfinished_cache_of_other_settings_is_refused(make_folder, tmp_path: Path) -> None:
    root, cache = make_folder("root", count=12), tmp_path / "cache"
    (root / "bee/11.png").write_bytes(b"")
    fault(settings(root, cache))
    assert "size was 16 and is 20" in fault(settings(root, cache, size=20))
    with pytest.raises(ValueError, match=r"no finished cache .* makes or resumes one"):
        packed(cache)
    (cache / "prepare.json").write_text("{")
    assert "prepare.json is damaged" in fault(settings(root, cache))


def test_one_process_at_a_time(make_folder, tmp_path: Path) -> None:
    config = settings(make_folder("root"), tmp_path / "cache")
    with CacheFolder(tmp_path / "cache").locked():
        process = multiprocessing.get_context("fork").Process(target=fault, args=(config,))
        process.start()
        process.join()
    assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images(make_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    make_folder("root/train", count=12)
    root = make_folder("root/val", count=4).parent
    for name in ("train/ant/03.png", "train/bee/07.png", "val/ant/01.png"):
        (root / name).write_bytes(b"no picture")

    def config(save: str, **changed: object) -> PrepareConfig:
        return settings(root, tmp_path / save, workers=workers, data=DataConfig("imagefolder", str(root), **changed))

    line = fault(config("cache"))
    assert "train/ant/03.png" in line
    assert "data.corrupt=skip" in line
    assert "3 images cannot be read, more than data.corrupt_limit=2; the last: " in fault(
        config("few", corrupt="skip", corrupt_limit=2)
    )
    prepare_data(config("cache", corrupt="skip", corrupt_limit=3))
    out, err = capsys.readouterr()
    assert "22 train images + 7 test images" in out
    assert "without 3 that could not be read" in out
    assert all(f"skipped: cannot read image {root / name}" in err for name in ("train/bee/07.png", "val/ant/01.png"))
    skipped = json.loads((tmp_path / "cache/index.json").read_text())["skipped"]
    assert list(skipped) == ["train/ant/03.png", "train/bee/07.png", "test/ant/01.png"]
    assert all("it is not an image" in reason for reason in skipped.values())
    data = packed(tmp_path / "cache")
    assert (data.size("train+search"), data.size("test")) == (22, 7)
    names = data._part("train+search")[0].names
    assert "ant/03.png" not in names
    assert len(names) == 22


def test_a_shard_of_broken_images_only(make_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "SHARD_BYTES", 1)  # an image a shard
    root = make_folder("root", count=4)
    (root / "ant/01.png").write_bytes(b"")
    prepare_data(settings(root, tmp_path / "cache", data=DataConfig("imagefolder", str(root), corrupt="skip")))
    images = open_packed(tmp_path / "cache").train
    assert list(images.names) == ["ant/00.png", "ant/02.png", "ant/03.png", *(f"bee/0{n}.png" for n in range(4))]
    assert len([images.read(index) for index in range(7)]) == 7


def test_the_command(make_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, cache = make_folder("root"), tmp_path / "cache"
    ask = ["prepare-data", f"data.root={root}", "--save", str(cache), "size=16", "workers=0"]
    assert main(ask) == 0
    assert f"data=packed data.root={cache}" in capsys.readouterr().out
    assert main(["prepare-data", "--save", str(cache), "--verify"]) == 0
    assert capsys.readouterr().out.startswith(f"{cache}: all 2 files are intact")
    assert main([*ask, "size=20"]) == 2
    assert "size was 16 and is 20" in capsys.readouterr().err
    assert main(["prepare-data", f"data.root={root}"]) == 2
    assert "--save DIR" in capsys.readouterr().err


def test_a_damaged_shard_is_found_and_made_again(make_folder, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = settings(make_folder("root"), cache)
    check = PrepareConfig(save=str(cache), verify=True)
    assert "no finished cache" in fault(check)
    prepare_data(config)
    prepare_data(check)
    with open(cache / "train-00000.bin", "r+b") as file:
        file.write(b"x")
    assert "1 of the 2 files" in fault(check)
    assert "damaged or missing: train-00000.bin; delete these" in fault(check)
    (cache / "train-00000.bin").unlink()
    assert "damaged or missing: train-00000.bin; delete these" in fault(check)
    prepare_data(config)
    prepare_data(check)
    (cache / "train.npz").write_bytes(b"")
    assert "damaged or missing: train.npz; make a new cache" in fault(check)
    assert "train.npz is missing or damaged; make a new cache" in fault(config)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"store": "png"}, "use one of jpeg, raw"),
        ({"quality": 0}, "between 1 and 100"),
        ({"size": 0}, "at least 1"),
        ({"workers": -1}, "or null"),
    ],
)
def test_settings_that_cannot_be_meant(changed: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PrepareConfig(**changed)
